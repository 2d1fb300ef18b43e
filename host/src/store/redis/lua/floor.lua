-- Minutes before the given one are about to be dropped. ARGV: token, minute, the newest change among what is dropped.
-- From here on commit refuses what comes for them: a late event would begin such a minute anew, and the part would stand for
-- the whole. Nothing may wait in the queue, since that was let in before. Gives `ok` and the floor, or `busy`.
if is_another(ARGV[1]) then
  return { 'restarted' }
end
if call('LLEN', key('redo')) > 0 then
  return { 'busy' }
end
local floor = math.max(number(call('GET', key('complete_from'))), tonumber(ARGV[2]))
local forgotten = math.max(number(call('GET', key('forgotten'))), tonumber(ARGV[3]))
call('SET', key('complete_from'), text(floor))
call('SET', key('forgotten'), text(forgotten))
return { 'ok', text(floor) }
