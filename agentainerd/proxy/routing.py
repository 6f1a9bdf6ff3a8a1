"""The route table: which agent a path or a host name means, and where its containers are.

Written by services (under each agent's lock), read by the data plane. All of it is memory, and no method does I/O.
"""

import time
from collections.abc import Callable
from enum import StrEnum

from gevent.event import Event

from agentainerd import defaults
from agentainerd.model.requests import ReplayPolicy
from agentainerd.proxy.target import Target


class Gate(StrEnum):
    """Whether requests go through to an agent."""

    OPEN = "open"  # ready: forward
    HOLDING = "holding"  # starting, restarting, draining: wait for it, then 202
    CLOSED = "closed"  # created, stopped, paused, failed: 202 at once


class Route:
    """One agent as the data plane sees it.

    Attributes:
        agent_id, name: what paths may say.
        targets: its containers that may get requests; empty unless it runs.
        gate: see `Gate`; changed only through `open`, `hold` and `close`.
        token_digest: SHA-256 of the token that the path asks for, b"" where it is public.
    """

    __slots__ = (
        "_changed", "agent_id", "gate", "hold_timeout_s", "max_pending", "max_pending_bytes", "name", "ordered",
        "persistence", "policy", "replay_concurrency", "request_timeout_s", "targets", "token_digest",
    )  # fmt: skip

    def __init__(self, agent_id: str, name: str) -> None:
        self.agent_id = agent_id
        self.name = name
        self.targets: list[Target] = []
        self.gate = Gate.CLOSED
        self.persistence = True
        self.policy = ReplayPolicy.AUTO
        self.ordered = False
        self.replay_concurrency = defaults.REPLAY_CONCURRENCY
        self.hold_timeout_s = defaults.HOLD_TIMEOUT_S
        self.request_timeout_s = defaults.REQUEST_TIMEOUT_S
        self.max_pending = defaults.MAX_PENDING
        self.max_pending_bytes = defaults.MAX_PENDING_BYTES
        self.token_digest = b""
        self._changed = Event()

    @property
    def in_flight(self) -> int:
        """Exchanges under way on all its targets."""
        return sum(target.in_flight for target in self.targets)

    def is_busy(self, limit: int) -> bool:
        """Whether so many exchanges are under way already."""
        for target in self.targets:
            limit -= target.in_flight
        return limit <= 0

    def open(self) -> None:
        """Let requests through, the waiting ones first."""
        self._set(Gate.OPEN)

    def hold(self) -> None:
        """Make requests wait; what is in flight goes on."""
        self._set(Gate.HOLDING)

    def close(self) -> None:
        """Queue requests at once; the waiting ones too."""
        self._set(Gate.CLOSED)

    def wait_open(self, timeout_s: float, *, even_closed: bool = False) -> Gate:
        """Block until the gate is OPEN, at most `timeout_s`; return what it is then.

        A CLOSED gate is not waited for, unless the caller asked to (`even_closed`).
        """
        end = time.monotonic() + timeout_s
        while self.gate is Gate.HOLDING or (self.gate is Gate.CLOSED and even_closed):
            left_s = end - time.monotonic()
            if left_s <= 0:
                break
            self._changed.wait(left_s)
        return self.gate

    def pick(self) -> Target | None:
        """Return the target with the fewest requests in flight, or None."""
        targets = self.targets
        if len(targets) == 1:
            return targets[0]
        return min(targets, key=lambda target: target.in_flight, default=None)

    def _set(self, gate: Gate) -> None:
        if gate is not self.gate:
            self.gate = gate
            changed, self._changed = self._changed, Event()
            changed.set()


class RouteTable:
    """All routes, by id and by name.

    `on_suspect` is called (and must not block) when a connection to a route's target was refused though its gate is
    open: its owner then probes the target and opens the gate again. `on_dead_check` blocks up to DEATH_CONFIRM_S and
    says whether the engine knows that the target's container died. `on_control_token` (must not block) gets the client's
    address and the agent's name when a control token was sent to an agent's path.
    """

    def __init__(self) -> None:
        self._routes: dict[bytes, Route] = {}
        self.on_suspect: Callable[[Route, Target], None] = lambda route, target: None
        self.on_dead_check: Callable[[Route, Target], bool] = lambda route, target: target.is_retired
        self.on_control_token: Callable[[str, str], None] = lambda client, agent: None
        self.control_token_digests: frozenset[bytes] = frozenset()
        """SHA-256 of every valid control token: an agent's path refuses them, so that no agent ever sees one."""
        self.complete = False
        """All agents of the store are here: before that, an unknown agent is "not yet known" (503), not 404."""

    def find(self, ref: bytes) -> Route | None:
        """Return the route of an id or a name."""
        return self._routes.get(ref)

    def publish(self, route: Route) -> None:
        """Make a route reachable under its id and name. Replaces one with the same id."""
        self._routes[route.agent_id.encode()] = route
        self._routes[route.name.encode()] = route

    def withdraw(self, route: Route) -> None:
        """Forget a route; whoever waits at its gate goes on."""
        self._routes.pop(route.agent_id.encode(), None)
        self._routes.pop(route.name.encode(), None)
        route.close()

    def routes(self) -> list[Route]:
        """Return each route once."""
        return list({route.agent_id: route for route in self._routes.values()}.values())
