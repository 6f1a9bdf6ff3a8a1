-- Remove everything of an agent, a bounded number at a time: ARGV is agent, now, limit.
-- Answers {how many, names of bodies' files...}; fewer than the limit: it was the last, and nothing of it is left.

local agent, limit = ARGV[1], tonumber(ARGV[3])
local done = 0
redis.call('ZADD', P .. 'gone', ARGV[2], agent)
for _, index in ipairs({ 'q:', 'd:', 'lease:', 'dead:', 'done:' }) do
  if done < limit then
    for _, id in ipairs(redis.call('ZRANGE', P .. index .. agent, 0, limit - done - 1)) do
      local r = load(id)
      if r then
        leave(r)
        if r.scope ~= '' then redis.call('DEL', P .. 'idem:' .. r.scope) end
        erase(r)
      else
        redis.call('ZREM', P .. index .. agent, id)
      end
      done = done + 1
    end
  end
end
if done < limit then
  redis.call('UNLINK', P .. 'live:' .. agent, P .. 'hist:' .. agent, P .. 'n:' .. agent)
  redis.call('SREM', P .. 'known', agent)
end
return { done, unpack(spools) }
