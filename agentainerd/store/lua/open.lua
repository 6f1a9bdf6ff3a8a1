-- Begin a new epoch: ARGV is the id of the journal that must be here ('' for any), and the id for a new one.
-- Answers {id, epoch}, or {id} with nothing written where another journal, or none, is here.

local id = redis.call('GET', P .. 'install_id')
if ARGV[1] ~= '' and id ~= ARGV[1] then return { id or '' } end
if not id then
  id = ARGV[2]
  redis.call('SET', P .. 'install_id', id)
end
redis.call('DEL', P .. 'batch')
return { id, redis.call('INCR', P .. 'epoch') }
