-- Write named tokens: ARGV is an id and a JSON text for each.

for i = 1, #ARGV, 2 do redis.call('HSET', P .. 'tokens', ARGV[i], ARGV[i + 1]) end
return #ARGV / 2
