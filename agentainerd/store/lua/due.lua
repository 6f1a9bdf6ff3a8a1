-- The agents that have something to claim at ARGV[1]: queued, due again, or with a lease that passed.

local now = ARGV[1]
local agents = {}
local passed, far = unpack(due_ranges(now))
for _, agent in ipairs(redis.call('SMEMBERS', P .. 'known')) do
  if redis.call('ZCARD', P .. 'q:' .. agent) > 0
    or redis.call('ZCOUNT', P .. 'd:' .. agent, passed[1], passed[2]) > 0
    or redis.call('ZCOUNT', P .. 'd:' .. agent, far[1], far[2]) > 0
    or redis.call('ZCOUNT', P .. 'lease:' .. agent, '-inf', now) > 0 then
    agents[#agents + 1] = agent
  end
end
return agents
