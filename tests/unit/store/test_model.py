"""Random interleavings of all the store's verbs, on a real server and on a reference in memory, which must stay the same.

MODEL_STEPS says how many steps (2 500 each on Redis and Valkey by itself). After each one, everything that Redis holds is
compared with what the reference holds, and with itself: one place, one index, right counters.
"""

import logging
import math
import os
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from hypothesis.strategies import booleans, integers, sampled_from

from agentainerd import clock
from agentainerd.errors import Conflict, TooManyRequests, Unavailable
from agentainerd.model.requests import Outcome, Reason, ReplayPolicy, RequestState
from agentainerd.store import operations, packing
from agentainerd.store.connection import pairs
from tests.fakes.redis import PREFIX, RedisProcess
from tests.fakes.reference import Entry, Reference
from tests.fakes.stores import ANSWERED, COMPLETED, INTERRUPTED, Store

pytestmark = [pytest.mark.redis]
STEPS = int(os.environ.get("MODEL_STEPS", "2500"))
STEPS_OF_ONE = 50
AGENTS = ("agent-a", "agent-b")
FAILED = Outcome(RequestState.FAILED, Reason.ATTEMPTS, status=503)
EPOCH_0 = 1_800_000_000.0
MOST, MOST_BYTES = 6, 1000
RESPONSE_BYTES = len(packing.pack_response(ANSWERED.response))
CONFLICTS = {
    "REQUEST_IN_FLIGHT": ("live", "held"),
    "REQUEST_PENDING": ("pending",),
    "REQUEST_ENDED": ("failed", "completed"),
}
any_number = integers(0, 2**16)
agents = sampled_from(AGENTS)
SNAPSHOT = """
local all = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind, value = redis.call('TYPE', key).ok, nil
  if kind == 'hash' then value = redis.call('HGETALL', key)
  elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif kind == 'set' then value = redis.call('SMEMBERS', key)
  elseif kind == 'list' then value = redis.call('LLEN', key)
  else value = redis.call('GET', key) end
  all[#all + 1] = { key, value }
end
return all
"""


class Machine(RuleBasedStateMachine):
    """One daemon after another on one journal. `records` are those of this daemon that it may still write about."""

    def __init__(self, server):
        super().__init__()
        self.server = server
        self.now = EPOCH_0
        self.clock = patch.object(clock, "now", lambda: self.now)
        self.clock.start()
        self.folder = tempfile.TemporaryDirectory(prefix="model-")

    @initialize()
    def start(self):
        self.store = Store(self.server, Path(self.folder.name))
        self.reference = Reference()
        self.is_broken = False
        self.live, self.claimed, self.stale, self.accepted = [], [], [], []

    def teardown(self):
        try:
            if hasattr(self, "store"):
                self.store.close()
                self.store.client.call("FLUSHALL")
        finally:
            self.clock.stop()
            self.folder.cleanup()

    # ---- the data plane

    def make(self, agent, number, *, key=None):
        life_s = (40, 4000, 10**6)[number % 3]
        policy = ("auto", "safe", "at_least_once")[number // 3 % 3]
        body = b"x" * (number % 300)
        record = self.store.record(
            agent,
            body=body,
            method=(b"GET", b"POST")[number // 9 % 2],
            policy=ReplayPolicy(policy),
            expires_at=self.now + life_s,
            max_pending=MOST,
            max_pending_bytes=MOST_BYTES,
            key=key and f"{agent}-{key}",
            fingerprint=("one", "other")[number // 18 % 4 == 0],
        )
        entry = Entry(
            agent, record.id, 0, len(record.head) + len(body), record.expires_at, policy, record.is_repeatable,
            record.key.scope if record.key else "", record.key.fingerprint if record.key else "",
        )  # fmt: skip
        return record, entry

    @rule(agent=agents, number=any_number)
    def begin(self, agent, number):
        record, entry = self.make(agent, number)
        self.store.journal.begin(record)
        entry.seq = record.seq
        self.reference.begin(entry)
        self.live.append((record, entry))

    @rule(agent=agents, number=any_number, key=integers(0, 3))
    def reserve(self, agent, number, key):
        record, entry = self.make(agent, number, key=key or None)
        expected = self.reference.reserve(entry)
        try:
            verdict = self.store.journal.reserve(record).verdict
        except Unavailable as error:
            assert error.code == "AGENT_REMOVED"
            verdict = "gone"
        entry.seq = record.seq
        assert verdict == expected
        if verdict == "new":
            self.live.append((record, entry))

    def try_accept(self, record, entry, due):
        try:
            self.store.journal.accept(record, due_at=due)
            answer = "ok"
        except TooManyRequests:
            answer = "full"
        except Unavailable as error:
            answer = {"AGENT_REMOVED": "gone", "REQUEST_ENDED": "late"}[error.code]
        entry.seq = record.seq
        assert answer == self.reference.accept(entry, due, MOST, MOST_BYTES)
        if answer == "ok":
            self.accepted.append(entry)
        return answer

    @rule(
        agent=agents, number=any_number, later=booleans(), twice=booleans(), revoked=sampled_from([False] * 4 + [True])
    )
    def accept_new(self, agent, number, later, twice, revoked):
        record, entry = self.make(agent, number)
        answer = self.try_accept(record, entry, self.now + number % 60 if later else 0.0)
        if answer == "ok" and twice:
            self.try_accept(record, entry, 0.0)
        if revoked:
            self.store.journal._append(operations.revoke(record.id))
            self.reference.revoke(entry)

    @precondition(lambda self: self.live)
    @rule(number=any_number, later=booleans())
    def accept_live(self, number, later):
        record, entry = self.live[number % len(self.live)]
        record.maybe_duplicate = entry.dup = later and number % 2 == 0
        if self.try_accept(record, entry, self.now + 20 if later else 0.0) == "ok":
            self.live.remove((record, entry))
        else:
            record.maybe_duplicate = entry.dup = False

    @precondition(lambda self: self.live)
    @rule(number=any_number, completed=booleans())
    def settle_live(self, number, completed):
        record, entry = self.live.pop(number % len(self.live))
        if record.lease > 0:
            outcome = ANSWERED if completed else FAILED
            self.reference.settle_held(entry, record.lease, completed, self.now, RESPONSE_BYTES)
        else:
            outcome = COMPLETED if completed else INTERRUPTED
            self.reference.settle_live(entry, completed, self.now)
        self.store.journal.settle(record, outcome)

    # ---- replay

    @precondition(lambda self: self.waits(math.inf))
    @rule(limit=integers(1, 4), lease_s=sampled_from([5, 1000]), ordered=booleans(), number=any_number)
    def claim(self, limit, lease_s, ordered, number):
        self.claim_of(sorted(self.waits(math.inf))[number % len(self.waits(math.inf))], limit, lease_s, ordered)

    @precondition(lambda self: self.due())
    @rule(number=any_number, ordered=booleans())
    def claim_what_is_due(self, number, ordered):
        self.claim_of(sorted(self.due())[number % len(self.due())], 3, 5, ordered)

    def claim_of(self, agent, limit, lease_s, ordered):
        expected = self.reference.claim(agent, limit, self.now, self.now + lease_s, ordered)
        records = self.store.claim(limit, agent_id=agent, now=self.now, lease_s=lease_s, ordered=ordered)
        assert [(one.id, one.attempt, one.maybe_duplicate, one.lease) for one in records] == [
            (one.id, one.attempt, one.dup, one.lease) for one in expected
        ]
        self.claimed += zip(records, expected, strict=True)

    def take_claimed(self, number):
        """A claimed record, maybe one whose lease passed, that another claim has taken, or of an earlier daemon."""
        pool = self.stale if self.stale and (number % 4 == 0 or not self.claimed) else self.claimed
        return pool.pop(number % len(pool))

    @precondition(lambda self: self.claimed or self.stale)
    @rule(number=any_number, completed=booleans())
    def settle_claimed(self, number, completed):
        record, entry = self.take_claimed(number)
        self.reference.settle_held(entry, record.lease, completed, self.now, RESPONSE_BYTES)
        self.store.journal.settle(record, ANSWERED if completed else FAILED)

    @precondition(lambda self: self.claimed or self.stale)
    @rule(number=any_number, sent=sampled_from(["counted", "not counted", "not at all"]), dup=booleans())
    def retry(self, number, sent, dup):
        record, entry = self.take_claimed(number)
        if sent == "not at all":
            self.reference.retry(entry, record.lease, record.attempt - 1, 0.0, record.maybe_duplicate)
            self.store.journal.give_back(record)
            return
        record.maybe_duplicate = record.maybe_duplicate or dup
        due = self.now + number % 40 if number % 2 else 0.0
        attempts = record.attempt if sent == "counted" else record.attempt - 1
        self.reference.retry(entry, record.lease, attempts, due, record.maybe_duplicate)
        self.store.journal.retry(record, due_at=due, error="busy", count_attempt=sent == "counted")

    @precondition(lambda self: self.claimed)
    @rule(lease_s=sampled_from([1, 300]))
    def renew(self, lease_s):
        for record, entry in self.claimed:
            self.reference.renew(entry, record.lease, self.now + lease_s)
        self.store.journal.renew([record for record, _ in self.claimed], lease_s)

    # ---- people and loops

    @precondition(lambda self: self.reference.entries)
    @rule(number=any_number, verb=sampled_from(["cancel", "requeue", "discard"]))
    def ask(self, number, verb):
        """Do it to one request; the error says in which state it is where that is the wrong one."""
        entries = list(self.reference.entries.values())
        entry = entries[number % len(entries)]
        was = entry.place
        allowed = {"cancel": ("pending",), "requeue": ("pending", "failed"), "discard": ("failed",)}[verb]
        try:
            getattr(self.store.requests, verb)(entry.agent, entry.id)
            assert was in allowed
        except Conflict as error:
            assert was not in allowed
            assert was in CONFLICTS[error.code]
        if verb != "discard":
            getattr(self.reference, verb)(entry, self.now)
        elif was == "failed":
            del self.reference.entries[entry.id]

    @rule(agent=agents, what=sampled_from(["sweep"] * 5 + ["pending", "failed", "forget"]))
    def clean(self, agent, what):
        if what == "sweep":
            removed = set(self.reference.gone)
            assert self.store.requests.sweep(self.now) == self.reference.sweep(self.now)
            removed -= set(self.reference.gone)  # a day ago: no client of theirs still waits
            known = self.reference.entries
            self.live = [(one, entry) for one, entry in self.live if entry.agent not in removed or entry.id in known]
        elif what == "forget":
            assert self.store.requests.forget_agent(agent) == self.reference.forget(agent, self.now)
        else:
            expected = self.reference.purge(agent, what, self.now)
            assert self.store.requests.purge(agent, state=RequestState(what)) == expected

    @rule(seconds=sampled_from([0.5, 3, 6, 10, 30, 60, 300, 3000, 90_000, 700_000]))
    def wait(self, seconds):
        self.now += seconds

    # ---- faults

    @rule()
    def restart(self):
        expected = self.reference.restart(self.now)
        recovered = self.store.restart()
        assert (recovered.interrupted, recovered.unknown, recovered.retried) == expected
        self.stale += self.claimed
        self.live, self.claimed = [], []

    @rule(arrives=booleans())
    def lose_the_connection(self, arrives):
        """The next batch is sent in vain, or its answer is lost: it is sent again, and runs once."""
        self.store.cut(arrives=arrives)
        self.is_broken = True

    # ---- what must hold

    @invariant()
    def same(self):
        if self.is_broken:
            self.is_broken = False  # the batch that fails is one of the next step
            return
        self.store.flush()
        found = self.snapshot()
        expected = expectation(self.reference)
        assert {name: value for name, value in found.items() if name in expected or not is_dull(name)} == expected
        assert set(self.store.requests.due(self.now)) == self.due()
        for entry in self.accepted:
            self.is_kept(entry)

    def snapshot(self):
        everything = {}
        for key, value in self.store.client.call("EVAL", SNAPSHOT, 0):
            name = key.decode().removeprefix(PREFIX)
            if isinstance(value, list) and name != "known":
                value = {one.decode(): content for one, content in pairs(value).items()}
            everything[name] = readable(name, value)
        return {name: value for name, value in everything.items() if value}

    def waits(self, later_s):
        """The agents that have something pending."""
        entries = self.reference.entries.values()
        return {one.agent for one in entries if one.place == "pending" and one.due <= self.now + later_s}

    def due(self):
        """The agents that have something to claim."""
        entries = self.reference.entries.values()
        return self.waits(0.0) | {one.agent for one in entries if one.place == "held" and one.until <= self.now}

    def is_kept(self, entry):
        """What was accepted is there until somebody removed it: nothing of the journal's own forgets it."""
        if entry.id in self.reference.entries:
            summary = self.store.requests.detail(entry.agent, entry.id).summary
            states = {"held": "processing", "live": "processing"}
            assert summary.state == states.get(entry.place, entry.place)


def is_dull(name):
    return name in ("install_id", "schema", "epoch", "batch", "known")


def readable(name, value):
    """What of a key is compared."""
    kind = name.partition(":")[0]
    if kind == "r":
        record = {
            field: value.get(field, b"").decode() for field in ("agent", "state", "reason", "attempt", "dup", "size")
        }
        record["responses"] = int("response" in value)
        return record
    if kind in ("q", "d", "lease", "dead", "done", "x", "gone"):
        return {one: round(float(score), 3) for one, score in value.items()}
    if kind == "n":
        return {field: int(number) for field, number in value.items() if int(number)}
    if kind == "live":
        return set(value)
    if kind == "known":
        return {agent.decode() for agent in value}
    return value.decode() if isinstance(value, bytes) else value


def expectation(reference):
    """Everything that Redis must hold, from what the reference holds."""
    found = {"gone": {agent: at for agent, at in reference.gone.items()}, "x": {}}
    for agent in AGENTS:
        for name in ("live", "q", "d", "lease", "dead", "done", "n"):
            found[f"{name}:{agent}"] = set() if name == "live" else {}
        found[f"hist:{agent}"] = reference.past.get(agent, 0)
    states = {"pending": "pending", "held": "processing", "failed": "failed", "completed": "completed"}
    for one in reference.entries.values():
        numbers = found[f"n:{one.agent}"]
        if one.place == "live":
            found[f"live:{one.agent}"].add(one.id)
            continue
        if one.place == "pending":
            found["x"][one.id] = one.expires
            count(numbers, "pending", 1)
            count(numbers, "pending_bytes", one.size)
        elif one.place in ("failed", "completed"):
            count(numbers, {"failed": "dead_bytes", "completed": "done_bytes"}[one.place], one.size)
        index, score = {
            "pending": ("d", one.due) if one.due else ("q", one.seq),
            "held": ("lease", one.until),
            "failed": ("dead", one.ended),
            "completed": ("done", one.ended),
        }[one.place]
        found[f"{index}:{one.agent}"][one.id] = score if score == math.inf else round(score, 3)
        found[f"r:{one.id}"] = {
            "agent": one.agent, "state": states[one.place], "reason": one.reason, "attempt": str(one.attempt),
            "dup": "1" if one.dup else "0", "size": str(one.size), "responses": int(one.place == "completed"),
        }  # fmt: skip
    for scope, (first, print_, done) in reference.keys.items():
        found[f"idem:{scope}"] = f"{first} {print_}{' done' if done else ''}"
    return {name: value for name, value in found.items() if value}


def count(numbers, field, amount):
    numbers[field] = numbers.get(field, 0) + amount


@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_every_interleaving_is_what_the_reference_says(kind, redis_folder, caplog):
    caplog.set_level(logging.ERROR)
    server = RedisProcess(redis_folder, kind=kind, appendfsync="no").start()
    try:
        run_state_machine_as_test(
            lambda: Machine(server),
            settings=settings(
                max_examples=max(STEPS // STEPS_OF_ONE, 1),
                stateful_step_count=STEPS_OF_ONE,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        server.stop()
