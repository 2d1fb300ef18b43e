-- Which log the positions speak of. ARGV: the log. Gives the one they do.
call('SETNX', key('log'), ARGV[1])
return call('GET', key('log'))
