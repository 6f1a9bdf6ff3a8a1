-- Find a request that has a record or is live: ARGV is id, agent ('': any).
-- Answers {'record', fields...}, {'live', agent, packed} or {}.

local id, agents = ARGV[1], { ARGV[2] }
local fields = redis.call('HGETALL', record_key(id))
if #fields > 0 then
  table.insert(fields, 1, 'record')
  return fields
end
if ARGV[2] == '' then agents = redis.call('SMEMBERS', P .. 'known') end
for _, agent in ipairs(agents) do
  local packed = redis.call('HGET', P .. 'live:' .. agent, id)
  if packed then return { 'live', agent, packed } end
end
return {}
