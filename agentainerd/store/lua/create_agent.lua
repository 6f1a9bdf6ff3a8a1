-- Create an agent, or give one another number of replicas: ARGV is id, name, JSON, replicas. Answers who has one of its names,
-- and which, or two empty strings. Replicas have names where there are several: <name>-<n>, held as <id>/<n>.

local id, name, count = ARGV[1], ARGV[2], tonumber(ARGV[4])
local text = redis.call('HGET', P .. 'agents', id)
local before = text and cjson.decode(text).spec.replicas or 1
local holders, names = {id}, {name}
for i = 1, count > 1 and count or 0 do
  names[i + 1], holders[i + 1] = name .. '-' .. i, id .. '/' .. i
end
for i = 1, #names do
  local holder = redis.call('HGET', P .. 'names', names[i])
  if holder and holder ~= holders[i] then return {holder, names[i]} end
end
for i = count > 1 and count + 1 or 1, before do
  if redis.call('HGET', P .. 'names', name .. '-' .. i) == id .. '/' .. i then redis.call('HDEL', P .. 'names', name .. '-' .. i) end
end
for i = 1, #names do redis.call('HSET', P .. 'names', names[i], holders[i]) end
redis.call('HSET', P .. 'agents', id, ARGV[3])
return {'', ''}
