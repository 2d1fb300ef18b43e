-- Sources that were never seen begin somewhere else than at 0. ARGV: packed {group, source, next, arrival}.
local positions = key('positions')
for _, source in ipairs(cmsgpack.unpack(ARGV[1])) do
  call('HSETNX', positions, source[1] .. ':' .. source[2], source[3] .. ' ' .. source[4])
end
return 1
