-- Forget a named token: ARGV is its id. Answers 1 or 0.

return redis.call('HDEL', P .. 'tokens', ARGV[1])
