-- Write a deployment: ARGV is name, JSON.

redis.call('HSET', P .. 'deployments', ARGV[1], ARGV[2])
return 1
