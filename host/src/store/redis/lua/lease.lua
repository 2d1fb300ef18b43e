-- One host at a time does a job. ARGV: the job, who asks, for how many ms (0: gives it back).
-- Gives the fencing number under which it is held, higher with every new holder; 0: somebody else holds it.
local name = key('lease', ARGV[1])
local holder = call('GET', name)
if holder and holder ~= ARGV[2] then
  return 0
end
if ARGV[3] == '0' then
  call('DEL', name)
  return 0
end
call('SET', name, ARGV[2], 'PX', ARGV[3])
local fences = key('fences')
if holder then
  return tonumber(call('HGET', fences, ARGV[1]) or '1')
end
return call('HINCRBY', fences, ARGV[1], 1)
