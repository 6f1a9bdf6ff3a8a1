-- Remove a dead letter: ARGV is agent, id. Answers {state that it was in or '', name of its body's file or nothing}.

local r = load(ARGV[2])
if not r or r.agent ~= ARGV[1] then
  return { redis.call('HEXISTS', P .. 'live:' .. ARGV[1], ARGV[2]) == 1 and 'processing' or '' }
end
if r.state == 'failed' then
  leave(r)
  erase(r)
end
return { r.state, spools[1] }
