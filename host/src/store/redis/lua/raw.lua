-- Raw events on their way to where people ask for them, by source: up to which position they were sent, up to where a block
-- goes that is being sent (`-`: none is), and in which life of Redis somebody has made sure of that. ARGV: what, and
--   'places', packed {source, epoch}     gives the life, and of each source that is still the asker's
--                                        {source, sent, end of the block, position of the state, life}
--   'note', source, epoch, from, to      a block is about to be sent
--   'lines', source, from, to            what of it is not to be sent, as `commit.lua` has put it
--   'sent', source, from, to             it has arrived
--   'reached', source, epoch, life, next all before `next` has arrived, as those say where it arrives
-- `moved`: it is no longer so, the asker is to look again.
local what, states, life = ARGV[1], key('raw'), call('GET', key('token')) or ''

local function state_of(id)
  return string.match(call('HGET', states, id) or '', '^(%d+) (%S+) (%S+)$')
end

local function covered(id)
  return string.match(call('HGET', key('positions'), '0:' .. id) or '0', '^%d+')
end

local function is_owner(id, epoch)
  return (call('HGET', key('epochs'), id) or '0') == epoch
end

local function put(id, sent, noted, sure)
  call('ZREMRANGEBYSCORE', key('uncounted', id), '-inf', sent)
  call('HSET', states, id, sent .. ' ' .. noted .. ' ' .. sure)
end

if what == 'places' then
  local places = { 'ok', life }
  for _, source in ipairs(cmsgpack.unpack(ARGV[2])) do
    local sent, noted, sure = state_of(source[1])
    if sent and is_owner(source[1], source[2]) then
      places[#places + 1] = { source[1], sent, noted, covered(source[1]), sure }
    end
  end
  return places
end

local id = ARGV[2]
local sent, noted, sure = state_of(id)
if not sent then
  return { 'moved' }
end
if what == 'note' then
  local epoch, from, to = ARGV[3], ARGV[4], ARGV[5]
  local fits = tonumber(from) < tonumber(to) and tonumber(to) <= tonumber(covered(id))
  if not is_owner(id, epoch) or sure ~= life or sent ~= from or noted ~= '-' or not fits then
    return { 'moved' }
  end
  put(id, from, to, sure)
elseif what == 'lines' or what == 'sent' then
  local from, to = ARGV[3], ARGV[4]
  if sent ~= from or noted ~= to then
    return { 'moved' }
  end
  if what == 'sent' then
    put(id, to, '-', sure)
  else
    -- By the ends of the deltas that they are of: the first that ends behind the block may reach into it.
    local lines = call('ZRANGEBYSCORE', key('uncounted', id), '(' .. from, '(' .. to)
    local last = call('ZRANGEBYSCORE', key('uncounted', id), to, '+inf', 'LIMIT', 0, 1)
    return { 'ok', lines, last }
  end
elseif what == 'reached' then
  local epoch, asked, next = ARGV[3], ARGV[4], ARGV[5]
  if asked ~= life or not is_owner(id, epoch) then
    return { 'moved' }
  end
  if noted ~= '-' and tonumber(noted) > tonumber(next) then
    -- The same block again, whatever of it is there.
    put(id, sent, noted, life)
  else
    put(id, tonumber(next) > tonumber(sent) and next or sent, '-', life)
  end
end
return { 'ok' }
