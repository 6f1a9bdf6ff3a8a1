-- Begin a new epoch: ARGV is the id of the journal that must be here ('' for any), the id for a new one, and the epoch and
-- the number of a batch that it must have. Answers {id, new epoch}; with nothing written {id} where another journal, or none,
-- is here, and {id, epoch, number} where an old copy of it is.

local id = redis.call('GET', P .. 'install_id')
if ARGV[1] ~= '' and id ~= ARGV[1] then return { id or '' } end

local epoch = tonumber(redis.call('GET', P .. 'epoch') or 0)
local number = tonumber(redis.call('HGET', P .. 'batch', 'number') or 0)
local wanted, wanted_number = tonumber(ARGV[3]), tonumber(ARGV[4])
if epoch < wanted or (epoch == wanted and number < wanted_number) then return { id, epoch, number } end

if not id then
  id = ARGV[2]
  redis.call('SET', P .. 'install_id', id)
end
redis.call('DEL', P .. 'batch')
return { id, redis.call('INCR', P .. 'epoch') }
