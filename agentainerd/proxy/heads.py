"""Heads on their way through: what the agent gets of a request's, the client of an answer's, the journal of both."""

from enum import Enum
from typing import TYPE_CHECKING, Final

from agentainerd.proxy.request import Request
from agentainerd.proxy.response import Answer

if TYPE_CHECKING:
    from agentainerd.proxy.connection import Connection


class Framing(Enum):
    """How the client learns where the answer ends."""

    NONE = 0
    LENGTH = 1
    CHUNKED = 2
    CLOSE = 3


# Members by names of their own: Python 3.11 looks each one up in a map, in Python.
_NONE: Final = Framing.NONE
_LENGTH: Final = Framing.LENGTH
_CHUNKED: Final = Framing.CHUNKED


def request_head(request: Request, path: bytes, *, prefix: bytes, connection: "Connection", request_id: str) -> bytes:
    """Return the head that an agent gets: end-to-end fields as they came, then ours; no framing, no empty line."""
    lines = [request.method, b" ", path, b" HTTP/1.1\r\n"]
    if request.host is None:
        lines.append(b"Host: localhost\r\n")
    lines += request.lines
    lines.append(connection.forwarded_fields(request))
    if request.host is not None:
        lines += (b"X-Forwarded-Host: ", request.host, b"\r\n")
    ident = request_id.encode()
    if prefix:
        lines += (b"X-Forwarded-Prefix: ", prefix, b"\r\n")
    if not request.traced:
        trace = ident.replace(b"-", b"")
        lines += (b"traceparent: 00-", trace, b"-", trace[8:24], b"-01\r\n")
    lines += (b"X-Agentainer-Request-ID: ", ident, b"\r\n")
    return b"".join(lines)


def answer_head(
    answer: Answer, request: Request, *, request_id: str, prefix: bytes, keep: bool, missed: bool
) -> tuple[bytes, Framing]:
    """Return the head that the client gets, and how the body behind it is framed.

    `prefix` confines cookies to the agent's path. `missed`: the journal is away, and the answer says so.
    """
    lines = [answer.line, *answer.lines]
    for cookie in answer.cookies:
        lines += (b"Set-Cookie: ", confined(cookie, prefix), b"\r\n")
    framing = _NONE
    if not answer.no_body:
        if answer.length >= 0:
            framing = _LENGTH
        elif request.minor == 1:
            framing = _CHUNKED
            lines.append(b"Transfer-Encoding: chunked\r\n")
        else:
            framing, keep = Framing.CLOSE, False
    if answer.length >= 0 and answer.status != 204:
        lines.append(b"Content-Length: %d\r\n" % answer.length)
    if not keep:
        lines.append(b"Connection: close\r\n")
    elif request.minor == 0:
        lines.append(b"Connection: keep-alive\r\n")
    if missed:
        lines.append(b"X-Agentainer-Journal: unavailable\r\n")
    lines += (b"Via: 1.1 agentainer\r\nX-Agentainer-Request-ID: ", request_id.encode(), b"\r\n\r\n")
    return b"".join(lines), framing


def stored_head(answer: Answer) -> bytes:
    """Return the answer's head as the journal keeps it: no framing, no empty line."""
    cookies = [b"Set-Cookie: %b\r\n" % cookie for cookie in answer.cookies]
    return b"".join([answer.line, *answer.lines, *cookies])


def confined(cookie: bytes, prefix: bytes) -> bytes:
    """Return a Set-Cookie value that holds for the agent only, whose path or, without `prefix`, host it came by.

    All agents and the API share one origin, and the hosts of agents a domain.
    """
    parts = [part.strip() for part in cookie.split(b";")]
    kept, path = [parts[0]], b""
    for part in parts[1:]:
        name, _, value = part.partition(b"=")
        lower = name.strip().lower()
        if prefix and lower == b"path":
            path = value if value.startswith(b"/") else path
        elif lower != b"domain":
            kept.append(part)
    if prefix:
        kept.append(b"Path=" + prefix + (path or b"/"))
    return b"; ".join(kept)


def framed(head: bytes, body: bytes, framing: Framing) -> bytes:
    """Return a whole answer: its head, and its body as the client expects it."""
    if framing is _CHUNKED:
        return b"%b%x\r\n%b\r\n0\r\n\r\n" % (head, len(body), body) if body else head + LAST_CHUNK
    return head + body if body else head


def chunk(piece: bytes) -> bytes:
    """Return a piece of a body as a chunk; nothing of nothing, which would be the last one."""
    return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""


LAST_CHUNK = b"0\r\n\r\n"
