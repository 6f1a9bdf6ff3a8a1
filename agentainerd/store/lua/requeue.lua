-- Deliver again: ARGV is agent, id, new deadline. A dead letter starts over, in its old place; a pending request is due now.
-- Answers the state that it was in, or '' where it is not known.

local r = load(ARGV[2])
if not r or r.agent ~= ARGV[1] then
  return redis.call('HEXISTS', P .. 'live:' .. ARGV[1], ARGV[2]) == 1 and 'processing' or ''
end
local was = r.state
if was == 'failed' then
  leave(r)
  local dup = (r.attempt > 0 and r.reason ~= 'cancelled') and '1' or '0'
  r.expires = ARGV[3]
  redis.call('HSET', record_key(r.id), 'attempt', '0', 'dup', dup, 'expires', r.expires, 'error', '')
  redis.call('HDEL', record_key(r.id), 'finished', 'result')
  enqueue(r, 'queued', '0')
elseif was == 'pending' then
  leave(r)
  enqueue(r, redis.call('HGET', record_key(r.id), 'reason'), '0')
end
return was
