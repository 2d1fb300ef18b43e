-- A host takes sources over: it alone applies deltas of them from now on. ARGV: packed list of sources. Gives the epoch.
local epoch = call('INCR', key('epoch'))
for _, source in ipairs(cmsgpack.unpack(ARGV[1])) do
  call('HSET', key('epochs'), source, epoch)
  -- Until it says otherwise, its events may be of any minute.
  call('HSETNX', key('floors'), source, 0)
end
return text(epoch)
