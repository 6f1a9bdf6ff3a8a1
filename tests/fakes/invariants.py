"""What must be true of the journal at every moment, also between the commands of a daemon under load.

One script on the server looks at everything at once, so nobody has to stop: `violations(url)` says what is wrong, with the
request ids. It needs nothing but the address of a Redis that has a journal (store/keys.py says what the keys hold).

- The state of a record is one of four, and it is in exactly one index: the one that its state names.
- No id is both a live request and a record, and none is in two indexes, of one agent or of two.
- What is being processed belongs to the epoch that may write; nothing that ended has an owner's lease.
- What completed has one result; what failed has a reason and a time.
- Pending ones have a deadline and nothing else has; the queue is sorted by seq, and no two records of an agent share one.
- Every counter is the sum of what is there.
"""

from agentainerd.store.connection import RedisClient
from tests.fakes.redis import PREFIX

SCRIPT = """
local P, wrong, where, seqs, sums = 'agentainer:', {}, {}, {}, {}
local STATES = { q = 'pending', d = 'pending', lease = 'processing', dead = 'failed', done = 'completed' }
local epoch = redis.call('GET', P .. 'epoch')

local function say(...) wrong[#wrong + 1] = table.concat({ ... }, ' ') end
local function add(agent, field, size)
  sums[agent] = sums[agent] or {}
  sums[agent][field] = (sums[agent][field] or 0) + size
end
local function place(id, index)
  if where[id] then say(id, 'is in', where[id], 'and in', index) end
  where[id] = index
end

local indexed = {}
for _, key in ipairs(redis.call('KEYS', P .. '*')) do
  local kind, agent = string.match(key, '^' .. P .. '(%a+):(.+)$')
  if kind == 'live' then
    for _, id in ipairs(redis.call('HKEYS', key)) do place(id, key) end
  elseif STATES[kind] then
    local flat = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #flat, 2 do
      place(flat[i], key)
      indexed[flat[i]] = { kind, agent, tonumber(flat[i + 1]) }
    end
  end
end

local pending = 0
for _, key in ipairs(redis.call('KEYS', P .. 'r:*')) do
  local id = string.sub(key, #P + 3)
  local r = redis.call('HMGET', key, 'agent', 'state', 'seq', 'size', 'owner', 'result', 'finished', 'reason', 'expires')
  local agent, state, seq, size = r[1] or '?', r[2] or '?', r[3] or '?', tonumber(r[4] or 0)
  local found = indexed[id]
  if not found then
    say(id, 'is', state, 'and in no index')
  else
    local kind, score = found[1], found[3]
    if found[2] ~= agent then say(id, 'belongs to', agent, 'and is indexed under', found[2]) end
    if STATES[kind] ~= state then say(id, 'is', state, 'and in the index', kind) end
    if kind == 'lease' and r[5] ~= epoch then say(id, 'is held by epoch', r[5] or '?', 'and it is', epoch) end
    if kind == 'q' and score ~= tonumber(seq) then say(id, 'is queued at', tostring(score), 'and came as', seq) end
    if kind == 'done' and not r[6] then say(id, 'completed without a result') end
    if kind == 'dead' and not (r[7] and r[8]) then say(id, 'failed without a reason or a time') end
    if state == 'pending' then
      pending = pending + 1
      if not redis.call('ZSCORE', P .. 'x', id) then say(id, 'is pending without a deadline') end
      add(agent, 'pending', 1)
      add(agent, 'pending_bytes', size)
    elseif kind == 'dead' or kind == 'done' then
      add(agent, kind .. '_bytes', size)
    end
    local arrival = agent .. ' ' .. seq
    if seqs[arrival] then say(id, 'and', seqs[arrival], 'of', agent, 'share the seq', seq) end
    seqs[arrival] = id
    indexed[id] = nil
  end
end
for id, found in pairs(indexed) do say(id, 'is in', found[1], 'and has no record') end
local deadlines = redis.call('ZCARD', P .. 'x')
if deadlines ~= pending then say(tostring(deadlines), 'deadlines, and', tostring(pending), 'pending') end

for _, key in ipairs(redis.call('KEYS', P .. 'n:*')) do
  local agent = string.sub(key, #P + 3)
  for _, field in ipairs({ 'pending', 'pending_bytes', 'dead_bytes', 'done_bytes' }) do
    local counted = tonumber(redis.call('HGET', key, field) or 0)
    local there = (sums[agent] or {})[field] or 0
    if counted ~= there then say(agent, field, 'is counted as', tostring(counted), 'and is', tostring(there)) end
  end
  sums[agent] = nil
end
for agent, fields in pairs(sums) do
  for field, there in pairs(fields) do
    if there ~= 0 then say(agent, field, 'is not counted and is', tostring(there)) end
  end
end
return wrong
"""
assert f"P, wrong, where, seqs, sums = '{PREFIX}'" in SCRIPT


def violations(url: str) -> list[str]:
    """Return what is wrong with the journal on this Redis now, a sentence each; empty: nothing.

    Raises:
        Unavailable: Redis does not answer.
    """
    client = RedisClient(url)
    try:
        return [said.decode() for said in client.call("EVAL", SCRIPT, 0)]
    finally:
        client.close()


def require(url: str, *, any_owner: bool = False) -> None:
    """Fail the test where the journal on this Redis is not as it must be. `any_owner`: a test played a later daemon."""
    found = [each for each in violations(url) if not (any_owner and " is held by epoch " in each)]
    assert not found, f"{len(found)} violations: {found[:10]}"
