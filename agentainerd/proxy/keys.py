"""Idempotency keys: what a key is, which request it names, and what a second request under it is told.

The draft is draft-ietf-httpapi-idempotency-key-header-07, which became no RFC; a bare token is taken beside its string.
"""

import hashlib
import re

from agentainerd.model.requests import IdempotencyKey, Record, StoredResponse
from agentainerd.proxy import heads, replies
from agentainerd.proxy.body import Body
from agentainerd.proxy.journal import KeyVerdict

_KEY = re.compile(rb'"?([\x20-\x7e]{1,255}?)"?')
_COOKIE = re.compile(rb"(?m)^(Set-Cookie: )([^\r\n]*)")
_REFUSALS = {
    KeyVerdict.MISMATCH: replies.KEY_MISMATCH,
    KeyVerdict.IN_FLIGHT: replies.KEY_IN_FLIGHT,
    KeyVerdict.FAILED: replies.KEY_FAILED,
}


def read(value: bytes) -> bytes | None:
    """Return the key that a field's value holds, or None where it is no key."""
    match = _KEY.fullmatch(value)
    return match.group(1) if match else None


def identify(record: Record, body: Body, key: bytes) -> IdempotencyKey:
    """Return what the journal compares: the key within its agent, and a fingerprint of the whole request."""
    fingerprint = hashlib.sha256(b"%b %b\n" % (record.method, record.target))
    for piece in body.again():
        fingerprint.update(piece)
    scope = hashlib.sha256(record.agent_id.encode() + b"\0" + key)
    return IdempotencyKey(scope.hexdigest(), fingerprint.hexdigest())


def refusal(verdict: KeyVerdict) -> replies.Reply:
    """Return what a request is told whose key is taken, and whose first answer can't be repeated."""
    return _REFUSALS.get(verdict, replies.KEY_NOT_STORED)


def repeated(response: StoredResponse, request_id: str, *, prefix: bytes, close: bool, head_only: bool) -> bytes:
    """Return the first answer once more; its cookies as of an answer that came by `prefix`."""
    fields = b"Idempotent-Replayed: true\r\nX-Agentainer-Request-ID: %b\r\n" % request_id.encode()
    if close:
        fields += b"Connection: close\r\n"
    stored = _COOKIE.sub(lambda found: found[1] + heads.confined(found[2], prefix), response.head)
    head = b"%bContent-Length: %d\r\n%b\r\n" % (stored, len(response.body), fields)
    return head if head_only else head + response.body
