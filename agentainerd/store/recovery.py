"""Opening the journal: is it ours, which epoch is it, and what did the daemon leave that ran before?

Nothing of an older epoch is waited for. Its requests that a client waited for have failed (their clients saw the connection
break), its replays are sent again and marked, except where the agent's policy forbids that.
"""

import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agentainerd import clock
from agentainerd.errors import Failed
from agentainerd.model.requests import IdempotencyKey, Outcome, Reason, Record, ReplayPolicy, RequestState
from agentainerd.store import keys, marks, operations, packing, scripts
from agentainerd.store.committer import Committer, refusal
from agentainerd.store.connection import RedisClient, pairs
from agentainerd.store.marks import Mark
from agentainerd.version import VERSION

log = logging.getLogger(__name__)

_OPEN = scripts.load("open", flags="allow-oom")
_PAGE = 100
RECOVERY_TIMEOUT_S = 30.0
_FIELDS = ("agent", "meta", "owner", "lease", "reason", "attempt", "dup", "scope")
_CUT_OFF = "agentainerd ended while this request was with the agent"


@dataclass(frozen=True, slots=True)
class Recovered:
    """What opening the journal did. `interrupted` and `unknown` became dead letters, `retried` are pending again."""

    epoch: int
    interrupted: int = 0
    unknown: int = 0
    retried: int = 0


def begin_epoch(client: RedisClient, state_dir: Path) -> Mark:
    """Check that Redis holds the journal of this state folder as far as its mark says, start a new epoch of it, write the
    mark of that and return it.

    The first start makes the journal. From now on every older epoch is refused.

    Raises:
        Failed: Redis holds another journal, none, or an old copy (code JOURNAL_LOST); the mark can't be read
            (JOURNAL_DAMAGED); a later version wrote it (JOURNAL_TOO_NEW). Nothing was changed.
        Unavailable: Redis does not answer, or the mark can't be written.
    """
    wanted = marks.read(state_dir) or Mark("")
    answer = client.run(_OPEN, wanted.journal, uuid.uuid4().hex, wanted.epoch, wanted.batch, keys.SCHEMA)
    found = answer[0].decode()
    place = client.url.rpartition("@")[2]
    if len(answer) == 1:
        held = f"another one ({found})" if found else "an empty one"
        raise marks.lost(state_dir, f"Redis at {place} holds {held}, not {wanted.journal}")
    if len(answer) == 3:
        raise marks.lost(
            state_dir,
            f"Redis at {place} holds an old copy of it: it ends with batch {answer[2]} of start {answer[1]}, and was written "
            f"up to batch {wanted.batch} of start {wanted.epoch} at least",
        )
    if len(answer) == 4:
        raise Failed(
            f"the request journal in Redis at {place} was written by a later version of agentainerd: its schema is {answer[3]}, "
            f"and {VERSION} knows up to {keys.SCHEMA}",
            code="JOURNAL_TOO_NEW",
            hint="start the version that ran here last; nothing was changed",
        )
    mark = Mark(found, int(answer[1]))
    marks.write(state_dir, mark)
    return mark


def recover(client: RedisClient, committer: Committer, epoch: int) -> Recovered:
    """Settle at once what older epochs were processing; return when that is durable.

    Raises:
        Unavailable: Redis went away meanwhile. To repeat it is safe.
    """
    counts = dict.fromkeys((Reason.INTERRUPTED, Reason.OUTCOME_UNKNOWN, Reason.RETRY_WAIT), 0)
    for agent in client.call("SMEMBERS", keys.KNOWN):
        agent_id = agent.decode()
        for records in _left_live(client, agent_id):
            for record in records:
                counts[Reason.INTERRUPTED] += 1
                committer.append(operations.bury_live(record, _outcome(Reason.INTERRUPTED), clock.now()))
            _wait(committer)
        for held in _left_leased(client, agent_id, epoch):
            for record, owner, reason in held:
                end = _end_of(record, reason)
                counts[end] += 1
                committer.append(_settle(record, owner, end))
            _wait(committer)
    _wait(committer)
    recovered = Recovered(epoch, counts[Reason.INTERRUPTED], counts[Reason.OUTCOME_UNKNOWN], counts[Reason.RETRY_WAIT])
    if any(counts.values()):
        log.warning("settled what an earlier run left: %s", recovered)
    return recovered


def _settle(record: Record, owner: int, end: Reason) -> bytes:
    if end is Reason.RETRY_WAIT:
        record.maybe_duplicate = True
        return operations.retry(record, owner, attempts=record.attempt, due_at=0.0, error=_CUT_OFF)
    return operations.bury(record, owner, _outcome(end), clock.now())


def _end_of(record: Record, reason: Reason) -> Reason:
    """Return why a record that an older epoch held has failed, or RETRY_WAIT: it is sent again."""
    if reason is Reason.LIVE:
        return Reason.RETRY_WAIT if record.policy is ReplayPolicy.AT_LEAST_ONCE else Reason.INTERRUPTED
    if record.policy is ReplayPolicy.SAFE and not record.is_repeatable:
        return Reason.OUTCOME_UNKNOWN
    return Reason.RETRY_WAIT


def _outcome(reason: Reason) -> Outcome:
    return Outcome(RequestState.FAILED, reason, error=_CUT_OFF)


def _wait(committer: Committer) -> None:
    """Block until all that was appended is durable."""
    call = committer.call(operations.NOTHING)
    if not call.wait(RECOVERY_TIMEOUT_S) or call.refused:
        raise refusal(call.refused or "JOURNAL_UNAVAILABLE")


def _left_live(client: RedisClient, agent_id: str) -> Iterator[list[Record]]:
    cursor = b"0"
    while True:
        cursor, flat = client.call("HSCAN", keys.live(agent_id), cursor, "COUNT", _PAGE)
        found = pairs(flat)
        yield [packing.unpack_live(request_id.decode(), agent_id, packed) for request_id, packed in found.items()]
        if cursor == b"0":
            return


def _left_leased(client: RedisClient, agent_id: str, epoch: int) -> Iterator[list[tuple[Record, int, Reason]]]:
    ids = [request_id.decode() for request_id in client.call("ZRANGE", keys.leased(agent_id), 0, -1)]
    for start in range(0, len(ids), _PAGE):
        page = ids[start : start + _PAGE]
        answers = client.calls([("HMGET", keys.record(request_id), *_FIELDS) for request_id in page])
        held = [_held(request_id, fields) for request_id, fields in zip(page, answers, strict=True) if fields[0]]
        yield [(record, owner, reason) for record, owner, reason in held if owner != epoch]


def _held(request_id: str, fields: list[bytes]) -> tuple[Record, int, Reason]:
    """Return as much of a record as settling it needs, its owner's epoch and its reason."""
    agent, packed, owner, lease, reason, attempt, duplicate, scope = fields
    meta = packing.unpack_meta(packed)
    record = Record(
        request_id,
        agent.decode(),
        head=b"",
        method=meta.method,
        target=meta.target,
        received_at=meta.received_at,
        expires_at=0.0,
        policy=meta.policy,
        key=IdempotencyKey(scope.decode(), meta.fingerprint) if scope else None,
        attempt=int(attempt),
        maybe_duplicate=duplicate == b"1",
        lease=int(lease),
    )
    return record, int(owner), Reason(reason.decode())
