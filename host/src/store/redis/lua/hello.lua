-- A host has connected. ARGV: a new token, the server's run id, now in ms.
-- The token changes where Redis was emptied, restarted or replaced: what hosts remember of it may be of a lost second.
-- The change number goes on from the time, so that it never repeats one from before.
local token, run = call('GET', key('token')), call('GET', key('run'))
if not token or run ~= ARGV[2] then
  local seq, committed = number(call('GET', key('seq'))), number(call('GET', key('committed')))
  local forward = math.max(tonumber(ARGV[3]) - seq, token and 1 or 0)
  call('SET', key('seq'), text(seq + forward))
  call('SET', key('committed'), text(committed + forward))
  call('SET', key('forgotten'), text(seq + forward))
  -- Owners of another life have lower epochs than all that are to come.
  call('SET', key('epoch'), text(math.max(number(call('GET', key('epoch'))), tonumber(ARGV[3]))))
  call('SET', key('run'), ARGV[2])
  token = ARGV[1]
  call('SET', key('token'), token)
end
return token
