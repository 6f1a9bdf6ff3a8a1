"""Making the record of every agent agree with what the engine has: by events within milliseconds, by a look at everything
every few seconds, and after each gap in the events. And restarting what crashed.

The engine decides what is; the record says what should be. While the engine is away nothing changes.
"""

import logging
import time
from collections.abc import Callable

import gevent
import msgspec
from gevent.lock import BoundedSemaphore

from agentainerd import clock, defaults
from agentainerd.engine.engine import Engine
from agentainerd.errors import AgentainerError, NotFound, Unavailable
from agentainerd.model.agents import Agent, AgentState, Exit
from agentainerd.model.containers import Container, ContainerState, EngineEvent
from agentainerd.proxy.routing import Gate
from agentainerd.services.fleet import Fleet
from agentainerd.services.lifecycle import Lifecycle, container_name

log = logging.getLogger(__name__)

LOOP = "state_sync"
MAX_RESTARTS_AT_ONCE = 4  # all agents of an engine that was restarted come back in fours
MAX_SYNCS_AT_ONCE = 4
REPORTED = ("start", "die", "oom", "pause", "unpause", "destroy")

Spawn = Callable[..., object]


class StateSync:
    """Reconciles. `load` comes first, then `watch`; after that `run_once` is a loop's body, and `sync` may be called at any time.

    `orphans`: containers with our label and no record, as of the last look; never touched. `on_reconnect` is called when the
    engine is there again, and must not block.
    """

    def __init__(
        self, fleet: Fleet, lifecycle: Lifecycle, engine: Engine, *, spawn: Spawn, wake: Callable[[str], object]
    ) -> None:
        self.orphans: list[Container] = []
        self.on_reconnect: Callable[[], object] = lambda: None
        self._fleet = fleet
        self._lifecycle = lifecycle
        self._engine = engine
        self._spawn = spawn
        self._wake = wake
        self._look_closely = True
        self._queued: set[str] = set()
        self._restarting: dict[str, float] = {}
        self._syncs = BoundedSemaphore(MAX_SYNCS_AT_ONCE)
        self._restarts = BoundedSemaphore(MAX_RESTARTS_AT_ONCE)

    def load(self) -> int:
        """Publish all stored agents; from then on an unknown one is unknown for good. Returns how many there are.

        Raises:
            Unavailable: Redis does not answer; the loop tries again.
        """
        agents = self._fleet.load()
        self._fleet.routes.complete = True
        return len(agents)

    def watch(self) -> None:
        """Follow the engine's events from now on, in the background."""
        self._spawn("engine events", self._follow)

    def run_once(self, now: float) -> int:
        """Look at all agents and containers; reconcile in the background those that differ, and return how many.

        Raises:
            Unavailable: engine or Redis; nothing was changed.
        """
        if not self._fleet.routes.complete:
            self.load()
        closely, self._look_closely = self._look_closely, False
        try:
            containers = self._engine.containers()
            agents = self._fleet.store.all()
        except AgentainerError:
            self._look_closely = self._look_closely or closely
            raise
        known = {agent.id for agent in agents}
        self.orphans = [container for container in containers if container.agent_id not in known]
        found = _by_agent(agents, containers)
        due = [agent for agent in agents if closely or self._differs(agent, found.get(agent.id), now)]
        for place, agent in enumerate(due, 1):
            self._enqueue(agent.id)
            if place % defaults.BREATH == 0:
                gevent.sleep(0)
        return len(due)

    def sync(self, agent_id: str) -> None:
        """Make one agent agree with the engine; waits for whoever has its lock.

        Raises:
            Unavailable: engine or Redis.
        """
        try:
            with self._fleet.locked(agent_id) as agent, self._syncs:
                self._queued.discard(agent_id)  # what is told from here on is another matter
                self._reconcile(agent, self._lifecycle.find(agent))
        except NotFound as error:
            if error.noun != "agent":
                raise

    # Events

    def _follow(self) -> None:
        stream = self._engine.events()
        try:
            for event in stream:
                self._note(event)
        finally:
            stream.close()

    def _note(self, event: EngineEvent) -> None:
        if event.action == "reconnected":
            self._look_closely = True
            self._wake(LOOP)
            self.on_reconnect()
            return
        if event.action == "die":
            self._fleet.bury(event.agent_id, event.container_id, event.at)
        if event.action in REPORTED and self._fleet.route(event.agent_id) is not None:
            self._enqueue(event.agent_id)

    def _enqueue(self, agent_id: str) -> None:
        if agent_id not in self._queued:
            self._queued.add(agent_id)
            self._spawn(f"sync {agent_id}", self._sync_quietly, agent_id)

    def _sync_quietly(self, agent_id: str) -> None:
        try:
            self.sync(agent_id)
        except AgentainerError as error:
            log.warning("an agent could not be reconciled, and will be: %s", error, extra={"agent_id": agent_id})
            self._look_closely = True
        finally:
            self._queued.discard(agent_id)

    # Reconciling

    def _differs(self, agent: Agent, container: Container | None, now: float) -> bool:
        """Return whether an agent needs a closer look; `container` is from the engine's list, which does not say all."""
        if container is None:
            return bool(agent.container_id) or agent.state in (AgentState.RUNNING, AgentState.PAUSED)
        if container.id != agent.container_id:
            return True
        if container.state is ContainerState.RUNNING:
            return not self._is_as_recorded(agent, container) or bool(
                agent.crashes and now - agent.started_at > defaults.RESTART_RESET_S
            )
        if container.state is ContainerState.PAUSED:
            return agent.state is not AgentState.PAUSED
        return agent.state in (AgentState.RUNNING, AgentState.PAUSED) or _is_due(agent, now)

    def _is_as_recorded(self, agent: Agent, container: Container) -> bool:
        route = self._fleet.route(agent.id)
        if agent.state is not AgentState.RUNNING or not agent.should_run or route is None:
            return False
        targets = [target for target in route.targets if not target.is_retired]
        same = [target for target in targets if target.address == (container.address, agent.port)]
        return bool(same) and (route.gate is Gate.OPEN or self._fleet.probe_of(agent.id) is not None)

    def _reconcile(self, agent: Agent, container: Container | None) -> None:
        if container is None or container.state is ContainerState.GONE:
            self._lost(agent)
            return
        if container.id != agent.container_id:
            agent = self._fleet.save(agent, container_id=container.id)
        if container.state is ContainerState.RUNNING:
            self._running(agent, container)
        elif container.state is ContainerState.PAUSED:
            self._paused(agent)
        elif agent.state in (AgentState.RUNNING, AgentState.PAUSED):
            self._schedule(self._lifecycle.over(agent, container))
        elif agent.state is AgentState.CREATED and container.state is ContainerState.EXITED:
            self._lifecycle.over(agent, container)  # started and ended while nobody looked
        else:
            self._schedule(agent)

    def _lost(self, agent: Agent) -> None:
        """Its container is not there: removed from outside, or there never was one."""
        was_alive = agent.state in (AgentState.RUNNING, AgentState.PAUSED)
        if not was_alive and not agent.container_id:
            self._schedule(agent)
            return
        self._fleet.detach(agent.id)
        never_ran = agent.state in (AgentState.CREATED, AgentState.FAILED)
        log.warning("container was removed from outside", extra={"agent_id": agent.id, "agent": agent.name})
        self._fleet.save(
            agent,
            state=agent.state if never_ran else AgentState.STOPPED,
            reason=agent.reason if never_ran else "its container was removed from outside",
            container_id="",
            should_run=False,
            next_restart_at=0.0,
        )

    def _running(self, agent: Agent, container: Container) -> None:
        self._fleet.attach(agent, container)
        ran_s = time.time() - container.started_at
        wanted = msgspec.structs.replace(
            agent,
            state=AgentState.RUNNING,
            reason="",
            should_run=True,
            next_restart_at=0.0,
            started_at=container.started_at,
            crashes=0 if ran_s > defaults.RESTART_RESET_S else agent.crashes,
        )
        if wanted != agent:
            self._fleet.save(wanted)

    def _paused(self, agent: Agent) -> None:
        self._fleet.close(agent.id)
        if agent.state is not AgentState.PAUSED:
            self._fleet.save(agent, state=AgentState.PAUSED, reason="", should_run=True, next_restart_at=0.0)

    # Restarting

    def _schedule(self, agent: Agent) -> None:
        """Restart a crashed agent when its time has come; nothing to do for any other."""
        if not _is_due(agent, float("inf")) or self._restarting.get(agent.id) == agent.next_restart_at:
            return
        self._restarting[agent.id] = agent.next_restart_at
        self._spawn(f"restart {agent.name}", self._restart_later, agent.id, agent.next_restart_at)

    def _restart_later(self, agent_id: str, due: float) -> None:
        now = clock.now()
        if not _has_come(due, now):
            gevent.sleep(due - now)
        try:
            with self._restarts, self._fleet.locked(agent_id) as agent:
                if _is_due(agent, clock.now()) and agent.next_restart_at == due:
                    self._restart(agent)
        except AgentainerError as error:
            log.warning("an agent could not be restarted, and will be: %s", error, extra={"agent_id": agent_id})
        finally:
            if self._restarting.get(agent_id) == due:
                del self._restarting[agent_id]

    def _restart(self, agent: Agent) -> None:
        try:
            agent = self._lifecycle.up(msgspec.structs.replace(agent, restarts=agent.restarts + 1))
        except Unavailable:
            self._fleet.hold(agent.id)
            raise
        except AgentainerError as error:
            code = error.details.get("exit_code")
            end = Exit(code=code if isinstance(code, int) else 0, at=time.time(), error=error.message)
            agent = self._lifecycle.crashed(self._fleet.find(agent.id), end)
        self._restarting.pop(agent.id, None)
        self._schedule(agent)


def _is_due(agent: Agent, now: float) -> bool:
    """Return whether a stopped agent is to be restarted at `now`."""
    is_waiting = agent.state is AgentState.STOPPED and agent.should_run and agent.next_restart_at > 0
    return is_waiting and _has_come(agent.next_restart_at, now)


def _has_come(due: float, now: float) -> bool:
    """Return whether the time of a restart has come; also where no back-off is so long: the clock was set back."""
    return not now < due <= now + defaults.MAX_RESTART_BACKOFF_S


def _by_agent(agents: list[Agent], containers: list[Container]) -> dict[str, Container]:
    """Return each agent's container: the recorded one, else the one that has the name of an agent's container."""
    recorded = {agent.id: agent.container_id for agent in agents}
    found: dict[str, Container] = {}
    for container in containers:
        is_recorded = recorded.get(container.agent_id) == container.id
        if is_recorded or (container.agent_id not in found and container.name == container_name(container.agent_id)):
            found[container.agent_id] = container
    return found
