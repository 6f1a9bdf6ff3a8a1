"""Durable requests: states, reasons, the rules about methods, and the record that data plane and journal share.

Nothing here does I/O. `Record` is mutable and a struct, because one is made for every proxied request.
"""

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from agentainerd import defaults


class RequestState(StrEnum):
    """Where a request is; the words of the original's documents."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a request is in its state."""

    QUEUED = "queued"  # pending: never sent
    RETRY_WAIT = "retry_wait"  # pending: an attempt failed, the next one is due later
    LIVE = "live"  # processing: a client is connected
    REPLAY = "replay"  # processing: leased by a replay worker; completed: answered to one
    ANSWERED = "answered"  # completed: answered to a connected client
    ATTEMPTS = "attempts"  # failed: all attempts used up
    EXPIRED = "expired"  # failed: older than its deadline
    CANCELLED = "cancelled"  # failed: by a person
    INTERRUPTED = "interrupted"  # failed: a live exchange broke; its client knows
    OUTCOME_UNKNOWN = "outcome_unknown"  # failed: reached the agent, no answer; it may have run
    AGENT_REMOVED = "agent_removed"  # failed


class ReplayPolicy(StrEnum):
    """What may be sent to an agent a second time; docs/requests.md has the table."""

    AUTO = "auto"
    SAFE = "safe"
    AT_LEAST_ONCE = "at_least_once"
    NEVER = "never"


IDEMPOTENT_METHODS = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE", b"QUERY"))
"""RFC 9110 9.2.2, and QUERY (RFC 10008)."""

RETRIED_STATUSES = frozenset((408, 425, 429, 502, 503, 504))
"""Answers of an agent to a replay that say "not now"; every other one completes it."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """`Idempotency-Key` of a request: `scope` is SHA-256(agent id, key) in hex, `fingerprint` SHA-256(method, target, body)."""

    scope: str
    fingerprint: str


class Record(msgspec.Struct, gc=False, eq=False):
    """One request that the journal keeps.

    Attributes:
        id: UUID text; what `X-Agentainer-Request-ID` says.
        agent_id: the agent it is for.
        head: the request line and header lines as the agent gets them, CRLF-ended, without the empty line; hop-by-hop
            and framing fields removed, ours (X-Forwarded-*, Via, traceparent, X-Agentainer-Request-ID) added. The one
            who sends it adds the framing: Content-Length, where there is a body or the method has one.
        body: the whole body where it is at most MAX_INLINE_BODY_BYTES, else b"".
        spool: name of the file in the spool folder that holds a larger body, or "".
        body_bytes: length of the body; -1 where it was not stored whole, and so can't be replayed.
        method: as in the head.
        target: the raw target that the client asked for (with /agent/<ref>), for people.
        client: address of the client, for people.
        received_at, expires_at: epoch seconds, UTC.
        policy: of the agent, when the request came.
        key: its idempotency key, or None.
        attempt: how often it was sent to the agent, this time included.
        maybe_duplicate: an earlier attempt may have run.
        max_pending, max_pending_bytes: bounds of the agent's queue.
        seq: order of arrival within the journal; 0 until the journal gave one.
        lease: written by the journal alone: 0 not recorded, -1 recorded as live, -2 accepted or settled, above 0 held as a
            full record by this number, which every word about it must carry.
    """

    id: str
    agent_id: str
    head: bytes
    method: bytes
    target: bytes
    received_at: float
    expires_at: float
    body: bytes = b""
    spool: str = ""
    body_bytes: int = 0
    client: str = ""
    policy: ReplayPolicy = ReplayPolicy.AUTO
    key: IdempotencyKey | None = None
    attempt: int = 1
    maybe_duplicate: bool = False
    max_pending: int = defaults.MAX_PENDING
    max_pending_bytes: int = defaults.MAX_PENDING_BYTES
    seq: int = 0
    lease: int = 0

    @property
    def is_repeatable(self) -> bool:
        """Sending it twice is the sender's own wish or harmless: an idempotent method, or an Idempotency-Key."""
        return self.method in IDEMPOTENT_METHODS or self.key is not None

    @property
    def is_replayable(self) -> bool:
        """The journal holds all of it."""
        return self.body_bytes >= 0


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """An agent's answer as the journal keeps it.

    `head` is the status line and the end-to-end header lines, CRLF-ended, without the empty line and without framing
    fields. `truncated`: the body was longer than MAX_STORED_RESPONSE_BYTES and is not here whole.
    """

    status: int
    head: bytes
    body: bytes
    truncated: bool = False


class KeyVerdict(StrEnum):
    """What the journal knows of an idempotency key."""

    NEW = "new"  # reserved for this record, which is now processing/live
    DONE = "done"  # answered: `KeyAnswer.response`
    PENDING = "pending"  # queued: same 202, same id
    IN_FLIGHT = "in_flight"  # the first one runs: 409
    MISMATCH = "mismatch"  # another request under the same key: 422
    FAILED = "failed"  # the first one was answered, but its answer is not stored any more


@dataclass(frozen=True, slots=True)
class KeyAnswer:
    """The answer of `Journal.reserve`: the id is that of the request which holds the key."""

    verdict: KeyVerdict
    request_id: str
    response: StoredResponse | None = None


class Outcome(msgspec.Struct, frozen=True):
    """How a request ended; what `Journal.settle` writes.

    `state` is completed or failed. `status` is the agent's, 0 where there was none. `response` is kept only for
    queued and keyed requests. `error` is a sentence for people.
    """

    state: RequestState
    reason: Reason
    status: int = 0
    response_bytes: int = 0
    duration_s: float = 0.0
    error: str = ""
    response: StoredResponse | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of an agent's request list, whatever state the request is in. Times are epoch seconds."""

    id: str
    agent_id: str
    state: RequestState
    reason: Reason
    method: str
    target: str
    received_at: float
    request_bytes: int
    attempts: int
    finished_at: float = 0.0
    next_attempt_at: float = 0.0
    expires_at: float = 0.0
    status: int = 0
    response_bytes: int = 0
    duration_s: float = 0.0
    error: str = ""
    maybe_duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Detail:
    """One request whole: its summary, what was asked, and what was answered (None: nothing is stored)."""

    summary: Summary
    head: bytes
    body: bytes
    spool: str
    response: StoredResponse | None
