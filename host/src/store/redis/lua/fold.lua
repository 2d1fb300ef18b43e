-- A cell's appended entries have become many. ARGV: token, hash, field, the entries that were read, what stands for them now,
-- key of the dense sketch, set of dense cells, cell, dense sketch (empty: there is none, the entries were only put in order).
-- Entries are only ever appended: what follows those that were read stays. Done twice, or from two sides, it changes nothing.
if is_another(ARGV[1]) then
  return { 'restarted' }
end
local hash, field, read, instead, name, set, cell, dense = unpack(ARGV, 2)
local stored = call('HGET', hash, field)
if not stored or string.sub(stored, 1, #read) ~= read then
  return { 'ok', 0 }
end
call('SCARD', set)
if dense ~= '' then
  if call('EXISTS', name) == 1 then
    call('PFCOUNT', name)
    call('SET', key('incoming'), dense)
    call('PFMERGE', name, key('incoming'))
    call('DEL', key('incoming'))
  else
    call('SET', name, dense)
    call('SADD', set, cell)
  end
end
local rest = instead .. string.sub(stored, #read + 1)
if rest == '' then
  call('HDEL', hash, field)
else
  call('HSET', hash, field, rest)
end
return { 'ok', 1 }
