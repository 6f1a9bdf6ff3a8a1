"""The shapes of what is packed (packing.py): MessagePack arrays, the fields in this order."""

import msgspec

from agentainerd.model.requests import IDEMPOTENT_METHODS, Reason, ReplayPolicy


class Live(msgspec.Struct, frozen=True, array_like=True):
    """A live record, whole."""

    method: bytes
    target: bytes
    client: str
    received_at: float
    expires_at: float
    policy: ReplayPolicy
    body_bytes: int
    spool: str
    seq: int
    attempt: int
    maybe_duplicate: bool
    head: bytes
    body: bytes


class Meta(msgspec.Struct, frozen=True, array_like=True):
    """What never changes of a full record; the fields are those of Record."""

    method: bytes
    target: bytes
    client: str
    received_at: float
    policy: ReplayPolicy
    body_bytes: int
    fingerprint: str

    @property
    def is_repeatable(self) -> bool:
        """Sending it twice is the sender's own wish or harmless, as Record.is_repeatable."""
        return self.method in IDEMPOTENT_METHODS or self.fingerprint != ""


class Past(msgspec.Struct, frozen=True, array_like=True):
    """The summary of a completed request."""

    id: str
    method: bytes
    target: bytes
    received_at: float
    body_bytes: int
    attempts: int
    finished_at: float
    reason: Reason
    status: int
    response_bytes: int
    duration_s: float
    maybe_duplicate: bool


class Result(msgspec.Struct, frozen=True, array_like=True):
    """The figures of an outcome."""

    status: int
    response_bytes: int
    duration_s: float


class Response(msgspec.Struct, frozen=True, array_like=True):
    """An agent's answer."""

    status: int
    head: bytes
    body: bytes
    truncated: bool
