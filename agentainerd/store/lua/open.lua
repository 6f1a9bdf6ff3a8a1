-- Begin a new epoch: ARGV is the id of the journal that must be here ('' for any), the id for a new one, and the epoch and
-- the number of a batch that it must have, and the schema that the caller knows. Answers {id, new epoch}; with nothing written
-- {id} where another journal, or none, is here, {id, epoch, number} where an old copy of it is, and {id, epoch, number, schema}
-- where a later version wrote it.

local id = redis.call('GET', P .. 'install_id')
if ARGV[1] ~= '' and id ~= ARGV[1] then return { id or '' } end

local epoch = tonumber(redis.call('GET', P .. 'epoch') or 0)
local number = tonumber(redis.call('HGET', P .. 'batch', 'number') or 0)
local wanted, wanted_number = tonumber(ARGV[3]), tonumber(ARGV[4])
if epoch < wanted or (epoch == wanted and number < wanted_number) then return { id, epoch, number } end

local schema = tonumber(redis.call('GET', P .. 'schema') or 0)
if schema > tonumber(ARGV[5]) then return { id, epoch, number, schema } end

if not id then
  id = ARGV[2]
  redis.call('SET', P .. 'install_id', id)
end
if schema < tonumber(ARGV[5]) then redis.call('SET', P .. 'schema', ARGV[5]) end
redis.call('DEL', P .. 'batch')
return { id, redis.call('INCR', P .. 'epoch') }
