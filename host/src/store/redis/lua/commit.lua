-- Takes over a staged delta: whole, or not at all. ARGV: token, the stage's name, how many parts it has, packed sources,
-- packed metrics, the delta's earliest minute.
-- From here on its parts stand in one queue with those of all other hosts, in the order of their commits; whoever comes by
-- merges the next part (merge.lua). A part is taken off the queue in the same step that merges it: a host that dies in between
-- leaves nothing out and nothing twice.
local stage, count = key('stage', ARGV[2]), tonumber(ARGV[3])
if is_another(ARGV[1]) then
  return { 'restarted' }
end
local positions, epochs, kinds, shapes = key('positions'), key('epochs'), key('kinds'), key('shapes')
local sources, metrics = cmsgpack.unpack(ARGV[4]), cmsgpack.unpack(ARGV[5])
for _, source in ipairs(sources) do
  local group, id, from, epoch = source[1], source[2], source[3], source[6]
  local owner = call('HGET', epochs, id) or '0'
  if owner ~= epoch then
    return { 'fenced', id, owner }
  end
  local stored = string.match(call('HGET', positions, group .. ':' .. id) or '0', '^%d+')
  if stored ~= from then
    return { 'position', group, id, stored }
  end
end
for _, metric in ipairs(metrics) do
  local known = call('HGET', kinds, metric[1])
  if known and known ~= metric[2] then
    return { 'shape', metric[1] }
  end
end
local floor = number(call('GET', key('complete_from')))
if tonumber(ARGV[6]) < floor then
  return { 'floor', floor }
end
if call('LLEN', stage) ~= count then
  return { 'gone' }
end
call('TYPE', shapes)
local redo = key('redo')
call('LLEN', redo)
local committed = number(call('GET', key('committed')))
if count > 0 then
  committed = committed + 1
  call('SET', key('committed'), text(committed))
  for _ = 1, count do
    call('LMOVE', stage, redo, 'LEFT', 'RIGHT')
  end
  call('RPUSH', redo, 'end')
end
for _, metric in ipairs(metrics) do
  call('HSET', kinds, metric[1], metric[2])
  call('HSET', shapes, metric[1], metric[3])
end
for _, source in ipairs(sources) do
  call('HSET', positions, source[1] .. ':' .. source[2], source[4] .. ' ' .. source[5])
end
return { 'ok', text(committed) }
