-- Forget a deployment: ARGV is its name.

return redis.call('HDEL', P .. 'deployments', ARGV[1])
