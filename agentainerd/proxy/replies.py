"""Answers of the gateway's own: the one table of what it says and with which status. None of them is an agent's.

The body is the API's envelope. `Proxy-Status` (RFC 9209) says the same for programs; every answer carries
`X-Agentainer-Request-ID`, so that a person who has it can ask for the record.
"""

import json
from dataclasses import dataclass
from http import HTTPStatus

PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Reply:
    """What to say: status, the stable code, a sentence, and the error type of RFC 9209.

    `is_reached`: the request was with the agent.
    """

    status: int
    code: str
    message: str
    proxy_error: str = ""
    retry_after_s: int | None = None
    is_reached: bool = False


NOT_RUNNING = Reply(503, "AGENT_NOT_RUNNING", "Agent is not running", "destination_unavailable", 5)
CANNOT_QUEUE = Reply(
    503,
    "AGENT_NOT_RUNNING",
    "Agent is not running, and an upgrade or an event stream can't be queued",
    "destination_unavailable",
    5,
)
TOO_LARGE_TO_QUEUE = Reply(
    413, "TOO_LARGE_TO_QUEUE", "Agent is not running, and the body is too large to be queued (limit 10 MiB)"
)
NOT_YET = Reply(503, "STARTING", "agentainerd is starting; its agents are not known yet", "proxy_internal_response", 1)
NO_CONTROL_API = Reply(503, "API_UNAVAILABLE", "the control API does not answer", "destination_unavailable", 1)
JOURNAL_DOWN = Reply(
    503, "JOURNAL_UNAVAILABLE", "the journal is away and the request was not taken", "proxy_internal_error", 2
)
NO_ANSWER = Reply(
    502,
    "OUTCOME_UNKNOWN",
    "Agent closed the connection without an answer; the request may have run, and is not sent again",
    "connection_terminated",
    is_reached=True,
)
TIMED_OUT = Reply(
    504,
    "OUTCOME_UNKNOWN",
    "Agent gave no answer in time; the request may have run, and is not sent again",
    "http_response_timeout",
    is_reached=True,
)
DIED = Reply(
    502,
    "OUTCOME_UNKNOWN",
    "Agent died while it had the request; it may have run, and is not sent again",
    "connection_terminated",
    is_reached=True,
)
LOST = Reply(
    502,
    "OUTCOME_UNKNOWN",
    "Agent went away while it had the request; it may have run, and could not be queued",
    "connection_terminated",
    is_reached=True,
)
BAD_ANSWER = Reply(502, "BAD_ANSWER", "Agent did not answer in HTTP", "http_protocol_error", is_reached=True)
TOKEN_MISSING = Reply(
    401, "UNAUTHORIZED", "This agent asks for its token: Authorization: Bearer ...", "http_request_denied"
)
TOKEN_NOT_FOR_THIS = Reply(
    400,
    "TOKEN_NOT_FOR_THIS_AGENT",
    "This token is for other agents, or this agent asks for none; it was not passed on",
    "http_request_denied",
)
TOKEN_EXPIRED = Reply(401, "TOKEN_EXPIRED", "The time of this token is over", "http_request_denied")
CONTROL_TOKEN = Reply(
    400,
    "CONTROL_TOKEN_ON_AGENT_PATH",
    "A control token was sent to an agent's path; it was not passed on. Take it out, and rotate it if others saw it",
    "http_request_denied",
)
NO_SESSION = Reply(
    401,
    "UNAUTHORIZED",
    "This port asks for a token: open the address that `agentainerctl open` prints, or send Authorization: Bearer ...",
    "http_request_denied",
)
LOGIN_OVER = Reply(
    401,
    "LOGIN_OVER",
    "This address was used before, or is too old, or a token in it is wrong: `agentainerctl open` prints a new one",
    "http_request_denied",
)
NO_HOST_OF_ITS_OWN = Reply(
    400,
    "NO_HOST_OF_ITS_OWN",
    "A browser opens this port under a name of its own, which this address has not: use localhost, or set server.domain",
    "http_request_denied",
)
PORT_CLOSED = Reply(
    503, "PORT_CLOSED", "Agent runs, and nothing answers at this port of it yet", "connection_refused", 2
)
BUSY = Reply(
    503,
    "AGENT_BUSY",
    "Agent has as many requests in flight as one may have (server.max_in_flight)",
    "connection_limit_reached",
    1,
)
LOOP = Reply(508, "LOOP", "The request went through agentainerd too often", "proxy_loop_detected")
KEY_INVALID = Reply(400, "IDEMPOTENCY_KEY_INVALID", "Idempotency-Key must be 1 to 255 printable characters")
KEY_MISMATCH = Reply(422, "IDEMPOTENCY_KEY_REUSED", "Idempotency-Key was used with another request")
KEY_IN_FLIGHT = Reply(
    409, "IDEMPOTENCY_KEY_IN_FLIGHT", "The first request with this Idempotency-Key is still running", "", 1
)
KEY_FAILED = Reply(
    409, "IDEMPOTENCY_KEY_FAILED", "The first request with this Idempotency-Key ended without an answer; use a new key"
)
KEY_NOT_STORED = Reply(
    409, "IDEMPOTENT_ANSWER_NOT_STORED", "The first answer to this Idempotency-Key was too large to be kept"
)
KEY_BODY_TOO_LARGE = Reply(
    413, "TOO_LARGE_FOR_KEY", "A request with an Idempotency-Key can have a body of at most 10 MiB"
)
BODY_TOO_LARGE_TO_KEEP = Reply(
    503, "NOT_KEPT", "Agent went away, and the body could not be kept for later", "destination_unavailable", 5
)
HOST_NOT_ALLOWED = Reply(
    403,
    "HOST_NOT_ALLOWED",
    "No agent is addressed by this Host: use localhost or an IP address, or add the name to server.allowed_hosts",
    "http_request_denied",
)
ORIGIN_NOT_ALLOWED = Reply(
    403,
    "ORIGIN_NOT_ALLOWED",
    "Pages of this Origin may not use agents: add it to server.allowed_origins",
    "http_request_denied",
)
METHOD_NOT_ALLOWED = Reply(405, "METHOD_NOT_ALLOWED", "CONNECT is not served here")


QUEUED = "Agent is not running. Request queued for replay when agent starts."
QUEUED_READY = "Request queued; it is delivered to the agent in its turn."


def accepted(text: str, request_id: str, location: str, *, fields: bytes, close: bool, head_only: bool) -> bytes:
    """The promise: 202, where its outcome will be, and when to look."""
    content: dict[str, object] = {
        "success": True,
        "message": text,
        "data": {"request_id": request_id, "status": "pending"},
    }
    fields += b"Location: %b\r\nRetry-After: 2\r\n" % location.encode()
    return message(202, content, request_id, fields=fields, close=close, head_only=head_only)


def too_many_logins(wait_s: int) -> Reply:
    """An address that was wrong too often; it is heard again after `wait_s`."""
    message = "Too many wrong tokens came from this address"
    return Reply(429, "TOO_MANY_FAILED_LOGINS", message, "http_request_denied", wait_s)


def not_found(ref: str) -> Reply:
    """An agent that nobody knows."""
    return Reply(404, "AGENT_NOT_FOUND", f"Agent not found: {ref}", "destination_not_found")


def malformed(status: int, reason: str) -> Reply:
    """A request that is not taken for its form; the connection closes behind it."""
    codes = {
        408: "REQUEST_TIMEOUT",
        413: "TOO_LARGE",
        414: "TARGET_TOO_LONG",
        417: "EXPECTATION_FAILED",
        429: "TOO_MANY_CONNECTIONS",
        431: "HEAD_TOO_LARGE",
    }
    return Reply(status, codes.get(status, "MALFORMED_REQUEST"), reason, "http_request_error")


def refused(status: int, code: str, message: str, retry_after_s: int | None) -> Reply:
    """The journal did not take a request."""
    return Reply(status, code, message, "proxy_internal_error", retry_after_s)


def encode(
    reply: Reply, request_id: str, *, fields: bytes = b"", close: bool = False, head_only: bool = False
) -> bytes:
    """Return the whole answer. `fields` are further header lines, CRLF-ended."""
    content = {"success": False, "message": reply.message, "error": reply.message, "code": reply.code}
    if reply.proxy_error:
        fields += b"Proxy-Status: agentainer; error=%b\r\n" % reply.proxy_error.encode()
    if reply.retry_after_s is not None:
        fields += b"Retry-After: %d\r\n" % reply.retry_after_s
    return message(reply.status, content, request_id, fields=fields, close=close, head_only=head_only)


def message(
    status: int,
    content: dict[str, object],
    request_id: str,
    *,
    fields: bytes = b"",
    close: bool = False,
    head_only: bool = False,
) -> bytes:
    """Return an answer with a JSON body."""
    body = json.dumps(content, separators=(",", ":")).encode() + b"\n"
    start = head(status, len(body), request_id, fields=fields, close=close)
    return start if head_only else start + body


def head(status: int, length: int, request_id: str, *, fields: bytes = b"", close: bool = False) -> bytes:
    """Return the head of an answer whose body is JSON of `length` bytes."""
    return (
        b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nX-Agentainer-Request-ID: %b\r\n%b%b\r\n"
        % (
            status,
            PHRASES.get(status, b"Unknown"),
            length,
            request_id.encode(),
            fields,
            b"Connection: close\r\n" if close else b"",
        )
    )
