-- Remove an agent and its name: ARGV is id.

local text = redis.call('HGET', P .. 'agents', ARGV[1])
if not text then return 0 end
local name = cjson.decode(text).spec.name
if redis.call('HGET', P .. 'names', name) == ARGV[1] then redis.call('HDEL', P .. 'names', name) end
redis.call('HDEL', P .. 'agents', ARGV[1])
return 1
