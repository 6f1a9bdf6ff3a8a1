-- Operations on runs and sessions, in order: each a letter and its arguments. Run twice, they leave what they leave once.
-- S key value           set                     X key                   delete
-- P key value ms        set, gone after ms      Z key score member      add to a sorted set
-- R key member          remove from it          H key field value       set a field
-- J key field           remove it               A key seq keep value    append entry `seq` to a log, unless it is there
-- T key seq keep value  as A, if what the last G asked for is there
-- G key                 is it there?            U key value             set, if what the last G asked for is there

local last, there = {}, false
local function append(key, seq, keep, value)
  if not last[key] then
    local newest = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
    last[key] = newest and tonumber(string.match(newest[1], '^(%d+)')) or 0
  end
  local number = tonumber(seq)
  if number <= last[key] then return end
  last[key] = number
  if keep == '0' then
    redis.call('XADD', key, seq .. '-0', 'e', value)
  else
    redis.call('XADD', key, 'MAXLEN', keep, seq .. '-0', 'e', value)
  end
end

local i = 1
while i <= #ARGV do
  local op, a, b, c, d = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  if op == 'A' then append(a, b, c, d) i = i + 5
  elseif op == 'S' then redis.call('SET', a, b) i = i + 3
  elseif op == 'Z' then redis.call('ZADD', a, b, c) i = i + 4
  elseif op == 'R' then redis.call('ZREM', a, b) i = i + 3
  elseif op == 'H' then redis.call('HSET', a, b, c) i = i + 4
  elseif op == 'J' then redis.call('HDEL', a, b) i = i + 3
  elseif op == 'X' then redis.call('DEL', a) last[a] = nil i = i + 2
  elseif op == 'P' then redis.call('SET', a, b, 'PX', c) i = i + 4
  elseif op == 'G' then there = redis.call('EXISTS', a) == 1 i = i + 2
  elseif op == 'U' then if there then redis.call('SET', a, b) end i = i + 3
  elseif op == 'T' then if there then append(a, b, c, d) end i = i + 5
  else return redis.error_reply('ERR unknown operation ' .. op) end
end
return 1
