-- What changed after a change number. ARGV: token, since.
-- Gives: change number, first minute that is not closed, first minute that is whole, newest change among what was dropped,
-- for each metric {fingerprint, shape, {minute, change, …}}, and the days of values {day:dimension, change, …}.
if is_another(ARGV[1]) then
  return { 'restarted' }
end
local since = '(' .. ARGV[2]
local metrics = {}
local shapes = call('HGETALL', key('shapes'))
for i = 1, #shapes, 2 do
  local minutes = call('ZRANGEBYSCORE', key('changed', shapes[i]), since, '+inf', 'WITHSCORES')
  if #minutes > 0 then
    metrics[#metrics + 1] = { shapes[i], shapes[i + 1], minutes }
  end
end
local function stored(name)
  return call('GET', key(name)) or '0'
end
local values = call('ZRANGEBYSCORE', key('changed_values'), since, '+inf', 'WITHSCORES')
return { 'ok', stored('seq'), stored('closed'), stored('complete_from'), stored('forgotten'), metrics, values }
