"""Answers of agents in HTTP/1.1, read as strictly as requests: a hostile agent must not reach the next client."""

import re

import httptools

from agentainerd import defaults
from agentainerd.proxy.fields import (
    ANSWER_NAMES,
    CODING,
    CONNECTION,
    COOKIE,
    LENGTH,
    MAX_KNOWN_LINES,
    PASS,
    Field,
    Lines,
    field,
)
from agentainerd.proxy.http1 import CHUNK_FRAME, drop_fields
from agentainerd.proxy.request import Fault
from agentainerd.proxy.wire import PIECE

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2}) [\t\x20-\x7e\x80-\xff]{0,128}")
_lines = Lines(ANSWER_NAMES, max_line_bytes=defaults.MAX_HEADER_LINE_BYTES)
_statuses: dict[bytes, tuple[int, bytes]] = {}
_PHRASE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
HEAD_END = b"\r\n\r\n"
_OPTIONS = {b"close", b"keep-alive", b"upgrade", b""}


def _status(line: bytes) -> tuple[int, bytes] | None:
    """Return the status that a status line says, and the line as it is passed on; None: it is the parser's."""
    known = _statuses.get(line)
    if known is None:
        found = _STATUS_LINE.fullmatch(line)
        if found is None:
            return None
        known = int(found[1]), line + b"\r\n"
        if len(_statuses) < MAX_KNOWN_LINES:
            _statuses[line] = known
    return known


class Answer:
    """The answers of one connection to an agent, one after the other; also the parser's protocol.

    `reset` makes it ready for the next one. `head_done`: what follows here is known. `line` and `lines` are the status line
    and the end-to-end fields, each whole with its CRLF; `fields` are all of them.
    `length` -1: none; then it is chunked, or ends with the connection. `pieces`: of the body, not yet taken. `done`: the
    answer is whole. `overrun`: there were bytes behind its end. `interim`: heads of 1xx answers, as they are to be
    passed on. `switched`: the agent changed the protocol, and `rest` is the beginning of what it says in it.
    """

    __slots__ = (
        "_fresh", "_head_bytes", "_headers", "_heads", "_interims", "_may_switch", "_over", "_overhead", "_parser", "_phrase",
        "_raw_left", "_whole", "chunked", "cookies", "done", "fields", "head_done", "interim", "keep_alive", "length",
        "line", "lines", "no_body", "overrun", "pieces", "rest", "status", "switched",
    )  # fmt: skip
    chunked: bool
    cookies: list[bytes]
    done: bool
    fields: list[Field]
    head_done: bool
    interim: list[bytes]
    keep_alive: bool
    length: int
    line: bytes
    lines: list[bytes]
    no_body: bool
    overrun: bool
    pieces: list[bytes]
    rest: bytes
    status: int
    switched: bool

    def __init__(self) -> None:
        self._parser: httptools.HttpResponseParser | None = None
        self._whole = True
        self._heads: list[bytes] = []
        self.pieces = []
        self.interim = []

    def reset(self, *, head_only: bool = False, may_switch: bool = False) -> None:
        """Get ready for the next answer. A parser that saw the last one to its end reads on, else there is a new one."""
        if not self._whole:
            self._parser = None
            self._whole = True
        self._fresh = True
        self._over = False
        self._may_switch = may_switch
        self._raw_left = self._head_bytes = self._interims = self._overhead = 0
        self.head_done = self.done = self.overrun = self.switched = self.chunked = False
        self.no_body = head_only
        self.status = 0
        self.length = -1
        self.rest = b""
        self.lines = []
        self.cookies = []
        if self.pieces:
            self.pieces.clear()
        if self.interim:
            self.interim.clear()
        if self._heads:
            self._heads = []

    def close(self) -> None:
        """Let go of the parser, which holds this object: there will be no further answer."""
        self._parser = None

    @property
    def ends_with_connection(self) -> bool:
        """Only the end of the connection says where the body ends."""
        return self.length < 0 and not self.chunked and not self.no_body

    @property
    def can_be_followed(self) -> bool:
        """It ended cleanly, and the connection is good for another one."""
        framed = self.length >= 0 or self.chunked or self.no_body
        return self.done and self.keep_alive and framed and not self.overrun

    def feed(self, data: bytes) -> None:
        """Take bytes.

        Raises:
            Fault: they are not an HTTP/1 answer, or not one that can be passed on.
        """
        if self._raw_left:
            self._take_raw(data)
        elif not self._fresh or not self._read_whole_head(data):
            self._fresh = False
            self._parse(data)

    def _read_whole_head(self, data: bytes) -> bool:
        """Take a plain head that is here whole, with what follows it; False: it is the parser's."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return False
        raw = data[:end].split(b"\r\n")
        status = _status(raw[0])
        if status is None or len(raw) > defaults.MAX_HEADERS:
            return False
        known = _lines
        fields = [known[each] for each in raw[1:]]
        if None in fields or not self._is_framed(status[0], fields):  # type: ignore[arg-type]
            return False
        self._fresh = False
        self.status, self.line = status
        self.keep_alive = True
        self._take_fields(fields)  # type: ignore[arg-type]
        self.head_done = True
        body = data[end + 4 :]
        if self.no_body or self.length == 0:
            self._over = self.done = True
            self.overrun = body != b""
        else:
            self._raw_left = self.length
            if body:
                self._take_raw(body)
        return True

    def _is_framed(self, status: int, fields: list[Field]) -> bool:
        """One Content-Length, or no body: what there is no need to parse."""
        lengths = 0
        for each in fields:
            if each[0] == LENGTH:
                lengths += 1
        return lengths == 1 or (lengths == 0 and (self.no_body or status in (204, 304)))

    def _parse(self, data: bytes) -> None:
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        if self._whole:
            self._whole = False
            self.line = self._phrase = b""
            self._headers: list[tuple[bytes, bytes]] = []
        held = len(self.pieces)
        if not self.head_done:
            self._heads.append(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.rest = data[upgrade.args[0] :]
            self.switched = self.status == 101 and self._may_switch
        except httptools.HttpParserError as error:
            if not self._over:
                text = error.args[0] if error.args else error
                raise Fault(502, f"the agent's answer is not HTTP: {text}") from error
            self.overrun = True
        if self.head_done:
            if self.chunked and not self.done:
                self._count_overhead(len(data), held)
        elif self.status:
            self._read_head()
        else:
            self._check_size(data)

    def value(self, name: bytes) -> bytes | None:
        """Return the value of the first field of this name (lower case), or None."""
        return next((value for _, _, each, value in self.fields if each.lower() == name), None)

    def take(self) -> bytes:
        """Return the body's bytes that have come since."""
        pieces = self.pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return data

    def _take_raw(self, data: bytes) -> None:
        """Take a piece of a long body of known length past the parser: there is nothing in it to parse."""
        if len(data) > self._raw_left:
            data, self.overrun = data[: self._raw_left], True
        self._raw_left -= len(data)
        self.pieces.append(data)
        if not self._raw_left:
            self._over = self.done = True

    def _count_overhead(self, size: int, held: int) -> None:
        """Bound what comes beside a chunked body and is dropped: extensions, and trailers that are not whole yet."""
        extra = self._overhead + size
        for piece in self.pieces[held:]:
            extra -= len(piece) + CHUNK_FRAME
        self._overhead = extra if extra > 0 else 0
        if extra > defaults.MAX_CHUNK_EXTENSION_BYTES + defaults.MAX_TRAILER_BYTES:
            raise Fault(502, "the agent's chunk extensions and trailers are too large")

    def _check_size(self, data: bytes) -> None:
        """Bound a head that is not whole yet."""
        if self._over:
            raise Fault(502, "the status of the agent's answer is none of HTTP's")
        self._head_bytes += len(data)
        if (
            self._interims > defaults.MAX_INTERIM_RESPONSES
            or len(self._headers) > defaults.MAX_HEADERS
            or self._head_bytes > defaults.MAX_HEAD_BYTES
        ):
            raise Fault(502, "the head of the agent's answer is too large")

    # Called by the parser.

    def on_message_begin(self) -> None:
        """A second message in one answer is what nobody asked for."""
        if self._over:
            self.overrun = True

    def on_status(self, phrase: bytes) -> None:
        """Collect the reason phrase."""
        if not self._over:
            self._phrase += phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field; trailers are not kept."""
        if not self.status:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole, unless it is of an interim answer."""
        if not self._over:
            self.status = self._parser.get_status_code()  # type: ignore[union-attr]

    def on_body(self, piece: bytes) -> None:
        """Keep a piece of the body until it is taken."""
        if self.no_body:
            self.overrun = True
        elif not self._over:
            self.pieces.append(piece)

    def on_message_complete(self) -> None:
        """The answer is whole; an interim one makes room for the next."""
        if self._over:
            return
        if 100 <= self.status < 200 and self.status != 101:
            lines = [b"HTTP/1.1 %d %b\r\n" % (self.status, self._phrase)]
            lines += [b"%b: %b\r\n" % each for each in self._headers if ANSWER_NAMES[each[0]] == PASS]
            self.interim.append(b"".join(lines) + b"\r\n")
            self._interims += 1
            self.status, self._phrase, self._headers = 0, b"", []
            return
        self._over = self._whole = self.done = True

    def _read_head(self) -> None:
        """Take the head that the parser read.

        Raises:
            Fault: its framing can't be passed on.
        """
        if len(self._headers) > defaults.MAX_HEADERS:
            raise Fault(502, f"the agent's answer has more than {defaults.MAX_HEADERS} fields")
        if self._interims > defaults.MAX_INTERIM_RESPONSES:
            raise Fault(502, f"the agent gave more than {defaults.MAX_INTERIM_RESPONSES} interim answers")
        self._check_beginnings()
        version = self._parser.get_http_version()  # type: ignore[union-attr]
        if version not in ("1.1", "1.0") or self.status < 100 or not _PHRASE.fullmatch(self._phrase):
            raise Fault(502, "the agent's answer has a malformed status line")
        self.line = b"HTTP/1.1 %d %b\r\n" % (self.status, self._phrase)
        self.keep_alive = version == "1.1"
        self._take_fields([field(ANSWER_NAMES, name, value) for name, value in self._headers])
        if self.chunked and version == "1.0":
            raise Fault(502, "the agent's answer is chunked, in HTTP/1.0")
        if self.status == 101 and not self.switched:
            raise Fault(502, "the agent switched protocols, and nobody asked it to")
        self.head_done = True
        if self.no_body:
            self._over = self.done = True
        elif self.length > PIECE and not self.done:
            self._raw_left = self.length - sum(map(len, self.pieces))

    def _check_beginnings(self) -> None:
        """Nothing stands before a status line: the parser passes over line ends there, for old servers' sake."""
        heads, self._heads = self._heads, []
        for head in b"".join(heads).split(HEAD_END, self._interims + 1)[: self._interims + 1]:
            if not head.startswith(b"HTTP/"):
                raise Fault(502, "the agent's answer does not begin with a status line")

    def _take_fields(self, fields: list[Field]) -> None:
        self.fields = fields
        lines = self.lines
        dropped: tuple[bytes, ...] = ()
        for kind, line, _, value in fields:
            if kind == PASS:
                lines.append(line)
            elif kind == LENGTH:
                self.length = int(value)
            elif kind == CONNECTION:
                dropped += self._read_connection(value)
            else:
                self._read_special(kind, value)
        if dropped:
            drop_fields(lines, dropped)
        if self.status in (204, 304):
            self.no_body = True

    def _read_special(self, kind: int, value: bytes) -> None:
        if kind == CODING:
            if self.chunked or value.lower() != b"chunked":
                raise Fault(502, "the agent's answer has a Transfer-Encoding other than chunked")
            self.chunked = True
        elif kind == COOKIE:
            self.cookies.append(value)

    def _read_connection(self, value: bytes) -> tuple[bytes, ...]:
        """Take `Connection`; return the names in it of fields that are not to be passed on (RFC 9110 7.6.1)."""
        tokens = {token.strip() for token in value.lower().split(b",")}
        if b"close" in tokens:
            self.keep_alive = False
        elif b"keep-alive" in tokens:
            self.keep_alive = True
        return tuple(tokens - _OPTIONS)
