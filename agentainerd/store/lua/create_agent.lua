-- Create an agent: ARGV is id, name, JSON. Answers '' or the id of the agent that has the name.

local holder = redis.call('HGET', P .. 'names', ARGV[2])
if holder then return holder end
redis.call('HSET', P .. 'names', ARGV[2], ARGV[1])
redis.call('HSET', P .. 'agents', ARGV[1], ARGV[3])
return ''
