"""The route table: which agent a path or a host name means, and where its containers are.

Written by services (under each agent's lock), read by the data plane. All of it is memory, and no method does I/O.
"""

import time
from collections.abc import Callable
from enum import StrEnum

from gevent.event import Event

from agentainerd import defaults
from agentainerd.model.requests import ReplayPolicy
from agentainerd.model.tallies import Tally
from agentainerd.proxy.model_gate import ModelGate
from agentainerd.proxy.port_access import PortAccess
from agentainerd.proxy.target import Target


class Gate(StrEnum):
    """Whether requests go through to an agent."""

    OPEN = "open"  # ready: forward
    HOLDING = "holding"  # starting, restarting, draining: wait for it, then 202
    CLOSED = "closed"  # created, stopped, paused, failed: 202 at once


class Route:
    """One agent as the data plane sees it, or one replica of it.

    Attributes:
        agent_id, name: what paths may say.
        number: of the replica that this is the route of, 0: of the whole agent.
        targets: its containers that run, ready or not.
        serving: those of them that get requests: the ready ones, none unless the gate is OPEN.
        parts: the routes of its replicas by number; empty where there is one only.
        whole: the route of the agent, of which this one may be a part.
        gate: see `Gate`; changed only through `open`, `hold`, `close`, `admit` and `dismiss`.
        on_wanted: called, and must not block, when somebody waits at the gate of an agent that sleeps; else None.
        idle_timeout_s: after so long without a request it is put to sleep; 0: never.
        tally: how its requests ended; that of the agent also for a part.
        token_digest: SHA-256 of the token that the path asks for, b"" where it is public.
        ports: its named ports.
    """

    __slots__ = (
        "_changed", "_turn", "agent_id", "gate", "hold_timeout_s", "idle_timeout_s", "max_pending", "max_pending_bytes",
        "name", "number", "on_wanted", "ordered", "parts", "persistence", "policy", "ports", "replay_concurrency",
        "request_timeout_s", "serving", "tally", "targets", "token_digest", "whole",
    )  # fmt: skip

    def __init__(self, agent_id: str, name: str, *, number: int = 0, whole: "Route | None" = None) -> None:
        self.agent_id = agent_id
        self.name = name
        self.number = number
        self.whole = whole or self
        self.tally: Tally = Tally() if whole is None else whole.tally
        self.targets: list[Target] = []
        self.serving: list[Target] = []
        self.parts: dict[int, Route] = {}
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
        self.ports: dict[bytes, int] = {}
        self.idle_timeout_s = 0.0
        self.on_wanted: Callable[[], object] | None = None
        self._changed = Event()
        self._turn = 0

    @property
    def in_flight(self) -> int:
        """Exchanges under way on all its targets."""
        return sum(target.in_flight for target in self.targets)

    def idle_s(self) -> float:
        """Return for how long nothing was asked of it, 0.0 while something is in flight or no request gets through.

        Who looks at a named port of it asks for something.
        """
        if self.gate is not Gate.OPEN or self.in_flight or any(target.is_visited for target in self.targets):
            return 0.0
        return time.monotonic() - max((target.last_used_at for target in self.serving), default=time.monotonic())

    def is_busy(self, limit: int) -> bool:
        """Whether so many exchanges are under way already."""
        for target in self.targets:
            limit -= target.in_flight
        return limit <= 0

    def open(self) -> None:
        """Let requests through to all targets, the waiting ones first."""
        self.serving = list(self.targets)
        self._set(Gate.OPEN)

    def hold(self) -> None:
        """Make requests wait; what is in flight goes on. Every target has to be admitted again."""
        self._shut(Gate.HOLDING)

    def close(self) -> None:
        """Queue requests at once; the waiting ones too. Every target has to be admitted again."""
        self._shut(Gate.CLOSED)

    def admit(self, target: Target) -> None:
        """Let requests through to a target that is ready; nothing happens where it is none of this route's any more."""
        if target not in self.targets:
            return
        if target not in self.serving:
            self.serving = [*self.serving, target]
        self._set(Gate.OPEN)
        if part := self.parts.get(target.number):
            part.targets = [target]
            part.admit(target)

    def dismiss(self, target: Target) -> None:
        """Give a target no more requests; where it was the last one, they wait."""
        if target in self.serving:
            self.serving = [other for other in self.serving if other is not target]
            if not self.serving:
                self._set(Gate.HOLDING)
        if part := self.parts.get(target.number):
            part.dismiss(target)

    def remove(self, target: Target) -> None:
        """Forget a target that gets no requests any more."""
        self.targets = [other for other in self.targets if other is not target]
        if part := self.parts.get(target.number):
            part.remove(target)

    def wait_open(self, timeout_s: float, *, even_closed: bool = False) -> Gate:
        """Block until the gate is OPEN, at most `timeout_s`; return what it is then.

        A CLOSED gate is not waited for, unless the caller asked to (`even_closed`).
        """
        end = time.monotonic() + timeout_s
        if self.whole.on_wanted is not None:
            self.whole.on_wanted()
        while self.gate is Gate.HOLDING or (self.gate is Gate.CLOSED and even_closed):
            left_s = end - time.monotonic()
            if left_s <= 0:
                break
            self._changed.wait(left_s)
        return self.gate

    def pick(self) -> Target | None:
        """Return the target with the fewest requests in flight, or None."""
        targets = self.serving
        if len(targets) == 1:
            return targets[0]
        return self.pick_but([])

    def put_back(self) -> None:
        """What was picked last was not used: the next pick begins with it."""
        self._turn -= 1

    def pick_but(self, tried: list[Target]) -> Target | None:
        """Return the target with the fewest requests in flight that is not in `tried`, or None. Equal ones take turns."""
        targets = self.serving
        best: Target | None = None
        turn = self._turn
        for step in range(len(targets)):
            place = (self._turn + step) % len(targets)
            target = targets[place]
            if (best is None or target.in_flight < best.in_flight) and target not in tried:
                best, turn = target, place + 1
        self._turn = turn
        return best

    def _shut(self, gate: Gate) -> None:
        self.serving = []
        self._set(gate)
        for part in self.parts.values():
            part._shut(gate)

    def _set(self, gate: Gate) -> None:
        if gate is not self.gate:
            self.gate = gate
            changed, self._changed = self._changed, Event()
            changed.set()


class AgentPass:
    """A named token that opens the paths of some agents: its id, their names, and until when (epoch seconds; 0: for ever)."""

    __slots__ = ("agents", "token_id", "until")

    def __init__(self, token_id: str, agents: frozenset[str], until: float) -> None:
        self.token_id = token_id
        self.agents = agents
        self.until = until


class RouteTable:
    """All routes, by id and by name.

    `on_suspect` is called (and must not block) when a connection to a route's target was refused though it is serving: its
    owner then takes it out where that is called for, probes it and admits it again. `on_dead_check` blocks up to
    MAX_DEATH_CONFIRM_S and says whether the engine knows that the target's container died. `on_control_token` (must not block)
    gets the client's address and the agent's name when a control token was sent to an agent's path. `on_token_refused` (must not
    block) gets them when the token that an agent asks for was wrong (True) or missing, and returns 0, or for how many seconds
    that address is to wait. `on_token_used` (must not block) gets the id of a named token that opened a path. `models`: what is
    asked about calls to models. `ports`: who may use named ports.
    """

    def __init__(self) -> None:
        self._routes: dict[bytes, Route] = {}
        self.models = ModelGate()
        self.ports = PortAccess()
        self.on_suspect: Callable[[Route, Target], None] = lambda route, target: None
        self.on_dead_check: Callable[[Route, Target], bool] = lambda route, target: target.is_retired
        self.on_control_token: Callable[[str, str], None] = lambda client, agent: None
        self.on_token_refused: Callable[[str, str, bool], int] = lambda client, agent, is_wrong: 0
        self.on_token_used: Callable[[str], None] = lambda token_id: None
        self.control_token_digests: frozenset[bytes] = frozenset()
        """SHA-256 of every token of ours: an agent's path refuses them, so that no agent ever sees one."""
        self.agent_passes: dict[bytes, AgentPass] = {}
        """Those of them that are good for some agents' paths."""
        self.complete = False
        """All agents of the store are here: before that, an unknown agent is "not yet known" (503), not 404."""

    def find(self, ref: bytes) -> Route | None:
        """Return the route of an id or a name."""
        return self._routes.get(ref)

    def publish(self, route: Route) -> None:
        """Make a route reachable under its id and name, and its parts under theirs. Replaces one with the same id.

        What was counted of that one is counted on.
        """
        before = self._routes.get(route.agent_id.encode())
        if before is not None:
            route.tally = before.tally
        self._routes[route.agent_id.encode()] = route
        self._routes[route.name.encode()] = route
        for part in route.parts.values():
            self.publish_part(part)

    def publish_part(self, part: Route) -> None:
        """Make the route of one replica reachable as <id>-<n> and by its name."""
        part.tally = part.whole.tally
        for ref in _part_refs(part):
            self._routes[ref] = part

    def withdraw_part(self, part: Route) -> None:
        """Forget the route of one replica; whoever waits at its gate goes on."""
        for ref in _part_refs(part):
            self._routes.pop(ref, None)
        part.close()

    def withdraw(self, route: Route) -> None:
        """Forget a route and its parts; whoever waits at a gate goes on."""
        self._routes.pop(route.agent_id.encode(), None)
        self._routes.pop(route.name.encode(), None)
        for part in route.parts.values():
            self.withdraw_part(part)
        route.close()

    def routes(self) -> list[Route]:
        """Return the route of each agent once."""
        return list({route.agent_id: route for route in self._routes.values() if not route.number}.values())


def _part_refs(part: Route) -> tuple[bytes, bytes]:
    return f"{part.agent_id}-{part.number}".encode(), part.name.encode()
