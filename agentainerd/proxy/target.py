"""One container of an agent as the data plane sees it: an address, and connections that are kept open to it."""

import time

from gevent.event import Event

from agentainerd import defaults
from agentainerd.proxy.upstream import Upstream
from agentainerd.proxy.wire import connect

MAX_IDLE_S = 60.0
MAX_IDLE_UNSAFE_S = 1.0  # for requests that can't be sent twice


class Target:
    """One run of one container.

    Attributes:
        address: (host, port) where the agent listens, or the path of a Unix socket.
        container_id, started_at: which run of which container this is; a restart makes a new target.
        number: which replica of the agent it is.
        in_flight: calls under way.
        listens: something is to listen there; else it is ready when it runs.
        refusals: connections that could not be opened since one could.
        used_at: monotonic time when the last call ended, or it was admitted.
        retired: set when the container of this run is known to be down.
    """

    __slots__ = (
        "_idle",
        "_ports",
        "address",
        "container_id",
        "in_flight",
        "listens",
        "number",
        "refusals",
        "retired",
        "started_at",
        "used_at",
    )

    def __init__(
        self,
        address: tuple[str, int] | str,
        *,
        container_id: str = "",
        started_at: float = 0.0,
        number: int = 1,
        listens: bool = True,
    ) -> None:
        self.address = address
        self.container_id = container_id
        self.started_at = started_at
        self.number = number
        self.listens = listens
        self.in_flight = 0
        self.refusals = 0
        self.used_at = time.monotonic()
        self.retired = Event()
        self._idle: list[Upstream] = []
        self._ports: dict[int, Target] = {}

    def __repr__(self) -> str:
        where = self.address if isinstance(self.address, str) else f"{self.address[0]}:{self.address[1]}"
        return f"<Target {where} in_flight={self.in_flight} idle={len(self._idle)}>"

    @property
    def is_retired(self) -> bool:
        """Its container is down."""
        return bool(self.retired.is_set())

    @property
    def is_visited(self) -> bool:
        """Calls are under way at one of its other ports."""
        return any(port.in_flight for port in self._ports.values())

    @property
    def last_used_at(self) -> float:
        """Monotonic time of the last call, that at its other ports included."""
        return max([self.used_at, *(port.used_at for port in self._ports.values())])

    def port(self, number: int) -> "Target":
        """Return another port of the same run of the container."""
        found = self._ports.get(number)
        if found is None:
            assert not isinstance(self.address, str)
            found = Target((self.address[0], number), container_id=self.container_id, started_at=self.started_at)
            found.retired = self.retired
            self._ports[number] = found
        return found

    def take(self, *, repeatable: bool) -> Upstream | None:
        """Return an idle connection that the agent has not closed, or None.

        One that was closed, or on which the agent spoke unasked, is dropped before any client's request of the same turn of
        the event loop is read (wire.connect). For a request that can't be sent twice that is not enough: only a connection
        that was just used will do, and it is looked at once more.
        """
        idle = self._idle
        while idle:
            upstream = idle[-1]
            age_s = time.monotonic() - upstream.idle_since
            if age_s > MAX_IDLE_S:
                self.drop_idle()  # the last one put is the youngest
                return None
            if repeatable:
                return idle.pop()
            if age_s > MAX_IDLE_UNSAFE_S:
                return None
            idle.pop()
            if upstream.stream.is_quiet():
                return upstream
            upstream.close()
        return None

    def connect(self) -> Upstream:
        """Open a connection. Blocks the greenlet.

        Raises:
            OSError: refused, unreachable, or not within CONNECT_TIMEOUT_S.
        """
        try:
            stream = connect(self.address, defaults.CONNECT_TIMEOUT_S)
        except OSError:
            self.refusals += 1
            raise
        self.refusals = 0
        return Upstream(self, stream)

    def put(self, upstream: Upstream) -> None:
        """Give a connection back after a whole exchange; it is closed where there is no room or the container is down."""
        if len(self._idle) >= defaults.MAX_IDLE_UPSTREAMS or self.retired.is_set():
            upstream.close()
        else:
            upstream.idle_since = self.used_at = time.monotonic()
            self._idle.append(upstream)

    def drop(self, upstream: Upstream) -> None:
        """Close a connection that ended while it was idle."""
        if upstream in self._idle:
            self._idle.remove(upstream)
        upstream.close()

    def drop_idle(self) -> None:
        """Close every idle connection."""
        idle, self._idle = self._idle, []
        for upstream in idle:
            upstream.close()

    def retire(self) -> None:
        """Say that the container of this run is down; nothing is pooled any more."""
        self.retired.set()
        self.drop_idle()
