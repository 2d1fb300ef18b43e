-- The owner of sources says that no event of them will come for minutes before the given one. ARGV: packed {source, epoch,
-- minute}. A minute is closed when all sources say so; it never opens again. Gives the first minute that is not closed.
local floors = key('floors')
for _, source in ipairs(cmsgpack.unpack(ARGV[1])) do
  local id, epoch, minute = source[1], source[2], source[3]
  local known = call('HGET', floors, id)
  if (call('HGET', key('epochs'), id) or '0') == epoch and minute > number(known) then
    call('HSET', floors, id, minute)
  end
end
local all = call('HVALS', floors)
local closed = tonumber(all[1] or '0')
for _, minute in ipairs(all) do
  closed = math.min(closed, tonumber(minute))
end
if closed > number(call('GET', key('closed'))) then
  call('SET', key('closed'), text(closed))
end
return call('GET', key('closed')) or '0'
