-- Write into the history of agents' metrics: ARGV is how many bytes a history has, then an agent's id, an offset and bytes for
-- each piece. It is made whole at once, so that it never grows. Of an agent that was removed nothing is written.

local size = tonumber(ARGV[1])
for i = 2, #ARGV, 3 do
  local agent = ARGV[i]
  if redis.call('HEXISTS', P .. 'agents', agent) == 1 then
    local key = P .. 'usage:' .. agent
    if redis.call('STRLEN', key) ~= size then
      redis.call('DEL', key)
      redis.call('SETRANGE', key, size - 1, '\0')
    end
    redis.call('SETRANGE', key, ARGV[i + 1], ARGV[i + 2])
  end
end
return 1
