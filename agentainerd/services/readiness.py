"""When an agent is ready, and whether one died: the two questions that only its container can answer.

Ready means that a TCP connection to its port is accepted, on which nothing is sent, and that its health check, where it has
one, is content. A probe lets requests through to the replica that it watched; nobody else does but a health check that is
content again.
"""

import contextlib
import logging
import time
from collections.abc import Callable

from gevent.event import AsyncResult, Event

from agentainerd import defaults
from agentainerd.engine.engine import Engine
from agentainerd.errors import AgentainerError, NotFound
from agentainerd.model.containers import ContainerState
from agentainerd.model.health import HealthCheck
from agentainerd.proxy.routing import Route
from agentainerd.proxy.target import Target
from agentainerd.services.health import HealthMonitor

log = logging.getLogger(__name__)

Spawn = Callable[..., object]


class Probe:
    """The wait until one run of a replica is ready. `ended` is set once; then `is_ready` is true or false for good.

    `is_staged`: it is one that will take the place of another; it is looked at by `check`, and not admitted.
    """

    __slots__ = ("check", "ended", "is_cancelled", "is_ready", "is_staged", "route", "target")

    def __init__(
        self, route: Route, target: Target, *, is_staged: bool = False, check: HealthCheck | None = None
    ) -> None:
        self.route = route
        self.target = target
        self.is_staged = is_staged
        self.check = check
        self.is_ready = False
        self.is_cancelled = False
        self.ended = Event()


class Readiness:
    """Probes targets that get no requests yet and admits them when they are ready; at most one probe a target.

    `on_ready` gets the agent's id right after a target was admitted, and must not block.
    """

    def __init__(
        self, spawn: Spawn, health: HealthMonitor, on_ready: Callable[[str], None] = lambda agent_id: None
    ) -> None:
        self.on_ready = on_ready
        self.health = health
        self._spawn = spawn
        self._probes: dict[Target, Probe] = {}

    def watch(self, route: Route, target: Target) -> Probe:
        """Give `target` no requests until it accepts connections; the agent's wait where it has no other. Does not block."""
        known = self._probes.get(target)
        if known:
            return known
        probe = self._probes[target] = Probe(route, target)
        route.dismiss(target)
        for gated in (route, route.parts.get(target.number)):
            if gated is not None and not gated.serving:
                gated.hold()
        self._spawn(f"probe {route.name}", self._run, probe)
        return probe

    def stage(self, route: Route, target: Target, check: HealthCheck | None) -> Probe:
        """Look at a target, which is none of the route's yet, until it is ready; whoever wants it then admits it."""
        probe = self._probes[target] = Probe(route, target, is_staged=True, check=check)
        self._spawn(f"probe {route.name}", self._run, probe)
        return probe

    def cancel(self, agent_id: str) -> None:
        """End all probes of an agent: from now on they admit nothing."""
        for probe in self.probes_of(agent_id):
            self.cancel_one(probe.target)

    def cancel_one(self, target: Target) -> None:
        """End the probe of a target, if there is one."""
        probe = self._probes.pop(target, None)
        if probe:
            probe.is_cancelled = True
            probe.ended.set()

    def suspect(self, route: Route, target: Target) -> None:
        """Doubt a target that refused a connection: it is probed again, at once where it is the only one that gets requests,
        else when MAX_REFUSALS were refused in a row. Never blocks.
        """
        route = route.whole
        if target not in route.serving or target.is_retired:
            return
        if len(route.serving) == 1 or target.refusals >= defaults.MAX_REFUSALS:
            self.watch(route, target)

    def probe_of(self, target: Target) -> Probe | None:
        """Return the probe of a target that is under way, or None."""
        return self._probes.get(target)

    def probes_of(self, agent_id: str) -> list[Probe]:
        """Return the probes of an agent that are under way."""
        return [probe for probe in self._probes.values() if probe.route.agent_id == agent_id]

    def admit(self, route: Route, target: Target) -> None:
        """Let requests through to a target that is ready, and ask it how it is from now on."""
        target.used_at = time.monotonic()
        route.admit(target)
        self.health.watch(route, target)
        self.on_ready(route.agent_id)

    def _run(self, probe: Probe) -> None:
        interval_s = defaults.READY_PROBE_INTERVAL_S
        try:
            while not probe.is_cancelled and not probe.target.is_retired:
                if _accepts(probe.target) and self._is_well(probe) and self._open(probe):
                    return
                probe.target.retired.wait(interval_s)
                interval_s = min(interval_s * 2, defaults.MAX_READY_PROBE_INTERVAL_S)
        finally:
            if self._probes.get(probe.target) is probe:
                del self._probes[probe.target]
            probe.ended.set()

    def _open(self, probe: Probe) -> bool:
        """Admit the target, unless the world has changed during the connect."""
        if probe.is_cancelled or probe.target.is_retired:
            return False
        probe.is_ready = True
        if not probe.is_staged:
            self.admit(probe.route, probe.target)
        return True

    def _is_well(self, probe: Probe) -> bool:
        if probe.is_staged:
            return self.health.passes(probe.route, probe.target, probe.check)
        return self.health.is_ready(probe.route, probe.target)


class DeathCheck:
    """Asks the engine whether the run behind a target is over. Many may ask at once; the engine is asked once for all."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._running: dict[Target, AsyncResult] = {}

    def __call__(self, route: Route, target: Target) -> bool:
        """Return whether `target`'s container died; blocks.

        A death is told as soon as the engine knows it. "Alive" takes DEATH_CONFIRM_S where the port accepts connections, and
        up to MAX_DEATH_CONFIRM_S where it does not: an engine under load can be seconds late.
        """
        began = time.monotonic()
        while not target.is_retired:
            others = self._running.get(target)
            if others is None:
                return self._lead(target, began)
            if others.wait(max(0.0, began + defaults.MAX_DEATH_CONFIRM_S - time.monotonic())):
                return True
            if time.monotonic() - began >= defaults.DEATH_CONFIRM_S:
                return target.is_retired
        return True

    def _lead(self, target: Target, began: float) -> bool:
        result = self._running[target] = AsyncResult()
        died = False
        try:
            died = self._ask(target, began)
        finally:
            del self._running[target]
            result.set(died)
        return died

    def _ask(self, target: Target, began: float) -> bool:
        pause_s = defaults.READY_PROBE_INTERVAL_S
        while not self._is_over(target):
            waited_s = time.monotonic() - began
            if waited_s >= defaults.MAX_DEATH_CONFIRM_S or (waited_s >= defaults.DEATH_CONFIRM_S and _accepts(target)):
                return target.is_retired
            if target.retired.wait(pause_s):
                return True
            pause_s = min(pause_s * 2, defaults.MAX_READY_PROBE_INTERVAL_S)
        return True

    def _is_over(self, target: Target) -> bool:
        with contextlib.suppress(AgentainerError):  # the engine is away: the die event may still come
            try:
                container = self._engine.inspect(target.container_id)
            except NotFound:
                return True
            alive = container.state in (ContainerState.RUNNING, ContainerState.PAUSED)
            return not alive or container.started_at != target.started_at
        return False


def _accepts(target: Target) -> bool:
    if not target.listens:
        return True
    try:
        target.connect().close()
    except OSError:
        return False
    return True
