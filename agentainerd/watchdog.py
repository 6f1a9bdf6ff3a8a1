"""Whether the daemon does its work, and not only exists: what systemd's watchdog is fed for.

It is fed by a loop, so not at all while the event loop stands still; and only if every sign of life is there. A sign is a
function that returns what is wrong, "" for nothing. Restarting is systemd's part (WatchdogSec= in the unit).
"""

import ipaddress
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger(__name__)

LOOP = "watchdog"
CHECKS_PER_TIMEOUT = 6
MAX_INTERVAL_S = 5.0
MAX_LAG_S = 2.0
MAX_COMMIT_S = 5.0
KNOCK_TIMEOUT_S = 2.0
_KNOCK = b"GET /agent/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

Sign = Callable[[], str]
Address = tuple[str, int]


class Watchdog:
    """The body of the loop that feeds. `timeout_s`: how long the manager waits; `feed` tells it that all is well.

    `tell` says in one line what is wrong, to the manager too.
    """

    def __init__(
        self, timeout_s: float, feed: Callable[[], None], tell: Callable[[str], None], signs: Mapping[str, Sign]
    ) -> None:
        self.interval_s = min(MAX_INTERVAL_S, timeout_s / CHECKS_PER_TIMEOUT)
        self._feed = feed
        self._tell = tell
        self._signs = signs
        self._due: float | None = None
        self._trouble = ""

    def run_once(self, now: float) -> int:
        """Feed the watchdog if all signs are there; return whether it was fed."""
        trouble = self._late(time.monotonic()) or self._first_missing()
        self._due = time.monotonic() + self.interval_s
        if not trouble:
            self._feed()
        if trouble != self._trouble:
            self._trouble = trouble
            self._say(trouble)
        return not trouble

    def _late(self, now: float) -> str:
        lag_s = now - self._due if self._due is not None else 0.0
        return f"event loop: it was {lag_s:.1f} s late" if lag_s >= MAX_LAG_S else ""

    def _first_missing(self) -> str:
        for name, sign in self._signs.items():
            if trouble := sign():
                return f"{name}: {trouble}"
        return ""

    def _say(self, trouble: str) -> None:
        if trouble:
            log.error("the watchdog is not fed while this lasts: %s", trouble)
            self._tell(f"wedged: {trouble}")
        else:
            log.warning("the watchdog is fed again")
            self._tell("well again")


class CommitSign:
    """The journal commits: the batch that is on its way is answered in time. Without one, an empty one is sent.

    `in_flight` is the number of the batch that has no answer yet, 0 where there is none; `probe` sends an empty one, and
    does not wait. `server_up_s`: for how long the server has been there and ready; a server that is not there, or not ours
    (None), is not cured by another start of this process, and is no sign against it.
    """

    def __init__(
        self, in_flight: Callable[[], int], probe: Callable[[], object], server_up_s: Callable[[], float] | None
    ) -> None:
        self._in_flight = in_flight
        self._probe = probe
        self._server_up_s = server_up_s
        self._seen = 0
        self._since = 0.0

    def __call__(self) -> str:
        """Return what is wrong, or ""."""
        now = time.monotonic()
        number = self._in_flight()
        if number == 0:
            self._seen = 0
            self._probe()
            return ""
        if number != self._seen:
            self._seen, self._since = number, now
        if self._server_up_s is None:
            return ""
        waits_s = min(now - self._since, self._server_up_s())
        return f"a batch has waited for {waits_s:.0f} s" if waits_s >= MAX_COMMIT_S else ""


class AcceptSign:
    """Connections are accepted: we knock at our own door, and somebody says something, or shuts it.

    `is_busy`: it is known that nobody is let in now, because there is no room, or because the daemon stops.
    """

    def __init__(self, addresses: Sequence[Address], is_busy: Callable[[], bool]) -> None:
        self._addresses = [(_reachable(host), port) for host, port, *_ in addresses]
        self._is_busy = is_busy

    def __call__(self) -> str:
        """Return what is wrong, or ""; blocks its greenlet for KNOCK_TIMEOUT_S at most for each address."""
        if self._is_busy():
            return ""
        for host, port in self._addresses:
            try:
                _knock((host, port))
            except OSError as exc:
                if not isinstance(exc, ConnectionResetError) and not self._is_busy():
                    return f"{host} port {port} does not accept: {exc.strerror or exc}"
        return ""


def _knock(address: Address) -> None:
    with socket.create_connection(address, KNOCK_TIMEOUT_S) as connection:
        connection.settimeout(KNOCK_TIMEOUT_S)
        connection.sendall(_KNOCK)
        connection.recv(1)


def _reachable(host: str) -> str:
    """Return the address at which we reach ourselves where we listen on `host`."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if not address.is_unspecified:
        return host
    return "::1" if address.version == 6 else "127.0.0.1"
