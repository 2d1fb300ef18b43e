-- Decides which combinations are kept. Only ever adds: asked again, by whomever, it changes nothing that was decided.
-- ARGV: token, what (`fingerprint:day`, or `=dimension:day` for the values of a dimension), limit, how many the host knows,
-- what is kept past the limit (`fold` or `none`), packed combinations in the order in which they came.
-- Gives: how many count to the limit, how many first values were kept on top, the list from what the host knows on.
local OTHER = '__other__'
if is_another(ARGV[1]) then
  return { 'restarted' }
end
local limit, fold = tonumber(ARGV[3]), ARGV[5] == 'fold'
local numbers, list, counts = key('number', ARGV[2]), key('list', ARGV[2]), key('kept', ARGV[2])
local kept, firsts = number(call('HGET', counts, 'kept')), number(call('HGET', counts, 'firsts'))
local length = call('LLEN', list)
local before = length

local function is_kept(packed)
  return call('HEXISTS', numbers, packed) == 1
end

local function add(packed)
  call('HSET', numbers, packed, length)
  call('RPUSH', list, packed)
  length = length + 1
end

local function place_past_limit(wanted)
  for last = #wanted, 2, -1 do
    wanted[last] = OTHER
    if is_kept(cmsgpack.pack(wanted)) then
      return
    end
  end
  if #wanted > 1 and wanted[1] ~= OTHER and firsts < limit then
    firsts = firsts + 1
    return add(cmsgpack.pack(wanted))
  end
  wanted[1] = #wanted > 0 and OTHER or nil
  local packed = cmsgpack.pack(wanted)
  if not is_kept(packed) then
    add(packed)
  end
end

for _, wanted in ipairs(cmsgpack.unpack(ARGV[6])) do
  local packed = cmsgpack.pack(wanted)
  if not is_kept(packed) then
    if kept < limit then
      kept = kept + 1
      add(packed)
    elseif fold then
      place_past_limit(wanted)
    end
  end
end
if length > before then
  call('HSET', counts, 'kept', kept, 'firsts', firsts)
end
return { 'ok', kept, firsts, call('LRANGE', list, ARGV[4], -1) }
