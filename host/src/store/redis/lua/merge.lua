-- Merges the next part of the queue, and takes it off. Gives how many elements are left.
--
-- A part is a list of items:
--   'r', fingerprint, minute, space, bucket, kinds, {field…}, rows     rows of 8-byte floats, one a slot
--   'u', fingerprint, minute, slot, space, bucket, {field…}, {entries…}   sparse entries of sketches
--   'd', fingerprint, minute, slot, space, number, sketch              a dense sketch as Redis has them
--   'v', dimension, day, {value…}, {events…}                           events by value
-- Kinds: `+` adds, `<` keeps the smaller, `>` the larger.
local redo = key('redo')
local head = call('LINDEX', redo, 0)
if not head then
  return 0
end

local function finish()
  call('LPOP', redo)
  call('INCR', key('seq'))
  return call('LLEN', redo)
end
if head == 'end' then
  return finish()
end

local pack, unpack_at, sub, byte = struct.pack, struct.unpack, string.sub, string.byte
local VALUES_MAX = 100000

local function merge_row(kinds, old, new)
  local slots, out = #kinds, {}
  for slot = 1, slots do
    local at = slot * 8 - 7
    local a, b = (unpack_at('<d', old, at)), (unpack_at('<d', new, at))
    local kind = byte(kinds, slot)
    if kind == 43 then
      a = a + b
    elseif kind == 60 and b < a or kind == 62 and b > a then
      a = b
    end
    out[slot] = pack('<d', a)
  end
  return table.concat(out)
end

local writes, changed, values_changed = {}, {}, {}

local function later(...)
  writes[#writes + 1] = { ... }
end

local function rows(item)
  local name = key('r', item[2], item[3], item[4], item[5])
  local kinds, fields, incoming = item[6], item[7], item[8]
  local stride = #kinds * 8
  local stored = call('HMGET', name, unpack(fields))
  local out = { 'HSET', name }
  for i = 1, #fields do
    local new = sub(incoming, (i - 1) * stride + 1, i * stride)
    local old = stored[i]
    if old and stride > 0 then
      if kinds == '+' then
        new = pack('<d', (unpack_at('<d', old)) + (unpack_at('<d', new)))
      else
        new = merge_row(kinds, old, new)
      end
    end
    out[#out + 1] = fields[i]
    out[#out + 1] = new
  end
  writes[#writes + 1] = out
end

local function entries(item)
  local name = key('u', item[2], item[3], item[4], item[5], item[6])
  local fields, incoming = item[7], item[8]
  local stored = call('HMGET', name, unpack(fields))
  local out = { 'HSET', name }
  for i = 1, #fields do
    out[#out + 1] = fields[i]
    out[#out + 1] = (stored[i] or '') .. incoming[i]
  end
  writes[#writes + 1] = out
end

local function dense(item)
  local cell = table.concat({ item[4], item[5], item[6] }, ':')
  local name, set = key('d', item[2], item[3], cell), key('dense', item[2], item[3])
  call('SCARD', set)
  if call('EXISTS', name) == 1 then
    call('PFCOUNT', name)
    later('SET', key('incoming'), item[7])
    later('PFMERGE', name, key('incoming'))
  else
    later('SET', name, item[7])
    later('SADD', set, cell)
  end
end

local function values(item)
  local name = key('values', item[2], item[3])
  local length = call('HLEN', name)
  for i, value in ipairs(item[4]) do
    if length >= VALUES_MAX and call('HEXISTS', name, value) == 0 then
      value = '__other__'
    end
    later('HINCRBY', name, value, item[5][i])
  end
  values_changed[item[3] .. ':' .. item[2]] = true
end

local kinds_of_items = { r = rows, u = entries, d = dense, v = values }
local seq = text(number(call('GET', key('seq'))) + 1)
for _, item in ipairs(cmsgpack.unpack(head)) do
  kinds_of_items[item[1]](item)
  if item[1] ~= 'v' then
    local minutes = changed[item[2]] or {}
    minutes[item[3]] = true
    changed[item[2]] = minutes
  end
end
for fingerprint in pairs(changed) do
  call('ZCARD', key('changed', fingerprint))
end
call('ZCARD', key('changed_values'))

for _, write in ipairs(writes) do
  call(unpack(write))
end
call('DEL', key('incoming'))
for fingerprint, minutes in pairs(changed) do
  for minute in pairs(minutes) do
    call('ZADD', key('changed', fingerprint), seq, minute)
  end
end
for name in pairs(values_changed) do
  call('ZADD', key('changed_values'), seq, name)
end
call('LPOP', redo)
if call('LINDEX', redo, 0) == 'end' then
  return finish()
end
return call('LLEN', redo)
