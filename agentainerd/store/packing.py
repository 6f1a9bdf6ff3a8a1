"""Records, summaries and answers as bytes (MessagePack arrays), and back. Scripts treat them as opaque."""

from collections.abc import Mapping

import msgspec

from agentainerd.model.requests import (
    IdempotencyKey,
    Outcome,
    Reason,
    Record,
    RequestState,
    StoredResponse,
    Summary,
)
from agentainerd.store.packed import Live, Meta, Past, Response, Result

_encode = msgspec.msgpack.Encoder().encode
_live = msgspec.msgpack.Decoder(Live)
_meta = msgspec.msgpack.Decoder(Meta)
_past = msgspec.msgpack.Decoder(Past)
_result = msgspec.msgpack.Decoder(Result)
_response = msgspec.msgpack.Decoder(Response)


def pack_live(record: Record) -> bytes:
    """Pack a live record, whole: what recovery needs to make a dead letter of it."""
    return _encode(
        (
            record.method,
            record.target,
            record.client,
            record.received_at,
            record.expires_at,
            record.policy,
            record.body_bytes,
            record.spool,
            record.seq,
            record.attempt,
            record.maybe_duplicate,
            record.head,
            record.body,
        )
    )


def unpack_live(request_id: str, agent_id: str, packed: bytes) -> Record:
    """Return the live record; one whose body was still on its way when it was packed is not replayable."""
    live = _live.decode(packed)
    whole = live.spool != "" or live.body_bytes == len(live.body)
    return Record(
        request_id,
        agent_id,
        head=live.head,
        method=live.method,
        target=live.target,
        received_at=live.received_at,
        expires_at=live.expires_at,
        body=live.body,
        spool=live.spool,
        body_bytes=live.body_bytes if whole else -1,
        client=live.client,
        policy=live.policy,
        attempt=live.attempt,
        maybe_duplicate=live.maybe_duplicate,
        seq=live.seq,
        lease=-1,
    )


def pack_meta(record: Record) -> bytes:
    """Pack what never changes of a full record."""
    fingerprint = record.key.fingerprint if record.key else ""
    return _encode(
        (record.method, record.target, record.client, record.received_at, record.policy, record.body_bytes, fingerprint)
    )


def unpack_claimed(fields: list[bytes | None]) -> Record | None:
    """Return the record of one element of a claim's answer (batch.lua: `answer`), or None where it has gone meanwhile."""
    agent, meta_packed, head, body, spool, seq, scope, expires, attempt, dup, lease, request_id = fields
    if agent is None or request_id is None:
        return None
    meta = unpack_meta(meta_packed)
    return Record(
        request_id.decode(),
        agent.decode(),
        head=head or b"",
        method=meta.method,
        target=meta.target,
        received_at=meta.received_at,
        expires_at=float(expires or 0),
        body=body or b"",
        spool=(spool or b"").decode(),
        body_bytes=meta.body_bytes,
        client=meta.client,
        policy=meta.policy,
        key=IdempotencyKey(scope.decode(), meta.fingerprint) if scope else None,
        attempt=int(attempt or 0),
        maybe_duplicate=dup == b"1",
        seq=int(seq or 0),
        lease=int(lease or 0),
    )


def unpack_meta(packed: bytes | None) -> Meta:
    """Return what never changes of a full record."""
    return _meta.decode(packed or b"")


def pack_past(record: Record, outcome: Outcome, now: float) -> bytes:
    """Pack the summary of a completed request, for the history."""
    return _encode(
        (
            record.id,
            record.method,
            record.target,
            record.received_at,
            record.body_bytes,
            record.attempt,
            now,
            outcome.reason,
            outcome.status,
            outcome.response_bytes,
            outcome.duration_s,
            record.maybe_duplicate,
        )
    )


def unpack_past(agent_id: str, packed: bytes) -> Summary:
    """Return the summary of a completed request."""
    past = _past.decode(packed)
    return Summary(
        past.id,
        agent_id,
        RequestState.COMPLETED,
        past.reason,
        past.method.decode("latin-1"),
        past.target.decode("latin-1"),
        past.received_at,
        past.body_bytes,
        past.attempts,
        finished_at=past.finished_at,
        status=past.status,
        response_bytes=past.response_bytes,
        duration_s=past.duration_s,
        maybe_duplicate=past.maybe_duplicate,
    )


def pack_result(outcome: Outcome) -> bytes:
    """Pack the figures of an outcome."""
    return _encode((outcome.status, outcome.response_bytes, outcome.duration_s))


def pack_response(response: StoredResponse | None) -> bytes:
    """Pack an agent's answer; b"" for none."""
    if response is None:
        return b""
    return _encode((response.status, response.head, response.body, response.truncated))


def unpack_response(packed: bytes | None) -> StoredResponse | None:
    """Return an agent's answer, or None where there is none."""
    if not packed:
        return None
    response = _response.decode(packed)
    return StoredResponse(response.status, response.head, response.body, response.truncated)


def summary_of_live(record: Record) -> Summary:
    """Return the summary of a request that a client waits for."""
    return Summary(
        record.id,
        record.agent_id,
        RequestState.PROCESSING,
        Reason.LIVE,
        record.method.decode("latin-1"),
        record.target.decode("latin-1"),
        record.received_at,
        record.body_bytes,
        record.attempt,
        expires_at=record.expires_at,
        maybe_duplicate=record.maybe_duplicate,
    )


SUMMARY_FIELDS = ("agent", "state", "reason", "meta", "attempt", "due", "expires", "finished", "error", "result", "dup")


def summary_of_record(request_id: str, fields: Mapping[str, bytes | None]) -> Summary:
    """Return the summary of a full record from its SUMMARY_FIELDS."""
    meta = unpack_meta(fields["meta"])
    packed = fields.get("result")
    result = _result.decode(packed) if packed else Result(0, 0, 0.0)
    state = RequestState((fields["state"] or b"").decode())
    return Summary(
        request_id,
        (fields["agent"] or b"").decode(),
        state,
        Reason((fields["reason"] or b"").decode()),
        meta.method.decode("latin-1"),
        meta.target.decode("latin-1"),
        meta.received_at,
        meta.body_bytes,
        int(fields["attempt"] or 0),
        finished_at=float(fields.get("finished") or 0),
        next_attempt_at=float(fields.get("due") or 0) if state is RequestState.PENDING else 0.0,
        expires_at=float(fields["expires"] or 0),
        status=result.status,
        response_bytes=result.response_bytes,
        duration_s=result.duration_s,
        error=(fields.get("error") or b"").decode(),
        maybe_duplicate=fields.get("dup") == b"1",
    )
