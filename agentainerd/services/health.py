"""Asking replicas how they are. The answer decides who gets requests; one that is not well is restarted as if it had crashed.

While a run starts, its readiness asks (readiness.py), often, until the first good answer. From then on there is one greenlet
for it, which ends with the run and stands still for nobody: not while the agent is paused, stopped, scaled down, removed. So
there is one for each container that should be asked, and none else, whatever brought it there; a daemon that comes back
attaches the containers that run, and asks them too.

Checks go straight to the container, never through the journal.
"""

import logging
import time
from collections.abc import Callable

from agentainerd import clock
from agentainerd.engine.engine import Engine
from agentainerd.model.health import Health, HealthCheck, HealthState
from agentainerd.proxy.routing import Gate, Route
from agentainerd.proxy.target import Target
from agentainerd.services.health_checks import perform

log = logging.getLogger(__name__)

Spawn = Callable[..., object]


class HealthMonitor:
    """Knows the health of every run. Its callbacks must not block.

    `on_change(route, target, before, now)`: its state changed. `on_recovered(route, target)`: it is well again, and gets no
    requests. Both are set by who puts the services together.
    """

    def __init__(self, engine: Engine, spawn: Spawn) -> None:
        self.on_change: Callable[[Route, Target, Health, Health], None] = lambda route, target, before, now: None
        self.on_recovered: Callable[[Route, Target], None] = lambda route, target: None
        self._engine = engine
        self._spawn = spawn
        self._checks: dict[str, HealthCheck] = {}
        self._known: dict[Target, Health] = {}
        self._watched: dict[Target, HealthCheck] = {}

    def configure(self, agent_id: str, check: HealthCheck | None) -> None:
        """Say what is asked of an agent's replicas; None: nothing, from now on."""
        if check is None:
            self._checks.pop(agent_id, None)
        else:
            self._checks[agent_id] = check

    def check_of(self, agent_id: str) -> HealthCheck | None:
        """Return what is asked of an agent's replicas."""
        return self._checks.get(agent_id)

    def of(self, target: Target) -> Health | None:
        """Return what is known of a run; None: nothing is asked of it."""
        return self._known.get(target)

    def is_ready(self, route: Route, target: Target) -> bool:
        """Ask a run that starts, and return whether it is well; blocks up to the check's timeout."""
        return self.passes(route, target, self._checks.get(route.agent_id))

    def passes(self, route: Route, target: Target, check: HealthCheck | None) -> bool:
        """The same with a check that is not, or not yet, the agent's; None: it is well."""
        if check is None:
            return True
        last = self._ask(route, target, check).last
        return last is not None and last.is_good

    def watch(self, route: Route, target: Target) -> None:
        """Ask a run that gets requests from now on, until it ends, gets none for another reason than its health, or the agent has
        another check.
        """
        check = self._checks.get(route.agent_id)
        if check is not None and self._watched.get(target) is not check:
            self._watched[target] = check
            self._spawn(f"health of {route.name}", self._run, route, target, check)

    def forget(self, target: Target) -> None:
        """A run ended."""
        self._known.pop(target, None)

    def _run(self, route: Route, target: Target, check: HealthCheck) -> None:
        try:
            while self._counts(route, target, check):
                if target.retired.wait(check.interval_s) or not self._counts(route, target, check):
                    return
                self._ask(route, target, check)
        finally:
            if self._watched.get(target) is check:
                del self._watched[target]

    def _counts(self, route: Route, target: Target, check: HealthCheck) -> bool:
        if self._checks.get(route.agent_id) is not check:
            return False
        health = self._known.get(target)
        is_out = health is not None and health.state is HealthState.UNHEALTHY and route.gate is not Gate.CLOSED
        return not target.is_retired and (target in route.serving or is_out)

    def _ask(self, route: Route, target: Target, check: HealthCheck) -> Health:
        """Ask once. A result that comes after the end of the run is dropped."""
        before = self._known.get(target, Health(since=time.time()))
        result = perform(self._engine, target, check)
        if target.is_retired:
            return before
        health = self._known[target] = before.after(result, check, max(0.0, clock.now() - target.started_at))
        if health.state is not before.state:
            self._changed(route, target, before, health)
        return health

    def _changed(self, route: Route, target: Target, before: Health, health: Health) -> None:
        fields = {"agent_id": route.agent_id, "agent": route.name, "replica": target.number}
        if health.state is HealthState.UNHEALTHY:
            route.dismiss(target)
            log.warning("replica is unhealthy: %s", health.last.message if health.last else "", extra=fields)
        elif before.state is HealthState.UNHEALTHY:
            log.info("replica is healthy again", extra=fields)
            if target not in route.serving:
                self.on_recovered(route, target)
        self.on_change(route, target, before, health)
