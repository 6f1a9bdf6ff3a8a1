"""Header fields by kind: what is passed on, what is dropped, what the data plane reads itself.

Fields repeat: a client sends the same dozen lines with every request, an agent the same five with every answer. So a line
that was read once is remembered with what it means (`Lines`), and a head of which every line is known needs no parser.
"""

import re

PASS, DROP, HOST, CONNECTION, LENGTH, CODING, UPGRADE, EXPECT = range(8)
AUTHORIZATION, KEY, PREFER, ACCEPT, VIA, TRACEPARENT, FORWARDED, COOKIE, ORIGIN = range(8, 17)

_KINDS = {
    b"host": HOST,
    b"connection": CONNECTION,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"upgrade": UPGRADE,
    b"expect": EXPECT,
    b"authorization": AUTHORIZATION,
    b"idempotency-key": KEY,
    b"prefer": PREFER,
    b"accept": ACCEPT,
    b"via": VIA,
    b"traceparent": TRACEPARENT,
    b"x-forwarded-for": FORWARDED,
    b"x-forwarded-proto": FORWARDED,
    b"x-forwarded-host": FORWARDED,
    b"x-forwarded-prefix": FORWARDED,
    b"forwarded": FORWARDED,
    b"x-agentainer-run-id": FORWARDED,  # what an agent says of a call to a model
    b"x-agentainer-session-id": FORWARDED,
    b"origin": ORIGIN,
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"proxy-authorization": DROP,
    b"te": DROP,
    b"trailer": DROP,
}
_ANSWER_KINDS = {
    b"connection": CONNECTION,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"upgrade": UPGRADE,
    b"set-cookie": COOKIE,
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"proxy-authenticate": DROP,
    b"trailer": DROP,
    b"te": DROP,
    # One origin for all agents and the API: no agent may speak for the others.
    b"service-worker-allowed": DROP,
    b"clear-site-data": DROP,
    b"strict-transport-security": DROP,
    b"alt-svc": DROP,
    b"idempotent-replayed": DROP,
}
MAX_CACHED_NAMES = 4096
MAX_KNOWN_LINES = 4096
MAX_KNOWN_LINE_BYTES = 512
_OURS = (b"x-agentainer-", b"x-forwarded-", b"x-real-ip")
_MARK = re.compile(rb"[^a-z0-9]")


class Names(dict[bytes, int]):
    """Field names, in the spelling in which they came, to their kind; filled as they are met, up to a bound."""

    def __init__(self, kinds: dict[bytes, int]) -> None:
        super().__init__()
        self._kinds = kinds

    def __missing__(self, name: bytes) -> int:
        lower = name.lower()
        plain = _MARK.sub(b"-", lower)
        kind = self._kinds.get(lower, PASS)
        # Who asked, and how, is ours to say. `X_Agentainer_Replay` and `transfer.encoding` reach some servers as the names
        # that they imitate: a variable of CGI has one sign for all that is no letter or digit.
        if kind == PASS and (plain.startswith(_OURS) or plain in self._kinds):
            kind = DROP
        if len(self) < MAX_CACHED_NAMES and len(name) <= 64:
            self[name] = kind
        return kind


Field = tuple[int, bytes, bytes, bytes]
"""Kind, the line as it is passed on (with its CRLF), name as it came, value."""

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")  # RFC 9110 5.6.2
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 5.5
_SECRET = re.compile(rb"auth|cookie|key|token|secret|pass", re.IGNORECASE)
_PARSED = frozenset((CODING, UPGRADE, EXPECT))  # what changes how a message is read is the parser's


def field(names: Names, name: bytes, value: bytes) -> Field:
    """Return what a field means that a parser read."""
    value = value.strip(b" \t")
    return names[name], b"%b: %b\r\n" % (name, value), name, value


class Lines(dict[bytes, Field | None]):
    """Header lines, without CRLF, to the field that each is; None: one that is left to the parser.

    As strict as RFC 9112 5.1: no space before the colon, no folding, no control bytes. Up to a bound lines are remembered;
    not those that may be secret.
    """

    def __init__(self, names: Names, *, max_line_bytes: int) -> None:
        super().__init__()
        self._names = names
        self._max_line_bytes = max_line_bytes

    def __missing__(self, line: bytes) -> Field | None:
        found = self._read(line)
        if found is not None and len(line) <= MAX_KNOWN_LINE_BYTES and not _SECRET.search(found[2]):
            if len(self) >= MAX_KNOWN_LINES:
                self.clear()
            self[line] = found
        return found

    def _read(self, line: bytes) -> Field | None:
        name, colon, value = line.partition(b":")
        if not colon or len(line) > self._max_line_bytes or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            return None
        kind, passed, name, value = field(self._names, name, value)
        if kind in _PARSED or (kind == LENGTH and not (value.isdigit() and len(value) <= MAX_LENGTH_DIGITS)):
            return None
        if kind == CONNECTION and value.lower() == b"keep-alive":
            kind = DROP  # what HTTP/1.1 does anyway
        return kind, passed, name, value


MAX_LENGTH_DIGITS = 15
REQUEST_NAMES = Names(_KINDS)
ANSWER_NAMES = Names(_ANSWER_KINDS)
