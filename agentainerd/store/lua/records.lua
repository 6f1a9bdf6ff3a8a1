-- In front of every script: the names of keys (store/keys.py says what they hold) and the moves between states.
--
-- A full record is the hash r:{id} and an entry in exactly one index, which its state names. Every transition is
-- "leave the index, enter another one"; nothing else writes to indexes and counters. A script runs to its end or not at
-- all, but what it wrote before an error of its own stays written: so scripts look at everything first, then write.

local P = 'agentainer:'

-- The due times at `now`, as bounds of two ranges: those that passed, and those further ahead than any back-off is: the clock
-- was set back meanwhile.
local function due_ranges(now)
  return { { '-inf', now }, { '(' .. (tonumber(now) + 2 * MAX_RETRY_AFTER_S), '+inf' } }
end

local function record_key(id) return P .. 'r:' .. id end

-- What transitions need of a record, or nil where there is none.
local function load(id)
  local f = redis.call('HMGET', record_key(id),
    'agent', 'state', 'reason', 'seq', 'size', 'owner', 'lease', 'expires', 'scope', 'spool', 'attempt', 'meta')
  if not f[1] then return nil end
  return {
    id = id, agent = f[1], state = f[2], reason = f[3], seq = f[4], size = tonumber(f[5]), owner = f[6], lease = f[7],
    expires = f[8], scope = f[9] or '', spool = f[10] or '', attempt = tonumber(f[11]), meta = f[12],
  }
end

local function count(r, field, sign)
  redis.call('HINCRBY', P .. 'n:' .. r.agent, field, sign * r.size)
end

-- Take a record out of its index.
local function leave(r)
  local agent, id = r.agent, r.id
  if r.state == 'pending' then
    redis.call('ZREM', P .. 'q:' .. agent, id)
    redis.call('ZREM', P .. 'd:' .. agent, id)
    redis.call('ZREM', P .. 'x', id)
    redis.call('HINCRBY', P .. 'n:' .. agent, 'pending', -1)
    count(r, 'pending_bytes', -1)
  elseif r.state == 'processing' then
    redis.call('ZREM', P .. 'lease:' .. agent, id)
  elseif r.state == 'completed' then
    redis.call('ZREM', P .. 'done:' .. agent, id)
    count(r, 'done_bytes', -1)
  elseif r.state == 'failed' then
    redis.call('ZREM', P .. 'dead:' .. agent, id)
    count(r, 'dead_bytes', -1)
  end
end

-- To pending; due (epoch seconds) '0': now, in its old place.
local function enqueue(r, reason, due)
  r.state = 'pending'
  redis.call('HSET', record_key(r.id), 'state', 'pending', 'reason', reason, 'due', due)
  if tonumber(due) > 0 then
    redis.call('ZADD', P .. 'd:' .. r.agent, due, r.id)
  else
    redis.call('ZADD', P .. 'q:' .. r.agent, r.seq, r.id)
  end
  redis.call('ZADD', P .. 'x', r.expires, r.id)
  redis.call('HINCRBY', P .. 'n:' .. r.agent, 'pending', 1)
  count(r, 'pending_bytes', 1)
end

-- To processing, held by `owner` (an epoch) until the time `expiry`.
local function hold(r, reason, owner, expiry)
  r.state = 'processing'
  redis.call('HSET', record_key(r.id), 'state', 'processing', 'reason', reason, 'owner', owner)
  redis.call('HINCRBY', record_key(r.id), 'lease', 1)
  redis.call('ZADD', P .. 'lease:' .. r.agent, expiry, r.id)
end

-- The key's text is "id fingerprint" while its request can still be answered, "id fingerprint done" afterwards.
local function holds_key(r)
  if r.scope == '' then return false end
  local text = redis.call('GET', P .. 'idem:' .. r.scope)
  return text and string.sub(text, 1, #r.id) == r.id and text
end

local function free_key(r)
  if holds_key(r) then redis.call('DEL', P .. 'idem:' .. r.scope) end
end

-- Remove a record; its place in the index must have been left. Its body's file is in `spools` then.
local spools = {}

local function erase(r)
  redis.call('UNLINK', record_key(r.id))
  if r.spool ~= '' then spools[#spools + 1] = r.spool end
end

-- Keep an index of finished records within its bounds, a few at a time: the oldest go.
local function trim(agent, index, field, most, most_bytes)
  for _ = 1, 8 do
    local bytes = tonumber(redis.call('HGET', P .. 'n:' .. agent, field) or 0)
    local length = redis.call('ZCARD', P .. index .. ':' .. agent)
    if length <= 1 or (length <= most and bytes <= most_bytes) then return end
    local id = redis.call('ZRANGE', P .. index .. ':' .. agent, 0, 0)[1]
    local r = load(id)
    if r then
      leave(r)
      erase(r)
    else
      redis.call('ZREM', P .. index .. ':' .. agent, id)
    end
  end
end

-- To failed: a dead letter. Its key is free again, so that its sender can try once more.
local function bury(r, reason, problem, now)
  r.state = 'failed'
  redis.call('HSET', record_key(r.id), 'state', 'failed', 'reason', reason, 'error', problem, 'finished', now)
  redis.call('ZADD', P .. 'dead:' .. r.agent, now, r.id)
  count(r, 'dead_bytes', 1)
  free_key(r)
  trim(r.agent, 'dead', 'dead_bytes', MAX_FAILED, MAX_FAILED_BYTES)
end

local function is_gone(agent)
  return redis.call('ZSCORE', P .. 'gone', agent)
end
