-- What others read of one metric and minute, written absolutely. ARGV: token, fingerprint, minute, the change it is of,
-- `more` or `last`, packed commands. An older change never overwrites a newer one, and one that was written whole is not
-- written again. Gives whether it was written.
if is_another(ARGV[1]) then
  return { 'restarted' }
end
local versions = key('readable', ARGV[2])
local stored = call('HGET', versions, ARGV[3]) or '0'
local version, whole = number(string.match(stored, '^%d+')), string.sub(stored, -1) == '+'
local mine = tonumber(ARGV[4])
if version > mine or version == mine and whole then
  return { 'ok', 0 }
end
call('HSET', versions, ARGV[3], ARGV[4] .. (ARGV[5] == 'last' and '+' or ''))
for _, command in ipairs(cmsgpack.unpack(ARGV[6])) do
  call(unpack(command))
end
return { 'ok', 1 }
