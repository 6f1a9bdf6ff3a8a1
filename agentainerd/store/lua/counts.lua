-- How many requests the agents in ARGV have. Answers per agent {pending, processing, completed, failed, pending bytes,
-- meta of the first in the queue, meta of the first that waits for its time}.

local function first_meta(index)
  local id = redis.call('ZRANGE', index, 0, 0)[1]
  return id and redis.call('HGET', record_key(id), 'meta') or false
end

local answer = {}
for i, agent in ipairs(ARGV) do
  local n = redis.call('HMGET', P .. 'n:' .. agent, 'pending', 'pending_bytes')
  answer[i] = {
    tonumber(n[1] or 0),
    redis.call('HLEN', P .. 'live:' .. agent) + redis.call('ZCARD', P .. 'lease:' .. agent),
    redis.call('LLEN', P .. 'hist:' .. agent),
    redis.call('ZCARD', P .. 'dead:' .. agent),
    tonumber(n[2] or 0),
    first_meta(P .. 'q:' .. agent),
    first_meta(P .. 'd:' .. agent),
  }
end
return answer
