-- The answer to a commit was lost. ARGV: the stage's name. After this call it can no longer be committed; it was, if its
-- positions are where the delta ends.
call('DEL', key('stage', ARGV[1]))
return { 'ok', call('GET', key('committed')) or '0' }
