"""Whether a request is addressed to us, and whether the page that sends it is one of ours. Pure; no sockets, no clock.

A browser can be made to send requests to any address: by a name that points there from now on (DNS rebinding: a strange
`Host`), or by a page of another site (a strange `Origin`). Both fields are the browser's own, which no page can change.
What is no browser sends no Origin, and addresses us by a name that we know.
"""

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum

MAX_KNOWN = 4096
MAX_VALUE_BYTES = 512
_NAME = re.compile(rb"(\[[0-9a-fA-F:.%]{2,80}\]|[A-Za-z0-9._~-]{1,253})(:[0-9]{0,5})?")
_PAGE = re.compile(rb"https?://([^/?#@]+)")
_OWN = frozenset((b"localhost", b"host.docker.internal"))


class Verdict(StrEnum):
    """Which of the two is strange; OURS, which is false, where neither is."""

    OURS = ""
    STRANGE_HOST = "host"
    STRANGE_ORIGIN = "origin"


@dataclass(frozen=True, slots=True)
class Names:
    """What is ours beside every IP address, localhost, host.docker.internal and what is under localhost.

    Attributes:
        domain: this name, and what is under it.
        own: names by which this machine is known.
        hosts: further names; "*.example.com" is all that is under example.com, "*" is every name.
        origins: further sites whose pages may send requests, whole: "https://app.example.com", "null"; "*" is every site.
    """

    domain: str = "localhost"
    own: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


class Origins:
    """What is ours, and what was found out about the values that came. May be used from any greenlet.

    Letter case and ports make no difference. A page may send requests if it was loaded from one of our names, from a
    loopback address or from the address that it sends them to, or if it is listed.
    """

    __slots__ = ("_any_host", "_any_origin", "_known", "_names", "_origins", "_suffixes")

    def __init__(self, names: Names | None = None) -> None:
        self._known: dict[tuple[bytes | None, bytes | None], Verdict] = {}
        self.use(names or Names())

    def use(self, names: Names) -> None:
        """Go by these names from now on."""
        listed = [_plain(name.encode()) for name in (names.domain, *names.own, *names.hosts)]
        under = [name[1:] for name in listed if name.startswith(b"*.")]
        self._any_host = b"*" in listed
        self._names = _OWN.union(name for name in listed if not name.startswith(b"*"))
        self._suffixes = (b".localhost", b"." + listed[0], *under)
        self._origins = frozenset(origin.lower().rstrip("/").encode() for origin in names.origins)
        self._any_origin = b"*" in self._origins
        self._known.clear()

    def judge(self, host: bytes | None, origin: bytes | None) -> Verdict:
        """Return what the values of Host and Origin say; None: there is no such field.

        One look-up for what came before. A request without Host is HTTP/1.0, which no browser speaks: it is ours.
        """
        key = (host, origin)
        verdict = self._known.get(key)
        if verdict is None:
            verdict = self._judge(host, origin)
            if len(host or b"") + len(origin or b"") <= MAX_VALUE_BYTES:
                if len(self._known) >= MAX_KNOWN:
                    self._known.clear()
                self._known[key] = verdict
        return verdict

    def _judge(self, host: bytes | None, origin: bytes | None) -> Verdict:
        name = _name(host) if host is not None else None
        if host is not None and (name is None or not self._is_ours(name)):
            return Verdict.STRANGE_HOST
        if origin is None or self._is_page_of_ours(origin, name):
            return Verdict.OURS
        return Verdict.STRANGE_ORIGIN

    def _is_ours(self, name: bytes) -> bool:
        return self._any_host or name in self._names or name.endswith(self._suffixes) or _address(name) is not None

    def _is_page_of_ours(self, origin: bytes, host: bytes | None) -> bool:
        lower = origin.strip().lower()
        if self._any_origin or lower in self._origins:
            return True
        found = _PAGE.fullmatch(lower)
        name = _name(found[1]) if found else None
        if name is None:
            return False
        address = _address(name)
        if address is not None:  # anybody can have a page at an address of his own
            return address.is_loopback or name == host
        return name == host or name in self._names or name.endswith(self._suffixes)


def _name(value: bytes) -> bytes | None:
    """Return the name or address in `name[:port]`, in lower case; None where it is neither."""
    found = _NAME.fullmatch(value) if len(value) <= MAX_VALUE_BYTES else None
    return _plain(found[1]) if found else None


def _plain(name: bytes) -> bytes:
    return name.strip().lower().removesuffix(b".")


def _address(name: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.strip(b"[]").decode())
    except ValueError:
        return None
