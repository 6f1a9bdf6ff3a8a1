-- Turn deadlines into states, and remove what is kept too long: ARGV is now, limit, oldest completed, oldest failed, oldest
-- tombstone (epoch seconds). Answers {how many, names of bodies' files...}.

local now, limit = ARGV[1], tonumber(ARGV[2])
local done = 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'x', '-inf', now, 'LIMIT', 0, limit)) do
  local r = load(id)
  if r and r.state == 'pending' then
    leave(r)
    bury(r, 'expired', 'not delivered before its deadline', now)
  else
    redis.call('ZREM', P .. 'x', id)
  end
  done = done + 1
end

local function retain(index, oldest)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', oldest, 'LIMIT', 0, limit - done)) do
    local r = load(id)
    if r then
      leave(r)
      erase(r)
    else
      redis.call('ZREM', index, id)
    end
    done = done + 1
  end
end

for _, agent in ipairs(redis.call('SMEMBERS', P .. 'known')) do
  if done >= limit then break end
  retain(P .. 'done:' .. agent, ARGV[3])
  retain(P .. 'dead:' .. agent, ARGV[4])
end
done = done + redis.call('ZREMRANGEBYSCORE', P .. 'gone', '-inf', ARGV[5])
return { done, unpack(spools) }
