"""The data plane: accepts connections, and has what all of them share.

All it knows is a route table and a journal. Connections live in the event loop (connection.py); what would be a timer is a
deadline that the sweeper keeps (watch.py).
"""

import logging
from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass, field

import gevent
from gevent import socket
from gevent.event import Event
from gevent.pool import Group

from agentainerd import defaults
from agentainerd.proxy import wire
from agentainerd.proxy.connection import Connection
from agentainerd.proxy.journal import Journal
from agentainerd.proxy.origins import Origins, Verdict
from agentainerd.proxy.request import Fault
from agentainerd.proxy.routing import RouteTable
from agentainerd.proxy.target import Target
from agentainerd.proxy.watch import Cause, Sweeper
from agentainerd.proxy.wire import Listener, Stream

log = logging.getLogger(__name__)
COMPILED = not wire.__file__.endswith(".py")
"""The hot path was compiled to C when this was installed (setup.py)."""
_LOOPBACK = ("127.", "::1", "::ffff:127.")
_EXHAUSTED_PAUSE_S = 0.1
_EXHAUSTED_LOG_S = 60.0


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """What the data plane is told; `domain`: `<ref>.<domain>` is an agent at its root.

    `judge`: what Host and Origin of a request to an agent say. `trusted_proxies`: addresses whose X-Forwarded-* are
    believed. `reject_without_journal`: refuse instead of going on with `X-Agentainer-Journal: unavailable`. `max_age_s`:
    how long a queued request may wait. `max_connections`: of all clients, and per address (neither loopback nor a trusted
    proxy, which stand for many). `max_in_flight`: requests of one agent.
    """

    domain: str = "localhost"
    judge: Callable[[bytes | None, bytes | None], Verdict] = field(default_factory=lambda: Origins().judge)
    trusted_proxies: Container[str] = ()
    reject_without_journal: bool = False
    max_age_s: float = defaults.MAX_AGE_S
    max_connections: int = defaults.MAX_CONNECTIONS
    max_connections_per_source: int = defaults.MAX_CONNECTIONS_PER_SOURCE
    max_in_flight: int = defaults.MAX_IN_FLIGHT


class DataPlane:
    """Listeners, connections and what they share.

    Attributes:
        routes, journal, options: as given; `options` may be replaced at any time.
        sweeper: deadlines of all waits; greenlets: what requests wait in; pumps: bodies on their way.
        ticket: the capability for a request's id.
        control: the control API, as a target.
        draining: no further request is taken.
    """

    def __init__(
        self,
        routes: RouteTable,
        journal: Journal,
        options: ProxyOptions,
        *,
        gateway_socket: str,
        ticket: Callable[[str], str],
    ) -> None:
        self.routes = routes
        self.journal = journal
        self.options = options
        self.ticket = ticket
        self.sweeper = Sweeper()
        self.greenlets = Group()
        self.pumps = Group()
        self.draining = False
        self.control = Target(gateway_socket)
        self._connections: set[Connection] = set()
        self._sources: Counter[str] = Counter()
        self._listeners: list[Listener] = []
        self._paused = False
        self._held = 0
        self._empty = Event()
        self._exhausted_at = -_EXHAUSTED_LOG_S
        self._sweeping = gevent.Greenlet(self.sweeper.run)

    @property
    def options(self) -> ProxyOptions:
        """What the data plane was told."""
        return self._options

    @options.setter
    def options(self, options: ProxyOptions) -> None:
        self._options = options
        self.suffix = b"." + options.domain.lower().encode()

    @property
    def connections(self) -> int:
        """Client connections that are open."""
        return len(self._connections)

    @property
    def is_full(self) -> bool:
        """As many clients are connected as may be."""
        return len(self._connections) >= self._options.max_connections

    def serve(self, listener: socket.socket) -> None:
        """Accept on a bound and listening TCP socket, from now on; it belongs to the data plane then. Does not block."""
        if not self._sweeping.started:
            self._sweeping.start()
        self._listeners.append(Listener(listener, self._accept, self._exhausted))

    def stop_accepting(self) -> None:
        """Take no more connections, and no more requests on the idle ones."""
        self.draining = True
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for connection in list(self._connections):
            if connection.is_idle:
                connection.expire(Cause.IDLE)

    def drain(self, timeout_s: float) -> int:
        """Wait until every exchange is over, at most `timeout_s`; break off the rest and return how many those were."""
        self._wait_empty(timeout_s)
        left = list(self._connections)
        for connection in left:
            connection.expire(Cause.STOPPED)
        self._wait_empty(1.0)
        self.greenlets.kill(timeout=1.0)
        self.pumps.kill(timeout=1.0)
        self._sweeping.kill()
        self.control.drop_idle()
        return len(left)

    def _wait_empty(self, timeout_s: float) -> None:
        self._empty.clear()
        if self._connections:
            self._empty.wait(timeout_s)

    def hold(self, size: int) -> bool:
        """Take memory for a body that is waited for, if there is any left; a negative size gives it back."""
        if size > 0 and self._held + size > defaults.MAX_HELD_BODY_BYTES:
            return False
        self._held += size
        return True

    def forget(self, connection: Connection) -> None:
        """A connection is closed."""
        if connection not in self._connections:
            return
        self.sweeper.remove(connection)
        self._connections.discard(connection)
        if connection.peer in self._sources:
            self._sources[connection.peer] -= 1
            if not self._sources[connection.peer]:
                del self._sources[connection.peer]
        if not self._connections:
            self._empty.set()
        if self._paused and not self.is_full:
            self._paused = False
            for listener in self._listeners:
                listener.resume()

    # ---- for listeners

    def _accept(self, stream: Stream, peer: str) -> bool:
        """Serve a client that connected; False: nobody else for now."""
        connection = Connection(self, stream, peer)
        self._connections.add(connection)
        if self._may_connect(peer):
            connection.start()
        else:
            connection.reject(Fault(429, f"too many connections from {peer}"))
        if not self.is_full:
            return True
        self._paused = True
        for listener in self._listeners:
            listener.pause()
        return False

    def _may_connect(self, peer: str) -> bool:
        """Count a source's connections; whether this one is not too many."""
        if peer.startswith(_LOOPBACK) or peer in self._options.trusted_proxies:
            return True
        self._sources[peer] += 1
        return self._sources[peer] <= self._options.max_connections_per_source

    def _exhausted(self, listener: Listener, error: OSError) -> None:
        """There is no room for a further connection: try again in a moment."""
        listener.pause()
        if self.sweeper.now - self._exhausted_at >= _EXHAUSTED_LOG_S:
            self._exhausted_at = self.sweeper.now
            log.error(
                "no connection can be accepted now: %s; raise LimitNOFILE, or lower server.max_connections",
                error.strerror,
            )
        gevent.spawn_later(_EXHAUSTED_PAUSE_S, self._try_again, listener)

    def _try_again(self, listener: Listener) -> None:
        if listener in self._listeners and not self._paused:
            listener.resume()
