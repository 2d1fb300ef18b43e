-- Keeps something for the holder of a lease. ARGV: the job, who asks, the name of what is kept, its bytes.
-- Gives 1; 0: somebody else holds the lease, or nobody.
if call('GET', key('lease', ARGV[1])) ~= ARGV[2] then
  return 0
end
call('SET', key(ARGV[3]), ARGV[4])
return 1
