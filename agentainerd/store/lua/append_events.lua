-- Append events: ARGV is how many are kept, then an id and a JSON text for each, ids ascending. One that is there is left out.

local last = redis.call('XREVRANGE', P .. 'events', '+', '-', 'COUNT', 1)[1]
local function number(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local last_ms, last_seq = 0, 0
if last then last_ms, last_seq = number(last[1]) end
for i = 2, #ARGV, 2 do
  local ms, seq = number(ARGV[i])
  if ms > last_ms or (ms == last_ms and seq > last_seq) then
    redis.call('XADD', P .. 'events', 'MAXLEN', ARGV[1], ARGV[i], 'e', ARGV[i + 1])
  end
end
return 1
