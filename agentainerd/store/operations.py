"""The operations of a batch, as the bytes that Redis gets: a letter and its arguments, each a RESP bulk string.

`lua/batch.lua` runs them. Every one is made here, and what is made here is all that a batch may hold. Packing by hand
costs a third of what a client's packer does, and a batch is made of pieces that are packed when they are called.
"""

from agentainerd.model.requests import Outcome, Reason, Record
from agentainerd.store import packing

ARGUMENTS = {
    ord("L"): 4,
    ord("S"): 4,
    ord("A"): 17,
    ord("R"): 15,
    ord("C"): 6,
    ord("D"): 17,
    ord("F"): 10,
    ord("B"): 10,
    ord("T"): 9,
    ord("W"): 5,
    ord("K"): 2,
    ord("N"): 1,
}
"""Arguments per operation, its letter included."""

LETTER = 4
"""Where in an operation's bytes its letter is."""

COMMITS = frozenset(map(ord, "LAR"))
"""Operations that need memory: refused where there is none. All others free it, or keep a promise that was made."""

NOTHING = b"$1\r\nN\r\n"
"""Holds the place, and the answer, of an operation that was withdrawn."""

_LIVE = b"$1\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"


def begin(record: Record) -> bytes:
    """Record a live request in one field."""
    agent, request_id, packed = record.agent_id.encode(), record.id.encode(), packing.pack_live(record)
    return _LIVE % (b"L", len(agent), agent, len(request_id), request_id, len(packed), packed)


def end(record: Record, outcome: Outcome, now: float) -> bytes:
    """Forget a live request that was answered, but for its summary."""
    agent, request_id, packed = record.agent_id.encode(), record.id.encode(), packing.pack_past(record, outcome, now)
    return _LIVE % (b"S", len(agent), agent, len(request_id), request_id, len(packed), packed)


def accept(record: Record, reason: Reason, due_at: float) -> bytes:
    """Make a record pending, whatever the journal holds of it. Answered with ok, full, gone or late."""
    sent = reason is Reason.RETRY_WAIT or record.maybe_duplicate
    attempts = record.attempt if sent else record.attempt - 1
    return _pack("A", *_whole(record, attempts), reason, _time(due_at), record.max_pending, record.max_pending_bytes)


def reserve(record: Record, key_ttl_s: float) -> bytes:
    """Record a live request whole, if its key is new. Answered with "<verdict> <request id>"."""
    fingerprint = record.key.fingerprint if record.key else ""
    return _pack("R", *_whole(record, record.attempt), fingerprint, int(key_ttl_s * 1000))


def claim(agent_id: str, *, limit: int, now: float, until: float, ordered: bool) -> bytes:
    """Lease the oldest pending records of an agent. Answered with the records."""
    return _pack("C", agent_id, limit, _time(now), _time(until), "1" if ordered else "0")


def bury_live(record: Record, outcome: Outcome, now: float) -> bytes:
    """Make a dead letter of a live request."""
    return _pack(
        "D",
        *_whole(record, record.attempt),
        outcome.reason,
        outcome.error,
        _time(now),
        packing.pack_result(outcome),
    )


def finish(record: Record, owner: int, outcome: Outcome, *, now: float, key_ttl_s: float) -> bytes:
    """Complete a full record, keeping its answer."""
    return _pack(
        "F",
        record.id,
        owner,
        record.lease,
        record.attempt,
        _time(now),
        packing.pack_result(outcome),
        packing.pack_response(outcome.response),
        int(key_ttl_s * 1000),
        packing.pack_past(record, outcome, now),
    )


def bury(record: Record, owner: int, outcome: Outcome, now: float) -> bytes:
    """Make a dead letter of a full record."""
    return _pack(
        "B",
        record.id,
        owner,
        record.lease,
        record.attempt,
        _flag(record.maybe_duplicate),
        outcome.reason,
        outcome.error,
        _time(now),
        packing.pack_result(outcome),
    )


def retry(record: Record, owner: int, *, attempts: int, due_at: float, error: str) -> bytes:
    """Make a full record pending again, in its old place."""
    reason = Reason.RETRY_WAIT if attempts > 0 else Reason.QUEUED
    return _pack(
        "T",
        record.id,
        owner,
        record.lease,
        attempts,
        _flag(record.maybe_duplicate),
        reason,
        _time(due_at),
        error,
    )


def renew(record: Record, owner: int, until: float) -> bytes:
    """Keep a claimed record longer."""
    return _pack("W", record.id, owner, record.lease, _time(until))


def revoke(request_id: str) -> bytes:
    """Take back an accept or a reserve whose sender was told that it failed."""
    return _pack("K", request_id)


def _whole(record: Record, attempts: int) -> tuple[str | bytes | int, ...]:
    return (
        record.agent_id,
        record.id,
        record.seq,
        len(record.head) + max(record.body_bytes, 0),
        _time(record.expires_at),
        attempts,
        _flag(record.maybe_duplicate),
        record.spool,
        record.key.scope if record.key else "",
        packing.pack_meta(record),
        record.head,
        record.body,
    )


def _flag(value: bool) -> str:
    return "1" if value else "0"


def _time(at: float) -> str:
    return f"{at:.6f}" if at else "0"


def _pack(*arguments: str | bytes | int) -> bytes:
    pieces = []
    for argument in arguments:
        data = argument if isinstance(argument, bytes) else str(argument).encode("utf-8", "replace")
        pieces.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(pieces)
