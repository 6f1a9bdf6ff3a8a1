"""The journal in Redis: what `proxy.journal.Journal` promises to the data plane, and what the replay service needs.

Every write is an operation of the committer's next batch, so that all of them are in the order in which they were called.
A request that a client waits for is one field of a hash; one that must outlive its client is a record of its own.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

from gevent.event import Event

from agentainerd import clock, defaults, offload
from agentainerd.errors import AgentainerError, NotFound, TooManyRequests, Unavailable
from agentainerd.model.requests import KeyAnswer, KeyVerdict, Outcome, Reason, Record, RequestState
from agentainerd.model.tallies import Histogram
from agentainerd.store import keys, marks, operations, packing, recovery
from agentainerd.store.committer import Batch, Call, Committer, Spawn, refusal
from agentainerd.store.connection import RedisClient
from agentainerd.store.disk import FreeSpace
from agentainerd.store.marks import Mark
from agentainerd.store.recovery import Recovered
from agentainerd.store.spool import Spool, SpoolFile

log = logging.getLogger(__name__)

SEQ_PER_EPOCH = 2**32
"""Orders of arrival within one epoch. A sorted set tells 2^53 apart: that is two million epochs."""

MARK_INTERVAL_S = 10.0
_LIVE, _OVER = -1, -2  # Record.lease
_COMPLETED = RequestState.COMPLETED  # in Python 3.11 the member itself takes a look-up in Python
_QUEUE_FULL_RETRY_S = 10


class RedisJournal:
    """The durable record of requests. Methods may be called from any greenlet once `open` returned.

    `spawn` is Supervisor.spawn. `on_fenced` is called, from the journal's own greenlet, when another daemon took the journal
    over, or Redis lost it: this process must end. `on_pending` is called with an agent's id after a request of it was
    accepted; it must not block.
    """

    def __init__(
        self,
        client: RedisClient,
        spool: Spool,
        *,
        state_dir: Path,
        spawn: Spawn,
        on_fenced: Callable[[], None],
        on_pending: Callable[[str], None] = lambda agent_id: None,
        response_ttl_s: float = defaults.RESPONSE_TTL_S,
        min_free_bytes: int = defaults.MIN_FREE_DISK_BYTES,
    ) -> None:
        self.on_pending = on_pending
        self._client = client
        self._spool = spool
        self._state_dir = state_dir
        self._spawn = spawn
        self._on_fenced = on_fenced
        self._response_ttl_s = response_ttl_s
        self._free_space = FreeSpace((spool.folder, state_dir), min_free_bytes)
        self._epoch = 0
        self._mark = Mark("")
        self._mark_trouble = ""
        self._closed = Event()
        self._last_seq = 0
        self._committer: Committer | None = None
        self._nowhere = Batch("JOURNAL_UNAVAILABLE")

    def open(self) -> Recovered:
        """Take the journal over, settle what an earlier daemon left, and be ready. Blocks until that is durable.

        Raises:
            Failed: Redis does not hold this journal, or an old copy of it (code JOURNAL_LOST).
            Unavailable: Redis does not answer, or the state folder can't be written; `open` may be called again.
        """
        self._mark = recovery.begin_epoch(self._client, self._state_dir)
        self._epoch = self._client.epoch = self._mark.epoch
        self._last_seq = self._epoch * SEQ_PER_EPOCH
        committer = Committer(self._client, self._epoch, spawn=self._spawn, on_end=self._on_fenced)
        try:
            recovered = recovery.recover(self._client, committer, self._epoch)
        except BaseException:
            committer.close(0.0)
            raise
        self._committer = committer
        self._spawn("journal mark", self._keep_mark, committer)
        return recovered

    def close(self, timeout_s: float = defaults.JOURNAL_WAIT_S) -> bool:
        """Write what is still in memory, at most `timeout_s`, and end; return whether all of it is durable."""
        self._closed.set()
        if self._committer is None:
            return True
        flushed = self._committer.close(timeout_s)
        if not self._committer.is_fenced:
            self._write_mark(self._committer.durable)
        return flushed

    # ---- the data plane's side

    @property
    def available(self) -> bool:
        """Redis answers and there is room: a hint for the hot path, not a guarantee."""
        return self._committer is not None and self._committer.available

    @property
    def in_flight(self) -> int:
        """The number of the batch that Redis has not answered yet; 0 where there is none. Each batch has another."""
        return self._committer.in_flight if self._committer else 0

    @property
    def latency(self) -> Histogram | None:
        """How long each batch took, from its sending to its answer; None: not opened yet."""
        return self._committer.latency if self._committer else None

    @property
    def operations(self) -> int:
        """How many operations all batches had."""
        return self._committer.operations if self._committer else 0

    def probe(self) -> None:
        """Send a batch with nothing in it, to see whether batches are answered. Never blocks."""
        self._call(operations.NOTHING)

    def begin(self, record: Record) -> Batch:
        """Start to record a live request; see Journal. Never blocks."""
        if not record.seq:
            self._last_seq += 1
            record.seq = self._last_seq
        if self._committer is None:
            return self._nowhere
        batch = self._committer.append(operations.begin(record), keep=False)
        if batch is None:
            return self._nowhere
        record.lease = _LIVE
        return batch

    def reserve(self, record: Record) -> KeyAnswer:
        """Record a live request whole before it is forwarded; see Journal.

        A key is bound to its request until RESPONSE_TTL_S after the answer; a request that failed frees it at once, because
        its sender says by the key that it may be sent again.

        Raises:
            Unavailable: it is not recorded.
        """
        self._number(record)
        life_s = max(record.expires_at - clock.now(), 0.0) + self._response_ttl_s
        answer = self._ask(operations.reserve(record, life_s), record)
        verdict, _, request_id = answer.partition(b" ")
        if verdict == b"gone":
            raise _removed(record)
        known = KeyAnswer(KeyVerdict(verdict.decode()), request_id.decode())
        if known.verdict is KeyVerdict.NEW:
            record.lease = 1
        elif known.verdict is KeyVerdict.DONE:
            packed = self._client.call("HGET", keys.record(known.request_id), "response")
            response = packing.unpack_response(packed)
            known = KeyAnswer(KeyVerdict.DONE if response else KeyVerdict.FAILED, known.request_id, response)
        return known

    def accept(self, record: Record, *, reason: Reason = Reason.QUEUED, due_at: float = 0.0) -> None:
        """Make it pending and durable: when this returns, 202 may be said; see Journal.

        Whether an attempt counts is read from the record: with reason retry_wait, or where an earlier one may have run,
        `record.attempt` were made, else one less.

        Raises:
            TooManyRequests: the agent's queue is full (code QUEUE_FULL).
            Unavailable: it is not recorded: the journal is away (JOURNAL_UNAVAILABLE), full (JOURNAL_FULL) or too slow for
                all who wait (JOURNAL_SLOW), there is no space on the disk (NO_SPACE), or the agent was removed
                (AGENT_REMOVED).
        """
        self._free_space.check()
        if record.spool and not self._spool.exists(record.spool):
            raise Unavailable("the request's body is not on the disk any more", code="SPOOL_FAILED")
        self._number(record)
        if due_at > 0:
            reason = Reason.RETRY_WAIT
        answer = self._ask(operations.accept(record, reason, due_at), record)
        if answer == b"full":
            raise TooManyRequests(
                f"the queue of {record.agent_id} is full: at most {record.max_pending} requests and "
                f"{record.max_pending_bytes} bytes wait for an agent",
                code="QUEUE_FULL",
                retry_after_s=_QUEUE_FULL_RETRY_S,
            )
        if answer == b"gone":
            raise _removed(record)
        if answer != b"ok":
            raise Unavailable("the request has ended already and was not queued", code="REQUEST_ENDED")
        record.lease = _OVER
        self.on_pending(record.agent_id)

    def settle(self, record: Record, outcome: Outcome) -> None:
        """End it, live or claimed: completed or failed. Never blocks; kept in memory and repeated while Redis is away.

        From now on the journal owns the file in `record.spool`: it stays where the request failed, for whoever sends the
        dead letter again. A record that was accepted or settled before is left alone.
        """
        if record.lease == _OVER:
            return
        completed = outcome.state is _COMPLETED
        now = clock.now()
        if record.lease > 0:
            if completed:
                op = operations.finish(record, self._epoch, outcome, now=now, key_ttl_s=self._response_ttl_s)
            else:
                op = operations.bury(record, self._epoch, outcome, now)
        elif completed:
            op = operations.end(record, outcome, now)
        else:
            op = self._dead_letter(record, outcome, now)
        batch = self._append(op, keep=record.lease != 0)
        record.lease = _OVER
        if completed and record.spool:
            self._spawn("spool", self._remove_body, batch, record.spool)

    def spool(self, request_id: str) -> SpoolFile:
        """Start a temporary file for a body over MAX_INLINE_BODY_BYTES. Raises Unavailable (NO_SPACE, SPOOL_FAILED)."""
        self._free_space.check()
        return self._spool.create(request_id)

    # ---- the replay service's side

    def claim(self, agent_id: str, *, limit: int, now: float, lease_s: float, ordered: bool = False) -> list[Record]:
        """Take up to `limit` pending records of an agent, in order of arrival, and mark them processing.

        Each is returned to one caller only, until `now + lease_s` (epoch seconds); one that is neither settled nor renewed
        by then is pending again at the next claim after that, marked. `ordered`: at most one, and none while one is out or
        while the first of all waits for its time. Requests past their deadline are buried instead. Blocks, also while Redis
        is on its way back.

        Raises:
            Unavailable: nothing was claimed.
        """
        op = operations.claim(agent_id, limit=limit, now=now, until=now + lease_s, ordered=ordered)
        call = self._call(op)
        call.wait(None)
        if call.refused:
            raise refusal(call.refused)
        answer = cast(list[list[bytes | None]], call.answer)  # what batch.lua answers to a C
        return [record for record in map(packing.unpack_claimed, answer) if record is not None]

    def retry(self, record: Record, *, due_at: float, error: str, count_attempt: bool = True) -> None:
        """Make a claimed record pending again, due at `due_at` (epoch seconds; 0: now). Never blocks; kept as `settle` is.

        `record.maybe_duplicate` is stored. `count_attempt` False: this attempt never reached the agent.
        """
        attempts = record.attempt if count_attempt else record.attempt - 1
        self._append(operations.retry(record, self._epoch, attempts=attempts, due_at=due_at, error=error))

    def give_back(self, record: Record) -> None:
        """Undo the claim of a record that was not sent: pending again, in its old place. Never blocks."""
        self._append(operations.retry(record, self._epoch, attempts=record.attempt - 1, due_at=0.0, error=""))

    def renew(self, records: Sequence[Record], lease_s: float) -> None:
        """Keep claimed records for another `lease_s` from now. Never blocks; records that were settled are left alone."""
        until = clock.now() + lease_s
        for record in records:
            self._append(operations.renew(record, self._epoch, until))

    # ----

    def _keep_mark(self, committer: Committer) -> None:
        """Every MARK_INTERVAL_S: find out whether the journal is still ours, and note how far it was written.

        What is noted was durable an interval ago: so an external server that fsyncs once a second is not taken for an old
        copy after a crash.
        """
        durable = 0
        while not self._closed.wait(MARK_INTERVAL_S):
            with suppress(Unavailable):
                if self._client.call("GET", keys.EPOCH) != b"%d" % self._epoch:
                    committer.append(operations.NOTHING)  # is refused, and ends this process
            if durable > self._mark.batch:
                offload.run(self._write_mark, durable)
            durable = committer.durable

    def _write_mark(self, batch: int) -> None:
        """Note it, unless a later start has noted something meanwhile."""
        mark = replace(self._mark, batch=batch)
        try:
            there = marks.read(self._state_dir)
            if there is None or there.epoch <= mark.epoch:
                marks.write(self._state_dir, mark)
        except AgentainerError as exc:
            if exc.message != self._mark_trouble:
                log.warning("how far the journal was written could not be noted: %s", exc.message)
            self._mark_trouble = exc.message
        else:
            self._mark, self._mark_trouble = mark, ""

    def _number(self, record: Record) -> None:
        if not record.seq:
            self._last_seq += 1
            record.seq = self._last_seq

    def _append(self, op: bytes, *, keep: bool = True) -> Batch:
        batch = self._committer.append(op, keep=keep) if self._committer else None
        return batch or self._nowhere

    def _call(self, op: bytes, *, keep: bool = True) -> Call:
        return (
            self._committer.call(op, keep=keep) if self._committer else Call(op, self._nowhere, "JOURNAL_UNAVAILABLE")
        )

    def _ask(self, op: bytes, record: Record) -> bytes:
        """Return the answer to an accept or a reserve; what is not certain within JOURNAL_WAIT_S is revoked."""
        call = self._call(op, keep=False)
        if not call.wait(defaults.JOURNAL_WAIT_S):
            assert self._committer is not None
            self._committer.withdraw(call, operations.revoke(record.id))
            raise refusal("JOURNAL_UNAVAILABLE")
        if call.refused:
            raise refusal(call.refused)
        return cast(bytes, call.answer)  # batch.lua answers a word to A and R

    def _dead_letter(self, record: Record, outcome: Outcome, now: float) -> bytes:
        """Bury a live request; one whose body is not here whole keeps its head only and can't be sent again."""
        self._number(record)
        if record.spool == "" and record.body_bytes != len(record.body):
            record.body_bytes = -1
        return operations.bury_live(record, outcome, now)

    def _remove_body(self, batch: Batch, name: str) -> None:
        try:
            batch.wait()
        except Unavailable:
            return  # the sweep finds it
        try:
            self._spool.remove((name,))
        except (OSError, NotFound) as exc:
            log.warning("a request's body was not removed: %s", exc)


def _removed(record: Record) -> Unavailable:
    return Unavailable(f"{record.agent_id} was removed: the request was not queued", code="AGENT_REMOVED")
