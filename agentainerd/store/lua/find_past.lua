-- Find a request in the history of one agent: ARGV is id, agent. Answers its packed summary, or nothing.

for _, packed in ipairs(redis.call('LRANGE', P .. 'hist:' .. ARGV[2], 0, -1)) do
  if string.find(packed, ARGV[1], 1, true) then return packed end
end
return false
