-- Overwrite an agent, if it is still there: ARGV is id, JSON. Answers 1 or 0.

if redis.call('HEXISTS', P .. 'agents', ARGV[1]) == 0 then return 0 end
redis.call('HSET', P .. 'agents', ARGV[1], ARGV[2])
return 1
