-- Remove an agent, its names and the history of its metrics: ARGV is id.

local text = redis.call('HGET', P .. 'agents', ARGV[1])
if not text then return 0 end
local spec = cjson.decode(text).spec
if redis.call('HGET', P .. 'names', spec.name) == ARGV[1] then redis.call('HDEL', P .. 'names', spec.name) end
for i = 1, spec.replicas or 1 do
  local name = spec.name .. '-' .. i
  if redis.call('HGET', P .. 'names', name) == ARGV[1] .. '/' .. i then redis.call('HDEL', P .. 'names', name) end
end
redis.call('HDEL', P .. 'agents', ARGV[1])
redis.call('DEL', P .. 'usage:' .. ARGV[1])
return 1
