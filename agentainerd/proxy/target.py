"""One container behind a route: its address, its idle connections and what is in flight.

The pool is a stack: take and put are O(1), a connection is out of it while somebody uses it, and the state changes
without I/O in between. Written by the data plane only, but for `retire`.
"""

import socket as stdlib_socket
import time

from gevent import socket
from gevent.event import Event

from agentainerd import defaults

MAX_IDLE_S = 60.0
MAX_IDLE_UNSAFE_S = 1.0  # older: the agent may be about to close it
TRUSTED_IDLE_S = 0.01
_PEEK = stdlib_socket.MSG_PEEK | stdlib_socket.MSG_DONTWAIT


class Target:
    """One run of one container.

    Attributes:
        address: (host, port) where the agent listens, or the path of a Unix socket.
        container_id, started_at: which run of which container this is; a restart makes a new target.
        in_flight: exchanges under way.
        retired: set when the container of this run is known to be down.
    """

    __slots__ = ("_idle", "address", "container_id", "in_flight", "retired", "started_at")

    def __init__(self, address: tuple[str, int] | str, *, container_id: str = "", started_at: float = 0.0) -> None:
        self.address = address
        self.container_id = container_id
        self.started_at = started_at
        self.in_flight = 0
        self.retired = Event()
        self._idle: list[tuple[float, socket.socket]] = []

    def __repr__(self) -> str:
        where = self.address if isinstance(self.address, str) else f"{self.address[0]}:{self.address[1]}"
        return f"<Target {where} in_flight={self.in_flight} idle={len(self._idle)}>"

    @property
    def is_retired(self) -> bool:
        """Its container is down."""
        return bool(self.retired.is_set())

    def take(self, *, repeatable: bool) -> socket.socket | None:
        """Return an idle connection that the agent has not closed, or None.

        For a request that can't be sent twice only one that was just used will do, and it is looked at first: a peek
        costs a twelfth of a whole exchange, which a request that can be sent again saves (it is, on a new connection).
        """
        idle = self._idle
        while idle:
            since, connection = idle[-1]
            age_s = time.monotonic() - since
            if age_s > MAX_IDLE_S:
                self.drop_idle()  # the last one put is the youngest
                return None
            if not repeatable and age_s > MAX_IDLE_UNSAFE_S:
                return None
            idle.pop()
            if repeatable and age_s < TRUSTED_IDLE_S:
                return connection
            try:
                connection._sock.recv(1, _PEEK)
            except BlockingIOError:
                return connection
            except OSError:
                pass  # reset while idle: as dead as one that was closed
            connection.close()
        return None

    def connect(self) -> socket.socket:
        """Open a connection.

        Raises:
            OSError: refused, unreachable, or not within CONNECT_TIMEOUT_S.
        """
        if isinstance(self.address, str):
            local = socket.socket(stdlib_socket.AF_UNIX)
            try:
                local.connect(self.address)
            except OSError:
                local.close()
                raise
            return local
        connection = socket.create_connection(self.address, defaults.CONNECT_TIMEOUT_S)
        connection.settimeout(None)
        connection.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
        return connection

    def put(self, connection: socket.socket) -> None:
        """Give a connection back after a whole exchange; it is closed where there is no room or the container is down."""
        if len(self._idle) >= defaults.MAX_IDLE_UPSTREAMS or self.retired.is_set():
            connection.close()
        else:
            self._idle.append((time.monotonic(), connection))

    def drop_idle(self) -> None:
        """Close every idle connection."""
        idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def retire(self) -> None:
        """Say that the container of this run is down; nothing is pooled any more."""
        self.retired.set()
        self.drop_idle()
