-- Raw events on their way to where people ask for them, by source: up to which position they were sent, up to where a block
-- goes that is being sent (`-`: none is), in which life of Redis somebody has made sure of that, and where the last event stood
-- that has arrived (`-`: not known). ARGV: what, and
--   'places', packed {source, epoch}     gives the life, and of each source that is still the asker's
--                                        {source, sent, end of the block, position of the state, life, last event}
--   'note', source, epoch, from, to      a block is about to be sent
--   'lines', source, from, to            what of it is not to be sent, as `commit.lua` has put it
--   'sent', source, from, to, last       it has arrived
--   'reached', source, epoch, life, next, last   all before `next` has arrived, as those say where it arrives
--   'keep', source, epoch, to, lines     these are not to be sent either, once it is sent again
--   'again', source, epoch, sent, from   what was sent from there on is gone where it had arrived: it is sent again
-- `moved`: it is no longer so, the asker is to look again.
local what, states, life = ARGV[1], key('raw'), call('GET', key('token')) or ''

local function state_of(id)
  local sent, noted, sure, last = string.match(call('HGET', states, id) or '', '^(%d+) (%S+) (%S+) ?(%S*)$')
  return sent, noted, sure, last ~= '' and last or '-'
end

local function covered(id)
  return string.match(call('HGET', key('positions'), '0:' .. id) or '0', '^%d+')
end

local function is_owner(id, epoch)
  return (call('HGET', key('epochs'), id) or '0') == epoch
end

local function put(id, sent, noted, sure, last)
  call('ZREMRANGEBYSCORE', key('uncounted', id), '-inf', sent)
  call('HSET', states, id, sent .. ' ' .. noted .. ' ' .. sure .. ' ' .. last)
end

-- The later of two events.
local function later(one, other)
  return tonumber(other) and (tonumber(one) or -1) < tonumber(other) and other or one
end

if what == 'places' then
  local places = { 'ok', life }
  for _, source in ipairs(cmsgpack.unpack(ARGV[2])) do
    local sent, noted, sure, last = state_of(source[1])
    if sent and is_owner(source[1], source[2]) then
      places[#places + 1] = { source[1], sent, noted, covered(source[1]), sure, last }
    end
  end
  return places
end

local id = ARGV[2]
local sent, noted, sure, last = state_of(id)
if not sent then
  return { 'moved' }
end
if what == 'note' then
  local epoch, from, to = ARGV[3], ARGV[4], ARGV[5]
  local fits = tonumber(from) < tonumber(to) and tonumber(to) <= tonumber(covered(id))
  if not is_owner(id, epoch) or sure ~= life or sent ~= from or noted ~= '-' or not fits then
    return { 'moved' }
  end
  put(id, from, to, sure, last)
elseif what == 'lines' or what == 'sent' then
  local from, to = ARGV[3], ARGV[4]
  if sent ~= from or noted ~= to then
    return { 'moved' }
  end
  if what == 'sent' then
    put(id, to, '-', sure, later(last, ARGV[5]))
  else
    -- By the ends of the deltas that they are of: the first that ends behind the block may reach into it.
    local lines = call('ZRANGEBYSCORE', key('uncounted', id), '(' .. from, '(' .. to)
    local reaching = call('ZRANGEBYSCORE', key('uncounted', id), to, '+inf', 'LIMIT', 0, 1)
    return { 'ok', lines, reaching }
  end
elseif what == 'reached' then
  local epoch, asked, next = ARGV[3], ARGV[4], ARGV[5]
  last = later(last, ARGV[6])
  if asked ~= life or not is_owner(id, epoch) then
    return { 'moved' }
  end
  if noted ~= '-' and tonumber(noted) > tonumber(next) then
    -- The same block again, whatever of it is there.
    put(id, sent, noted, life, last)
  else
    put(id, tonumber(next) > tonumber(sent) and next or sent, '-', life, last)
  end
elseif what == 'keep' then
  if not is_owner(id, ARGV[3]) or sure ~= life then
    return { 'moved' }
  end
  call('ZADD', key('uncounted', id), ARGV[4], ARGV[5])
elseif what == 'again' then
  if not is_owner(id, ARGV[3]) or sure ~= life or sent ~= ARGV[4] or tonumber(ARGV[5]) > tonumber(sent) then
    return { 'moved' }
  end
  put(id, ARGV[5], '-', sure, '-')
end
return { 'ok' }
