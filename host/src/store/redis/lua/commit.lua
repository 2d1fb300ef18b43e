-- Takes over a staged delta: whole, or not at all. ARGV: token, the stage's name, how many parts it has, packed sources,
-- packed metrics, the delta's earliest minute, packed {source, lines that were not counted} (empty: this host sends no raw events).
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
-- Raw events on their way elsewhere (raw.lua): what of the delta is not among them.
local raw, states, uncounted = key('raw'), {}, {}
for _, source in ipairs(sources) do
  states[source[2]] = call('HGET', raw, source[2])
  call('ZCARD', key('uncounted', source[2]))
end
local sends = ARGV[7] ~= ''
for _, kept in ipairs(sends and cmsgpack.unpack(ARGV[7]) or {}) do
  uncounted[kept[1]] = kept[2]
end
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
  local group, id, from, to = source[1], source[2], source[3], source[4]
  call('HSET', positions, group .. ':' .. id, to .. ' ' .. source[5])
  local state, lines = states[id], uncounted[id]
  if group == '0' and sends then
    if not state or state == 'left' then
      -- They begin here; `raw.lua` looks whether some are there already.
      call('HSET', raw, id, from .. ' - ' .. (state or '-'))
    end
    if lines and tonumber(to) > number(string.match(state or '', '^%d+')) then
      call('ZADD', key('uncounted', id), to, lines)
    end
  elseif group == '0' and state and state ~= 'left' then
    call('HSET', raw, id, 'left')
    call('DEL', key('uncounted', id))
  end
end
return { 'ok', text(committed) }
