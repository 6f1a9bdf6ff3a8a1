"""Requests in HTTP/1.1. No sockets, no clock.

A reader gets bytes as they come (`feed`) and keeps messages; it never looks back and never raises: what is wrong with
a message is in its `fault`. A head that is here whole and plain is taken line by line (fields.py: `Lines`); everything else
goes to httptools (llhttp, strict), with the checks that it leaves out. Heads are rebuilt from fields, never copied, so
nothing ambiguous is passed on.
"""

import re
from collections import deque

import httptools

from agentainerd import defaults
from agentainerd.proxy.fields import (
    ACCEPT,
    AUTHORIZATION,
    CODING,
    CONNECTION,
    DROP,
    EXPECT,
    FORWARDED,
    HOST,
    KEY,
    LENGTH,
    MAX_CACHED_NAMES,
    ORIGIN,
    PASS,
    PREFER,
    REQUEST_NAMES,
    TRACEPARENT,
    UPGRADE,
    VIA,
    Field,
    Lines,
    field,
)
from agentainerd.proxy.request import Fault, Request

CHUNK_FRAME = 24
"""Bytes around a piece of a chunked body that are no extension: its size (zeros before it included) and two CRLF."""


MAX_BLANK_BYTES = 64
"""Empty lines before a request, which a server should skip (RFC 9112 2.2), and which keep a connection from being idle."""

_REQUEST_LINE = re.compile(rb"(GET|POST|HEAD|PUT|DELETE|PATCH|OPTIONS) (/[!\"$-~]*) HTTP/1\.1")
_lines = Lines(REQUEST_NAMES, max_line_bytes=defaults.MAX_HEADER_LINE_BYTES)


class RequestReader:
    """The requests of one connection, in order; `requests` holds those whose head is whole."""

    __slots__ = (
        "_blank",
        "_current",
        "_left",
        "_overhead",
        "_parser",
        "_raw",
        "_slack",
        "_trailer_bytes",
        "broken",
        "rest",
        "requests",
    )

    def __init__(self) -> None:
        self._parser: httptools.HttpRequestParser | None = None
        self._left = 0
        self._current: Request | None = None
        self._raw = b""
        self._slack = self._overhead = self._trailer_bytes = self._blank = 0
        self.requests: deque[Request] = deque()
        self.broken: Fault | None = None
        self.rest = b""
        """After an upgrade: the bytes behind its head."""

    @property
    def idle(self) -> bool:
        """Nothing of a further request has arrived."""
        return self._current is None and not self.requests

    def feed(self, data: bytes) -> None:
        """Take bytes of the connection; look at `requests` and `broken` afterwards."""
        while data:
            if self._left:
                data = self._take_body(data)
                continue
            rest = self._read_head(data) if self._current is None else None
            if rest is None:
                self._parse(data)
                return
            data = rest

    def _read_head(self, data: bytes) -> bytes | None:
        """Take a plain head that `data` begins with; return what follows its request, or None: it is the parser's."""
        end = data.find(b"\r\n\r\n")
        if end < 0 or end + 4 > defaults.MAX_HEAD_BYTES or self.broken is not None:
            return None
        raw = data[:end].split(b"\r\n")
        line = _REQUEST_LINE.fullmatch(raw[0])
        if line is None or len(raw) > defaults.MAX_HEADERS or len(raw[0]) > defaults.MAX_TARGET_BYTES:
            return None
        known = _lines
        fields = [known[each] for each in raw[1:]]
        if None in fields:
            return None
        request = Request(line[1], line[2], head_done=True)
        try:
            _read_fields(request, fields)  # type: ignore[arg-type]
        except Fault as fault:
            request.fault = fault
        self.requests.append(request)
        end += 4
        if request.length <= 0:
            request.done = True
            return data[end:]
        self._left = request.length
        self._current = request
        return self._take_body(data[end:])

    def _take_body(self, data: bytes) -> bytes:
        """Take of a body of known length what is here; return what follows it."""
        current, left = self._current, self._left
        assert current is not None
        if len(data) < left:
            self._left = left - len(data)
            if data:
                current.pieces.append(data)
            return b""
        current.pieces.append(data if len(data) == left else data[:left])
        current.done = True
        self._left = 0
        self._current = None
        return data[left:]

    def _parse(self, data: bytes) -> None:
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        begun = self._current
        held = 0
        if begun is None:
            self._raw = data
        elif begun.head_done:
            self._raw = data  # the head of a next request may begin in it
            held = len(begun.pieces)
        else:
            self._raw += data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.rest = data[upgrade.args[0] :]
            self.requests[-1].keep_alive = False  # what follows is no HTTP, whatever the answer
        except httptools.HttpParserError as error:
            self._break(error)
        current = self._current
        if current is not None:
            self._measure(current, begun, len(data), held)
        elif begun is None and not self.requests and not data.strip(b"\r\n"):
            self._blank += len(data)
            if self._blank > MAX_BLANK_BYTES:
                self.broken = Fault(400, "too many empty lines before a request")

    def _measure(self, current: Request, begun: Request | None, size: int, held: int) -> None:
        """Bound the request that is not whole yet. `begun`: the one that was not whole before the last `size` bytes."""
        if not current.head_done:
            if current is not begun:
                self._slack = size if begun is not None or self.requests else 0
            if len(self._raw) - self._slack > defaults.MAX_HEAD_BYTES:
                self._refuse(current, Fault(431 if current.headers else 414, "the head of the request is too large"))
        elif current is begun and current.chunked:
            self._count_overhead(current, size, held)

    def _count_overhead(self, current: Request, size: int, held: int) -> None:
        """Bound what comes beside a chunked body and is dropped: extensions, and trailers that are not whole yet."""
        extra = self._overhead + size
        for piece in current.pieces[held:]:
            extra -= len(piece) + CHUNK_FRAME
        self._overhead = extra if extra > 0 else 0
        if extra > defaults.MAX_CHUNK_EXTENSION_BYTES + defaults.MAX_TRAILER_BYTES:
            self._refuse(current, Fault(431, "chunk extensions and trailers are too large"))

    def _refuse(self, current: Request, fault: Fault) -> None:
        self.broken = self.broken or fault
        current.fault = current.fault or fault

    def _break(self, error: Exception) -> None:
        text = str(error.args[0]) if error.args else str(error)
        if isinstance(error, httptools.HttpParserInvalidMethodError):
            text = "the method is not one of HTTP's"
        self.broken = Fault(400, f"malformed HTTP: {text}")

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Start the next request."""
        self._current = Request()
        self._blank = 0

    def on_url(self, url: bytes) -> None:
        """Collect the target, which may come in pieces."""
        self._current.target += url  # type: ignore[union-attr]

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field; what comes after the head is a trailer, and is dropped."""
        current = self._current
        assert current is not None
        if not current.head_done:
            current.headers.append((name, value))
            return
        self._trailer_bytes += len(name) + len(value)
        if self._trailer_bytes > defaults.MAX_TRAILER_BYTES:
            self._refuse(current, Fault(431, f"the trailers are longer than {defaults.MAX_TRAILER_BYTES} bytes"))

    def on_headers_complete(self) -> None:
        """Check the head and hand the request over."""
        current = self._current
        assert current is not None
        assert self._parser is not None
        current.method = self._parser.get_method()
        version = self._parser.get_http_version()
        current.minor = 1 if version == "1.1" else 0
        current.head_done = True
        try:
            if version not in ("1.1", "1.0"):
                raise Fault(400, "the version is not one of HTTP/1")  # 0.9: a line without one is a request, to llhttp
            _check_line(current, self._raw)
            current.keep_alive = current.minor == 1
            _read_fields(current, [_field(name, value) for name, value in current.headers])
            if current.chunked:
                self._overhead = self._trailer_bytes = 0
            if current.upgrade and not (version == "1.1" and self._parser.should_upgrade()):
                current.upgrade = b""  # RFC 9110 7.8: it counts where Connection names it
        except Fault as fault:
            current.fault = fault
        self.requests.append(current)

    def on_body(self, piece: bytes) -> None:
        """Keep a piece of the body until it is taken."""
        self._current.pieces.append(piece)  # type: ignore[union-attr]

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._current.done = True  # type: ignore[union-attr]
        self._current = None


def _check_line(request: Request, raw: bytes) -> None:
    """Check what llhttp lets pass: it is generous with spaces, and knows RTSP and ICE."""
    target = request.target
    if b"%b %b HTTP/1.%d\r\n" % (request.method, target, request.minor) not in raw:
        raise Fault(400, "malformed request line")
    if len(raw) > defaults.MAX_HEAD_BYTES and _head_size(request) > defaults.MAX_HEAD_BYTES:
        raise Fault(431, f"the head of the request is longer than {defaults.MAX_HEAD_BYTES} bytes")
    if len(target) > defaults.MAX_TARGET_BYTES:
        raise Fault(414, f"the target is longer than {defaults.MAX_TARGET_BYTES} bytes")
    if b"#" in target:
        raise Fault(400, "the target has a fragment")


def _head_size(request: Request) -> int:
    fields = sum(len(name) + len(value) + 4 for name, value in request.headers)
    return len(request.method) + len(request.target) + 12 + fields + 2


def _field(name: bytes, value: bytes) -> Field:
    if len(value) > defaults.MAX_HEADER_LINE_BYTES or len(name) > 256:
        raise Fault(431, f"a header field is longer than {defaults.MAX_HEADER_LINE_BYTES} bytes")
    return field(REQUEST_NAMES, name, value)


def _read_fields(request: Request, fields: list[Field]) -> None:
    if len(fields) > defaults.MAX_HEADERS:
        raise Fault(431, f"more than {defaults.MAX_HEADERS} header fields")
    lines = request.lines
    dropped: tuple[bytes, ...] = ()
    for kind, line, name, value in fields:
        if kind == PASS:
            lines.append(line)
        elif kind == CONNECTION:
            dropped += _read_connection(request, value)
        elif kind != DROP:
            _read_special(request, kind, name, value)
            if kind not in _TAKEN:
                lines.append(line)
    if request.host is None and request.minor == 1:
        raise Fault(400, "no Host")
    if dropped:
        drop_fields(lines, dropped)
        request.traced = request.traced and b"traceparent" not in dropped


_CREDENTIALS = re.compile(rb"[^\t ]+(?: +[^\t ].*)?")  # RFC 9110 11.4: scheme, spaces, the rest
_TAKEN = frozenset((LENGTH, CODING, EXPECT, UPGRADE, FORWARDED))  # not passed on, or made anew


def _read_special(request: Request, kind: int, name: bytes, value: bytes) -> None:  # noqa: C901, PLR0912, PLR0915 - one case a field
    if kind == HOST:
        if request.host is not None:
            raise Fault(400, "more than one Host")
        if not _is_host(value):
            raise Fault(400, "Host is not a host")
        request.host = value
    elif kind == LENGTH:
        if request.length >= 0:
            raise Fault(400, "more than one Content-Length")
        request.length = int(value)
    elif kind == CODING:
        if value.lower() != b"chunked" or request.minor == 0:
            raise Fault(400, "Transfer-Encoding must be chunked, and HTTP/1.1")
        request.chunked = True
    elif kind == EXPECT:
        if value.lower() != b"100-continue":
            raise Fault(417, "the only expectation that is met is 100-continue")
        request.expects_continue = request.minor == 1
    elif kind == UPGRADE:
        protocols = [each.strip() for each in value.split(b",")]
        request.upgrade = b", ".join(each for each in protocols if not each.lower().startswith((b"h2", b"http")))
    elif kind == AUTHORIZATION:
        if request.authorization is not None:
            raise Fault(400, "more than one Authorization")
        if b"\t" in value and not _CREDENTIALS.fullmatch(value):
            raise Fault(400, "Authorization has a tab where there must be a space")
        request.authorization = value
    elif kind == KEY:
        if request.key is not None:
            raise Fault(400, "more than one Idempotency-Key")
        request.key = value
    elif kind == ORIGIN:
        if request.origin is not None:
            raise Fault(400, "more than one Origin")
        request.origin = value
    elif kind == PREFER:
        request.prefer += b"," + value
    elif kind == ACCEPT:
        request.accepts_events = request.accepts_events or b"text/event-stream" in value.lower()
    elif kind == VIA:
        request.own_vias += value.count(b"agentainer")
    elif kind == TRACEPARENT:
        request.traced = True
    elif kind == FORWARDED:
        request.forwarded += ((name.lower(), value),)


def _read_connection(request: Request, value: bytes) -> tuple[bytes, ...]:
    """Take `Connection`: it may close or keep alive; any other name in it is a field that must not be passed on."""
    lower = value.lower()
    if lower == b"keep-alive":
        request.keep_alive = True
        return ()
    tokens = {token.strip() for token in lower.split(b",")}
    if b"close" in tokens:
        request.keep_alive = False
    elif b"keep-alive" in tokens:
        request.keep_alive = True
    # Fields that the request is forwarded by are not the sender's to remove (CVE-2024-45410).
    return tuple(
        tokens - {b"close", b"keep-alive", b"upgrade", b"host", b"authorization", b"content-length", b"via", b""}
    )


def drop_fields(lines: list[bytes], names: tuple[bytes, ...]) -> None:
    """Take the fields of these names (lower case) out of a list of lines."""
    lines[:] = [line for line in lines if line[: line.index(b":")].lower() not in names]


def strip_authority(request: Request) -> bytes:
    """Return the target without scheme and host; its host must be the one in Host (RFC 9112 3.2.2)."""
    target = request.target
    if target.startswith(b"/") or (target == b"*" and request.method == b"OPTIONS"):
        return target
    scheme, mark, rest = target.partition(b"://")
    authority, slash, path = rest.partition(b"/")
    query = b""
    if not slash and b"?" in authority:
        authority, _, query = authority.partition(b"?")
        query = b"?" + query
    if not mark or scheme.lower() != b"http" or (request.host is not None and authority != request.host):
        raise Fault(400, "the target is neither a path nor an address of this host")
    request.target = b"/" + path + query
    return request.target


_HOST_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_~:[]%!$&'()*+,;=")
_known_hosts: dict[bytes, bool] = {}


def _is_host(value: bytes) -> bool:
    known = _known_hosts.get(value)
    if known is None:
        known = _HOST_BYTES.issuperset(value) and len(value) <= 512
        if len(_known_hosts) < MAX_CACHED_NAMES:
            _known_hosts[value] = known
    return known
