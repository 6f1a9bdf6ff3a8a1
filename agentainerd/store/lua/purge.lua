-- Empty an agent's list, a bounded number at a time: ARGV is agent, state (pending: cancelled; failed: removed), limit, now.
-- Answers {how many, names of bodies' files...}; fewer than the limit: it was the last.

local agent, state, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local done = 0
for _, index in ipairs(state == 'pending' and { 'q:', 'd:' } or { 'dead:' }) do
  if done < limit then
    for _, id in ipairs(redis.call('ZRANGE', P .. index .. agent, 0, limit - done - 1)) do
      local r = load(id)
      if not r then
        redis.call('ZREM', P .. index .. agent, id)
      else
        leave(r)
        if state == 'pending' then
          bury(r, 'cancelled', 'cancelled before it was delivered', ARGV[4])
        else
          erase(r)
        end
      end
      done = done + 1
    end
  end
end
return { done, unpack(spools) }
