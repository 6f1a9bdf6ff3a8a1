-- One batch of the journal: ARGV is epoch, number of the batch, then operations (store/operations.py has their arguments).
--
-- Runs exactly once per (epoch, number): a batch that is sent again, because its answer was lost, gets the same answer.
-- Begun records are written first and ended ones last, each in one command per agent; the rest runs in its order.
-- Answers an array with one element for each A, R, C and N.

local epoch, number = ARGV[1], tonumber(ARGV[2])
local current = redis.call('GET', P .. 'epoch')
if not current then return redis.error_reply('LOST the journal is empty') end
if current ~= epoch then return redis.error_reply('FENCED by epoch ' .. current) end

-- Turn the ids of a claim into records.
local function answer(results)
  for i, result in ipairs(results) do
    if type(result) == 'table' then
      for j, id in ipairs(result) do
        local f = redis.call('HMGET', record_key(id),
          'agent', 'meta', 'head', 'body', 'spool', 'seq', 'scope', 'expires', 'attempt', 'dup', 'lease')
        f[12] = id
        result[j] = f
      end
    end
  end
  return results
end

local last = redis.call('HMGET', P .. 'batch', 'number', 'results')
local applied = tonumber(last[1] or 0)
if applied == number then
  -- A server that died before its fsync came back left this batch to the next one, which read it: write, so that it is synced.
  redis.call('HSET', P .. 'batch', 'number', ARGV[2])
  return answer(cmsgpack.unpack(last[2]))
end
if applied > number then return redis.error_reply('STALE batch ' .. number .. ' after ' .. applied) end

local ARGUMENTS = {
  L = 4, S = 4, A = 17, R = 15, C = 6, D = 17, F = 10, B = 10, T = 9, W = 5, K = 2, N = 1,
}

local begun, ended, seen, rest = {}, {}, {}, {}
local at, total = 3, #ARGV
while at <= total do
  local op = ARGV[at]
  local length = ARGUMENTS[op]
  if not length or at + length - 1 > total then
    return redis.error_reply('ERR operation ' .. tostring(op) .. ' at ' .. at .. ' is malformed')
  end
  if op == 'L' then
    local agent = ARGV[at + 1]
    local list = begun[agent]
    if not list then
      list = { P .. 'live:' .. agent }
      begun[agent] = list
    end
    local n = #list
    list[n + 1] = ARGV[at + 2]
    list[n + 2] = ARGV[at + 3]
  elseif op == 'S' then
    local agent = ARGV[at + 1]
    local lists = ended[agent]
    if not lists then
      lists = { { P .. 'live:' .. agent }, { P .. 'hist:' .. agent } }
      ended[agent] = lists
    end
    lists[1][#lists[1] + 1] = ARGV[at + 2]
    lists[2][#lists[2] + 1] = ARGV[at + 3]
  else
    rest[#rest + 1] = at
  end
  at = at + length
end

-- Everything was read; from here on it is written.
redis.call('HSET', P .. 'batch', 'number', ARGV[2], 'results', cmsgpack.pack({}))

local function remember(agent)
  if seen[agent] == nil then
    seen[agent] = not is_gone(agent)
    if seen[agent] then redis.call('SADD', P .. 'known', agent) end
  end
  return seen[agent]
end

local function history(agent, list)
  if redis.call('LPUSH', unpack(list)) > HISTORY_LENGTH + 128 then
    redis.call('LTRIM', P .. 'hist:' .. agent, 0, HISTORY_LENGTH - 1)
  end
end

-- The twelve arguments from `i` on are a whole record (operations.py: _whole).
local function make(i)
  local r = {
    agent = ARGV[i], id = ARGV[i + 1], seq = ARGV[i + 2], size = tonumber(ARGV[i + 3]), expires = ARGV[i + 4],
    spool = ARGV[i + 7], scope = ARGV[i + 8], attempt = tonumber(ARGV[i + 5]),
  }
  redis.call('HDEL', P .. 'live:' .. r.agent, r.id)
  redis.call('HSET', record_key(r.id), 'agent', r.agent, 'seq', r.seq, 'size', ARGV[i + 3], 'expires', r.expires,
    'attempt', ARGV[i + 5], 'dup', ARGV[i + 6], 'spool', r.spool, 'scope', r.scope, 'meta', ARGV[i + 9],
    'head', ARGV[i + 10], 'body', ARGV[i + 11])
  return r
end

-- The record if whoever writes still holds it, else nil: a late word about a record that moved on.
local function held(id, owner, lease)
  local r = load(id)
  if r and r.state == 'processing' and r.owner == owner and r.lease == lease then return r end
  return nil
end

local run = {}

-- Accept: record, reason, due, most pending, most pending bytes.
function run.A(i)
  local agent, id = ARGV[i + 1], ARGV[i + 2]
  if not remember(agent) then return 'gone' end
  local old = load(id)
  if old and old.state == 'pending' then return 'ok' end
  if old and not (old.state == 'processing' and old.reason == 'live') then return 'late' end
  local n = redis.call('HMGET', P .. 'n:' .. agent, 'pending', 'pending_bytes')
  if tonumber(n[1] or 0) + 1 > tonumber(ARGV[i + 15]) then return 'full' end
  if tonumber(n[2] or 0) + tonumber(ARGV[i + 4]) > tonumber(ARGV[i + 16]) then return 'full' end
  if old then leave(old) end
  enqueue(make(i + 1), ARGV[i + 13], ARGV[i + 14])
  return 'ok'
end

-- Reserve: record, fingerprint, life of the key in ms. Answers "verdict id".
function run.R(i)
  local agent, id, scope = ARGV[i + 1], ARGV[i + 2], ARGV[i + 9]
  if not remember(agent) then return 'gone ' .. id end
  if redis.call('EXISTS', record_key(id)) == 1 then return 'new ' .. id end
  if scope ~= '' then
    local text = redis.call('GET', P .. 'idem:' .. scope)
    local first, print, done = string.match(text or '', '^(%S+) (%S+) ?(%S*)')
    local state = first and redis.call('HGET', record_key(first), 'state')
    if first and (state or done ~= '') then
      if print ~= ARGV[i + 13] then return 'mismatch ' .. first end
      if not state then return 'failed ' .. first end
      local verdicts = { pending = 'pending', processing = 'in_flight', completed = 'done', failed = 'failed' }
      return verdicts[state] .. ' ' .. first
    end
    redis.call('SET', P .. 'idem:' .. scope, id .. ' ' .. ARGV[i + 13], 'PX', ARGV[i + 14])
  end
  hold(make(i + 1), 'live', epoch, '+inf')
  return 'new ' .. id
end

-- Due entries back into the queue, and records whose holder let the lease pass.
local function revive(agent, now)
  for _, range in ipairs(due_ranges(now)) do
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'd:' .. agent, range[1], range[2], 'LIMIT', 0, 100)) do
      redis.call('ZREM', P .. 'd:' .. agent, id)
      local seq = redis.call('HGET', record_key(id), 'seq')
      if seq then redis.call('ZADD', P .. 'q:' .. agent, seq, id) end
    end
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'lease:' .. agent, '-inf', now, 'LIMIT', 0, 100)) do
    local r = load(id)
    if r then
      leave(r)
      redis.call('HSET', record_key(id), 'dup', '1')
      enqueue(r, 'retry_wait', '0')
    else
      redis.call('ZREM', P .. 'lease:' .. agent, id)
    end
  end
end

-- Strictly one by one: something is out, or the first of all waits for its time.
local function is_blocked(agent)
  if redis.call('ZCOUNT', P .. 'lease:' .. agent, '-inf', '(+inf') > 0 then return true end
  local head = redis.call('ZRANGE', P .. 'q:' .. agent, 0, 0, 'WITHSCORES')
  local first = tonumber(head[2] or '0')
  for _, id in ipairs(redis.call('ZRANGE', P .. 'd:' .. agent, 0, 999)) do
    local seq = redis.call('HGET', record_key(id), 'seq')
    if seq and tonumber(seq) < first then return true end
  end
  return false
end

-- Claim: agent, limit, now, end of the lease, ordered ('1').
function run.C(i)
  local agent, limit, now = ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
  local taken = {}
  if is_gone(agent) then return taken end
  revive(agent, now)
  if ARGV[i + 5] == '1' then
    if is_blocked(agent) then return taken end
    limit = math.min(limit, 1)
  end
  for _ = 1, limit + 100 do
    if #taken >= limit then break end
    local id = redis.call('ZRANGE', P .. 'q:' .. agent, 0, 0)[1]
    if not id then break end
    local r = load(id)
    if not r then
      redis.call('ZREM', P .. 'q:' .. agent, id)
    else
      leave(r)
      if tonumber(r.expires) <= tonumber(now) then
        bury(r, 'expired', 'not delivered before its deadline', now)
      else
        redis.call('HINCRBY', record_key(id), 'attempt', 1)
        hold(r, 'replay', epoch, ARGV[i + 4])
        taken[#taken + 1] = id
      end
    end
  end
  return taken
end

-- Bury a live record: record, reason, error, now, result.
function run.D(i)
  if not remember(ARGV[i + 1]) then
    redis.call('HDEL', P .. 'live:' .. ARGV[i + 1], ARGV[i + 2])
  elseif redis.call('EXISTS', record_key(ARGV[i + 2])) == 0 then
    local r = make(i + 1)
    redis.call('HSET', record_key(r.id), 'result', ARGV[i + 16])
    bury(r, ARGV[i + 13], ARGV[i + 14], ARGV[i + 15])
  end
end

-- Finish: id, owner, lease, attempt, now, result, response, life of the key in ms, summary.
function run.F(i)
  local r = held(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
  if not r then return end
  leave(r)
  local key = record_key(r.id)
  r.size = #ARGV[i + 7]
  redis.call('HSET', key, 'state', 'completed', 'reason', r.reason == 'live' and 'answered' or 'replay', 'attempt', ARGV[i + 4],
    'finished', ARGV[i + 5], 'result', ARGV[i + 6], 'response', ARGV[i + 7], 'size', r.size, 'spool', '')
  redis.call('HDEL', key, 'body')
  redis.call('ZADD', P .. 'done:' .. r.agent, ARGV[i + 5], r.id)
  count(r, 'done_bytes', 1)
  local text = holds_key(r)
  if text then redis.call('SET', P .. 'idem:' .. r.scope, text .. ' done', 'PX', ARGV[i + 8]) end
  history(r.agent, { P .. 'hist:' .. r.agent, ARGV[i + 9] })
  trim(r.agent, 'done', 'done_bytes', MAX_COMPLETED, MAX_COMPLETED_BYTES)
end

-- Bury a full record: id, owner, lease, attempt, dup, reason, error, now, result.
function run.B(i)
  local r = held(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
  if not r then return end
  leave(r)
  redis.call('HSET', record_key(r.id), 'attempt', ARGV[i + 4], 'dup', ARGV[i + 5], 'result', ARGV[i + 9])
  bury(r, ARGV[i + 6], ARGV[i + 7], ARGV[i + 8])
end

-- Try again: id, owner, lease, attempt, dup, reason, due, error.
function run.T(i)
  local r = held(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
  if not r then return end
  leave(r)
  redis.call('HSET', record_key(r.id), 'attempt', ARGV[i + 4], 'dup', ARGV[i + 5], 'error', ARGV[i + 8])
  enqueue(r, ARGV[i + 6], ARGV[i + 7])
end

-- Renew: id, owner, lease, end of the lease.
function run.W(i)
  local r = held(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
  if r then redis.call('ZADD', P .. 'lease:' .. r.agent, ARGV[i + 4], r.id) end
end

-- Revoke what was accepted or reserved, but whose sender was told that it was not: id.
function run.K(i)
  local r = load(ARGV[i + 1])
  if r and (r.state == 'pending' or (r.state == 'processing' and r.reason == 'live')) then
    leave(r)
    free_key(r)
    erase(r)
  end
end

-- Nothing: holds the place of an operation that was withdrawn.
function run.N() return 'none' end

for agent, list in pairs(begun) do
  if remember(agent) then redis.call('HSET', unpack(list)) end
end
local results = {}
for _, i in ipairs(rest) do
  local result = run[ARGV[i]](i)
  if result then results[#results + 1] = result end
end
for agent, lists in pairs(ended) do
  redis.call('HDEL', unpack(lists[1]))
  if remember(agent) then history(agent, lists[2]) end
end
if #results > 0 then redis.call('HSET', P .. 'batch', 'results', cmsgpack.pack(results)) end
return answer(results)
