-- Cancel a pending request: ARGV is agent, id, now. Answers the state that it was in, or '' where it is not known.

local agent, id = ARGV[1], ARGV[2]
local r = load(id)
if not r or r.agent ~= agent then
  return redis.call('HEXISTS', P .. 'live:' .. agent, id) == 1 and 'processing' or ''
end
local was = r.state
if was == 'pending' then
  leave(r)
  bury(r, 'cancelled', 'cancelled before it was delivered', ARGV[3])
end
return was
