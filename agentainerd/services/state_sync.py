"""Making the record of every agent agree with what the engine has: by events within milliseconds, by a look at everything
every few seconds, and after each gap in the events. And restarting what crashed.

The engine decides what is; the record says what should be. While the engine is away nothing changes.
"""

import logging
import time
from collections.abc import Callable

import gevent
from gevent.lock import BoundedSemaphore

from agentainerd import clock, defaults
from agentainerd.engine.engine import Engine
from agentainerd.errors import AgentainerError, NotFound, Unavailable
from agentainerd.model.agents import Agent
from agentainerd.model.containers import Container, ContainerState, EngineEvent
from agentainerd.model.replicas import AgentState, Exit, Replica, is_successor, number_of
from agentainerd.proxy.routing import Route
from agentainerd.proxy.target import Target
from agentainerd.services.containers import Containers
from agentainerd.services.fleet import Fleet
from agentainerd.services.lifecycle import Lifecycle

log = logging.getLogger(__name__)

LOOP = "state_sync"
MAX_RESTARTS_AT_ONCE = 4  # all agents of an engine that was restarted come back in fours
MAX_SYNCS_AT_ONCE = 4
REPORTED = ("start", "die", "oom", "pause", "unpause", "destroy")

Spawn = Callable[..., object]


class StateSync:
    """Reconciles. `load` comes first, then `watch`; after that `run_once` is a loop's body, and `sync` may be called at any time.
    `tidy` removes what a replacement of an agent's containers left behind (Rollout.tidy).

    `orphans`: containers with our label and no record, as of the last look; never touched. `on_reconnect` is called when the
    engine is there again, and must not block.
    """

    def __init__(
        self,
        fleet: Fleet,
        lifecycle: Lifecycle,
        containers: Containers,
        engine: Engine,
        *,
        tidy: Callable[[Agent], object],
        spawn: Spawn,
        wake: Callable[[str], object],
    ) -> None:
        self.orphans: list[Container] = []
        self.on_reconnect: Callable[[], object] = lambda: None
        self._fleet = fleet
        self._lifecycle = lifecycle
        self._containers = containers
        self._engine = engine
        self._tidy = tidy
        self._spawn = spawn
        self._wake = wake
        self._look_closely = True
        self._outage = (0.0, 0.0)  # of the engine, the last one: whatever ended in it, ended because of it
        self._forgiven: set[tuple[str, int, float]] = set()
        self._queued: set[str] = set()
        self._untidy: set[str] = set()
        self._restarting: dict[tuple[str, int], float] = {}
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
        self._untidy |= _untidy(containers, found)
        due = [
            agent
            for agent in agents
            if closely or agent.id in self._untidy or self._differs(agent, found.get(agent.id, {}), now)
        ]
        for place, agent in enumerate(due, 1):
            self._enqueue(agent.id)
            if place % defaults.BREATH == 0:
                gevent.sleep(0)
        return len(due)

    def doubt(self) -> None:
        """Somebody does not know what is stored, because Redis went away: look at all agents closely at the next look."""
        self._look_closely = True

    def sync(self, agent_id: str) -> None:
        """Make one agent agree with the engine; waits for whoever has its lock.

        Raises:
            Unavailable: engine or Redis.
        """
        try:
            with self._fleet.locked(agent_id) as agent, self._syncs:
                self._queued.discard(agent_id)  # what is told from here on is another matter
                self._reconcile(agent, self._containers.find(agent))
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
            if event.since:
                self._outage = (event.since - defaults.ENGINE_STOP_S, event.at)
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

    def _differs(self, agent: Agent, found: dict[int, Container], now: float) -> bool:
        """Return whether an agent needs a closer look; `found` is from the engine's list, which does not say all."""
        if len(agent.replicas) != agent.spec.replicas:
            return True
        return any(self._is_unlike(agent, replica, found.get(replica.number), now) for replica in agent.replicas)

    def _is_unlike(self, agent: Agent, replica: Replica, container: Container | None, now: float) -> bool:
        if container is None:
            return bool(replica.container_id) or replica.is_alive or _is_due(replica, now)
        if container.id != replica.container_id:
            return True
        if container.state is ContainerState.RUNNING:
            return not self._is_as_recorded(agent, replica, container) or bool(
                replica.crashes and now - replica.started_at > defaults.RESTART_RESET_S
            )
        if container.state is ContainerState.PAUSED:
            return replica.state is not AgentState.PAUSED
        return replica.is_alive or _is_due(replica, now)

    def _is_as_recorded(self, agent: Agent, replica: Replica, container: Container) -> bool:
        route = self._fleet.route(agent.id)
        if replica.state is not AgentState.RUNNING or not replica.should_run or route is None:
            return False
        watched = [probe.target for probe in self._fleet.probes_of(agent.id)]
        return any(
            target.number == replica.number and target.address == (container.address, agent.port)
            for target in (*route.serving, *watched)
            if not target.is_retired
        )

    def _reconcile(self, agent: Agent, found: dict[int, Container]) -> None:
        self._fleet.configure(agent)
        if agent.id in self._untidy:
            self._tidy(agent)
            self._untidy.discard(agent.id)
        if any(replica.number > agent.spec.replicas for replica in agent.replicas):
            agent = self._lifecycle.shrink(agent)
        for replica in agent.replicas:
            agent = self._reconcile_one(agent, replica, found.get(replica.number))
        for replica in agent.replicas:
            self._schedule(agent, replica)

    def _reconcile_one(self, agent: Agent, replica: Replica, container: Container | None) -> Agent:
        number = replica.number
        if container is None or container.state is ContainerState.GONE:
            return self._lost(agent, replica)
        if container.id != replica.container_id:
            agent = self._fleet.save(agent.changed(number, container_id=container.id))
        if container.state is ContainerState.RUNNING:
            return self._running(agent, replica, container)
        if container.state is ContainerState.PAUSED:
            return self._paused(agent, replica)
        never_seen = replica.state is AgentState.CREATED and container.state is ContainerState.EXITED
        if replica.is_alive or never_seen:  # or it was started, and ended, while nobody looked
            agent = self._lifecycle.over(agent, number, container)
        return self._forgive(agent, agent.replica(number))

    def _forgive(self, agent: Agent, replica: Replica) -> Agent:
        """An end that came with the engine's own is no crash of the agent's: it does not count, and is made good at once."""
        end = replica.last_exit
        key = (agent.id, replica.number, end.at if end is not None else 0.0)
        if end is None or key in self._forgiven or not self._outage[0] <= end.at <= self._outage[1]:
            return agent
        forgiven = self._lifecycle.forgive(agent, replica.number)
        if forgiven is not agent:
            self._forgiven = {one for one in self._forgiven if self._outage[0] <= one[2]} | {key}
        return forgiven

    def _lost(self, agent: Agent, replica: Replica) -> Agent:
        """Its container is not there: removed from outside, or there never was one."""
        if not replica.is_alive and not replica.container_id:
            return agent
        never_ran = replica.state in (AgentState.CREATED, AgentState.FAILED)
        log.warning("container was removed from outside", extra={"agent_id": agent.id, "agent": agent.name})
        agent = agent.changed(
            replica.number,
            state=replica.state if never_ran else AgentState.STOPPED,
            reason=replica.reason if never_ran else "its container was removed from outside",
            container_id="",
            should_run=False,
            next_restart_at=0.0,
        )
        self._fleet.detach(agent, replica.number)
        return self._fleet.save(agent)

    def _running(self, agent: Agent, replica: Replica, container: Container) -> Agent:
        ran_s = time.time() - container.started_at
        wanted = agent.changed(
            replica.number,
            state=AgentState.RUNNING,
            reason="",
            should_run=True,
            next_restart_at=0.0,
            is_idle=False,
            started_at=container.started_at,
            crashes=0 if ran_s > defaults.RESTART_RESET_S else replica.crashes,
        )
        self._fleet.attach(wanted, replica.number, container)
        return self._fleet.save(wanted) if wanted != agent else agent

    def _paused(self, agent: Agent, replica: Replica) -> Agent:
        paused = agent.changed(replica.number, state=AgentState.PAUSED, reason="", should_run=True, next_restart_at=0.0)
        self._fleet.dismiss(agent.id, replica.number)
        self._fleet.settle(paused)
        return self._fleet.save(paused) if replica.state is not AgentState.PAUSED else agent

    # Restarting

    def replace(self, route: Route, target: Target, message: str, well_s: float) -> None:
        """A replica is not well: restart it where that is wanted, by the way of a crash. Never blocks."""
        self._spawn(f"restart {route.name}", self._replace, route.agent_id, target, message, well_s)

    def _replace(self, agent_id: str, target: Target, message: str, well_s: float) -> None:
        try:
            with self._fleet.locked(agent_id) as agent:
                if agent.spec.auto_restart and not self._fleet.is_well(target):
                    agent = self._lifecycle.unwell(agent, target.number, message, well_s=well_s)
                    self._schedule(agent, agent.replica(target.number))
        except AgentainerError as error:
            if not _is_gone(error):
                log.warning("an unhealthy agent could not be restarted: %s", error, extra={"agent_id": agent_id})
                self._look_closely = True

    def _schedule(self, agent: Agent, replica: Replica) -> None:
        """Restart a crashed replica when its time has come; nothing to do for any other."""
        key = (agent.id, replica.number)
        if not _is_due(replica, float("inf")) or self._restarting.get(key) == replica.next_restart_at:
            return
        self._restarting[key] = replica.next_restart_at
        self._spawn(f"restart {agent.name}", self._restart_later, *key, replica.next_restart_at)

    def _restart_later(self, agent_id: str, number: int, due: float) -> None:
        now = clock.now()
        if not _has_come(due, now):
            gevent.sleep(due - now)
        try:
            with self._restarts, self._fleet.locked(agent_id) as agent:
                replica = agent.replica(number)
                if _is_due(replica, clock.now()) and replica.next_restart_at == due:
                    self._restart(agent, replica)
        except AgentainerError as error:
            if not _is_gone(error):
                log.warning("an agent could not be restarted, and will be: %s", error, extra={"agent_id": agent_id})
        finally:
            if self._restarting.get((agent_id, number)) == due:
                del self._restarting[(agent_id, number)]

    def _restart(self, agent: Agent, replica: Replica) -> None:
        number = replica.number
        try:
            agent = self._lifecycle.up(agent.changed(number, restarts=replica.restarts + 1), [number])
        except Unavailable:
            self._fleet.expect(agent.id)
            raise
        except AgentainerError as error:
            code = error.details.get("exit_code")
            end = Exit(code=code if isinstance(code, int) else 0, at=time.time(), error=error.message)
            agent = self._lifecycle.crashed(self._fleet.find(agent.id), number, end)
        self._restarting.pop((agent.id, number), None)
        self._schedule(agent, agent.replica(number))


def _is_due(replica: Replica, now: float) -> bool:
    """Return whether a stopped replica is to be restarted at `now`."""
    is_waiting = replica.state is AgentState.STOPPED and replica.should_run and replica.next_restart_at > 0
    return is_waiting and _has_come(replica.next_restart_at, now)


def _is_gone(error: AgentainerError) -> bool:
    """It was removed, or scaled down, meanwhile."""
    return isinstance(error, NotFound) and error.noun in ("agent", "replica")


def _has_come(due: float, now: float) -> bool:
    """Return whether the time of a restart has come; also where no back-off is so long: the clock was set back."""
    return not now < due <= now + defaults.MAX_RESTART_BACKOFF_S


def _by_agent(agents: list[Agent], containers: list[Container]) -> dict[str, dict[int, Container]]:
    """Return each agent's containers by replica: the recorded one, else the one that has the name of a replica's container."""
    recorded = {
        replica.container_id: replica.number for agent in agents for replica in agent.replicas if replica.container_id
    }
    found: dict[str, dict[int, Container]] = {}
    for container in sorted(containers, key=lambda container: container.id in recorded):
        number = recorded.get(container.id) or number_of(container.name, container.agent_id)
        if number:
            found.setdefault(container.agent_id, {})[number] = container
    return found


def _untidy(containers: list[Container], found: dict[str, dict[int, Container]]) -> set[str]:
    """Return the ids of agents that have containers, named as theirs are, beside those of their replicas."""
    known = {container.id for by_number in found.values() for container in by_number.values()}
    return {
        container.agent_id
        for container in containers
        if container.id not in known
        and container.agent_id in found
        and (number_of(container.name, container.agent_id) or is_successor(container.name, container.agent_id))
    }
