"""Header fields by kind: what is passed on, what is dropped, what the data plane reads itself."""

import re

PASS, DROP, HOST, CONNECTION, LENGTH, CODING, UPGRADE, EXPECT = range(8)
AUTHORIZATION, KEY, PREFER, ACCEPT, VIA, TRACEPARENT, FORWARDED, COOKIE, KEEP_ALIVE = range(8, 17)

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
    b"keep-alive": KEEP_ALIVE,
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
    b"keep-alive": KEEP_ALIVE,
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
_OURS = b"x-agentainer-"
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
        # `X_Agentainer_Replay` and `transfer.encoding` reach some servers as the names that they imitate: a variable of
        # CGI has one sign for all that is no letter or digit.
        if plain.startswith(_OURS) or (plain != lower and plain in self._kinds):
            kind = DROP
        if len(self) < MAX_CACHED_NAMES and len(name) <= 64:
            self[name] = kind
        return kind


REQUEST_NAMES = Names(_KINDS)
ANSWER_NAMES = Names(_ANSWER_KINDS)
