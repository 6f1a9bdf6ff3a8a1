-- Add to what calls to models used. ARGV is the batch's name, then for each hash its key, how many seconds it is kept from now
-- on, how many fields follow, and these, each with what is added. A batch that was added already is not added again.

local batch = P .. 'spent-batch'
if redis.call('GET', batch) == ARGV[1] then
  return 0
end
local i = 2
while i <= #ARGV do
  local key, ttl, count = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  for j = i + 3, i + 1 + 2 * count, 2 do
    redis.call('HINCRBY', key, ARGV[j], ARGV[j + 1])
  end
  redis.call('EXPIRE', key, ttl)
  i = i + 3 + 2 * count
end
redis.call('SET', batch, ARGV[1])
return 1
