-- Of the request ids in ARGV, those of which nothing is known: neither a record nor a live one.

local agents = redis.call('SMEMBERS', P .. 'known')
local answer = {}
for _, id in ipairs(ARGV) do
  local found = redis.call('EXISTS', record_key(id)) == 1
  for _, agent in ipairs(agents) do
    found = found or redis.call('HEXISTS', P .. 'live:' .. agent, id) == 1
  end
  if not found then answer[#answer + 1] = id end
end
return answer
