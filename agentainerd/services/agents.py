"""The verbs: deploy, start, stop, restart, pause, resume, remove, and the reads. Each mutation is one line of the audit.

Two verbs never interleave on one agent: each holds its lock from the first read to the last write.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import gevent

from agentainerd import clock, defaults
from agentainerd.engine.engine import Engine
from agentainerd.errors import AgentainerError
from agentainerd.model.agents import Agent, AgentSpec, validate
from agentainerd.model.events import Action
from agentainerd.model.replicas import AgentState, Replica
from agentainerd.services.audit import Actor, AuditService
from agentainerd.services.events import EventService
from agentainerd.services.fleet import Fleet
from agentainerd.services.health_reports import HealthReports
from agentainerd.services.lifecycle import Lifecycle
from agentainerd.services.log_merge import LogMerge
from agentainerd.services.logs import LogOptions, LogReader
from agentainerd.services.shared_redis import SharedRedisService
from agentainerd.services.specs import SpecResolver
from agentainerd.services.starting import Starting
from agentainerd.services.views import Json, agent_json
from agentainerd.store.requests import RequestStore

log = logging.getLogger(__name__)

ROLL_TIMEOUT_S = 60.0  # until a replica that was restarted is ready: the next one waits for it


@dataclass(frozen=True, slots=True)
class AgentFilter:
    """Which agents a list has. `status`: one of these states; `name`: a part of it; `labels`: all of these; `ephemeral`: those of
    jobs too.
    """

    status: tuple[AgentState, ...] = ()
    name: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    ephemeral: bool = False

    def matches(self, agent: Agent) -> bool:
        """Return whether the agent is wanted."""
        if (self.status and agent.state not in self.status) or (agent.is_ephemeral and not self.ephemeral):
            return False
        return self.name in agent.name and self.labels.items() <= agent.spec.labels.items()


@dataclass(frozen=True, slots=True)
class Home:
    """What an agent that is made for a job has beside its spec: its id, which is known before; see model.agents.Agent."""

    agent_id: str
    workspace: str
    pids_limit: int


class AgentService:
    """Verbs and reads of agents. `ref` is an id or a name everywhere."""

    def __init__(  # noqa: PLR0913 - one for each service that it builds on
        self,
        fleet: Fleet,
        lifecycle: Lifecycle,
        engine: Engine,
        requests: RequestStore,
        *,
        starting: Starting,
        health: HealthReports,
        spawn: Callable[..., object],
        resolver: SpecResolver,
        audit: AuditService,
        events: EventService,
        shared_redis: SharedRedisService,
    ) -> None:
        self._fleet = fleet
        self._lifecycle = lifecycle
        self._engine = engine
        self._requests = requests
        self._resolver = resolver
        self._audit = audit
        self._events = events
        self._starting = starting
        self._health = health
        self._spawn = spawn
        self._shared_redis = shared_redis

    # Verbs

    def deploy(self, spec: AgentSpec, actor: Actor, home: Home | None = None) -> Agent:
        """Create an agent, not running. The image must be on the engine. `home`: of one that is made for a job.

        Raises:
            InvalidParameter: the field and the reason. NotFound: the image, or an agent that it depends on.
            Conflict: the name is taken.
            Unavailable: engine or Redis; nothing was created.
        """
        with self._audit.mutation(actor, "deploy_agent", spec.name) as entry:
            wanted = self._resolver.resolve(validate(spec))
            now = time.time()
            agent = Agent(
                id=home.agent_id if home else new_agent_id(),
                spec=spec,
                replicas=tuple(Replica(number=number) for number in range(1, spec.replicas + 1)),
                image_id=wanted.image_id,
                port=wanted.port,
                links=wanted.links,
                bridge=wanted.bridge,
                named_ports=wanted.named_ports,
                workspace=home.workspace if home else "",
                pids_limit=home.pids_limit if home else 0,
                created_at=now,
                updated_at=now,
            )
            entry.target = f"{agent.id} ({agent.name})"
            self._fleet.store.create(agent)
            self._fleet.publish(agent)
        self._events.publish(Action.CREATE, agent_id=agent.id, agent=agent.name, image=spec.image)
        log.info("agent deployed", extra={"agent_id": agent.id, "agent": agent.name})
        return agent

    def start(self, ref: str, actor: Actor, *, wait_s: float | None = None) -> Agent:
        """Start a created, stopped or failed agent, or those of its replicas that do not run. A running one is returned as it is.

        Blocks until its containers run; with `wait_s` until it is ready, or that is sure not to be.

        Raises:
            NotFound: no such agent, or its image is gone. Conflict: it is paused.
            Failed: it can't be started, or (with `wait_s`) ended: code AGENT_START_FAILED or AGENT_EXITED.
            DeadlineExceeded: it runs, and is not ready within `wait_s`: code AGENT_NOT_READY.
            Unavailable: engine or Redis; the stored state is unchanged.
        """
        with self._changing(actor, "start_agent", ref) as agent:
            if any(replica.state is not AgentState.RUNNING for replica in agent.replicas):
                agent.require("start", AgentState.RUNNING, AgentState.CREATED, AgentState.STOPPED, AgentState.FAILED)
                agent = self._starting.up(agent)
        return self._starting.when_ready(agent, wait_s)

    def resume(self, ref: str, actor: Actor, *, wait_s: float | None = None) -> Agent:
        """Bring an agent back, whatever took it down: unpause, start, or make a lost container anew.

        Raises: as `start`; Conflict: it is running.
        """
        with self._changing(actor, "resume_agent", ref) as agent:
            agent.require("resume", AgentState.PAUSED, AgentState.CREATED, AgentState.STOPPED, AgentState.FAILED)
            agent = self._starting.up(agent)
        return self._starting.when_ready(agent, wait_s)

    def stop(self, ref: str, actor: Actor, *, grace_s: float | None = None) -> Agent:
        """Stop an agent; one that does not run is returned as it is. Requests are queued from now on.

        What is in flight may finish within `grace_s` (default: the agent's own), and then the program has as long to end
        before it is killed. An agent that waits for its restart is stopped too.
        """
        with self._changing(actor, "stop_agent", ref) as agent:
            if not agent.should_run and not agent.is_idle and not any(replica.is_alive for replica in agent.replicas):
                return agent
            self._engine.ping()
            self._fleet.close(agent.id)
            before = agent
            try:
                agent = self._fleet.save(agent.changed(should_run=False, next_restart_at=0.0, is_idle=False))
                self._lifecycle.down(agent, agent.spec.stop_grace_s if grace_s is None else grace_s)
            except AgentainerError:
                self._fleet.reopen(agent.id)
                self._fleet.save(before)
                raise
            agent = self._fleet.save(agent.changed(state=AgentState.STOPPED, reason="", crashes=0))
        log.info("agent stopped", extra={"agent_id": agent.id, "agent": agent.name})
        return agent

    def restart(self, ref: str, actor: Actor, *, wait_s: float | None = None) -> Agent:
        """Stop and start a running agent. Requests wait meanwhile, up to the agent's hold time, then they are queued.

        Replicas are restarted one after the other, each when the one before is ready, so that requests go to the others.

        Raises: as `start`; Conflict: it does not run. DeadlineExceeded: a replica was not ready in time, code AGENT_NOT_READY;
            those after it were not restarted.
        """
        with self._changing(actor, "restart_agent", ref) as agent:
            agent.require("restart", AgentState.RUNNING)
            self._engine.ping()
            for replica in agent.replicas:
                agent = self._restart_one(agent, replica)
                if replica is not agent.replicas[-1] and len(agent.replicas) > 1:
                    agent = self._starting.when_ready(agent, ROLL_TIMEOUT_S, [replica.number])
        return self._starting.when_ready(agent, wait_s)

    def restart_replica(self, ref: str, number: int, actor: Actor) -> Agent:
        """Stop and start one container of a running agent, whatever it is doing.

        Raises: as `restart`, and NotFound: there is no such replica.
        """
        with self._changing(actor, "restart_agent", ref) as agent:
            agent.require("restart", AgentState.RUNNING)
            self._engine.ping()
            return self._restart_one(agent, agent.replica(number))

    def pause(self, ref: str, actor: Actor) -> Agent:
        """Freeze a running agent; requests are queued from now on, and what is in flight may finish within its grace.

        Raises:
            Conflict: it does not run.
        """
        with self._changing(actor, "pause_agent", ref) as agent:
            agent.require("pause", AgentState.RUNNING)
            self._engine.ping()
            self._fleet.close(agent.id)
            try:
                self._lifecycle.drain(agent, agent.spec.stop_grace_s)
                for replica in agent.replicas:
                    if replica.state is AgentState.RUNNING:
                        self._engine.pause(replica.container_id)
                        agent = agent.changed(replica.number, state=AgentState.PAUSED, reason="")
                    elif replica.state is AgentState.STOPPED:
                        agent = agent.changed(replica.number, should_run=False, next_restart_at=0.0)
            except AgentainerError:
                self._fleet.reopen(agent.id)
                raise
            agent = self._fleet.save(agent)
        log.info("agent paused", extra={"agent_id": agent.id, "agent": agent.name})
        return agent

    def remove(self, ref: str, actor: Actor) -> Agent:
        """Remove an agent in any state, with its container, its record and its requests. Returns what it was.

        Raises:
            NotFound: no such agent. Unavailable: engine or Redis; repeat it then.
        """
        with self._changing(actor, "remove_agent", ref) as agent:
            containers = self._lifecycle.find(agent)
            removed = self._fleet.save(agent.changed(should_run=False, next_restart_at=0.0))
            self._fleet.withdraw(agent.id)
            try:
                self._lifecycle.remove(agent, containers)
                self._fleet.store.remove(agent.id)
                self._requests.forget_agent(agent.id)
            except AgentainerError:
                self._fleet.publish(removed)
                raise
            self._shared_redis.forget(agent)
        self._events.publish(Action.REMOVE, agent_id=agent.id, agent=agent.name)
        log.info("agent removed", extra={"agent_id": agent.id, "agent": agent.name})
        return agent

    # Reads

    def get(self, ref: str) -> Agent:
        """Return an agent as it is stored."""
        return self._fleet.find(ref)

    def page(self, wanted: AgentFilter, *, limit: int, cursor: str = "") -> tuple[Sequence[Agent], str]:
        """Return agents, oldest first, and the cursor of the next page ("" where this is the last one)."""
        agents = sorted(self._fleet.store.all(), key=_position)
        found = [agent for agent in agents if wanted.matches(agent) and _position(agent) > cursor]
        return found[:limit], _position(found[limit - 1]) if len(found) > limit else ""

    def public(self, agents: Sequence[Agent]) -> Sequence[Json]:
        """Return agents as the API shows them, with the counts of their requests. Lets others go on in between."""
        counts = self._requests.counts_of([agent.id for agent in agents])
        shown = []
        for agent in agents:
            shown.append(agent_json(agent, self._fleet.route(agent.id), counts[agent.id], self._health.state))
            if len(shown) % defaults.BREATH == 0:
                gevent.sleep(0)
        return shown

    def logs(self, ref: str, options: LogOptions) -> LogReader | LogMerge:
        """Return the agent's output, to be read piece by piece and closed: of all its replicas, or of one.

        Raises:
            NotFound: no such agent, or replica. Unavailable: the engine does not answer.
        """
        agent = self._fleet.find(ref)
        if options.replica or len(agent.replicas) == 1:
            return LogReader(self._fleet, self._engine, agent, options, options.replica or agent.replicas[0].number)
        return LogMerge(self._fleet, self._engine, agent, options, self._spawn)

    # Inside

    @contextmanager
    def _changing(self, actor: Actor, action: str, ref: str) -> Iterator[Agent]:
        with self._audit.mutation(actor, action, ref) as entry, self._fleet.locked(ref) as agent:
            entry.target = f"{agent.id} ({agent.name})"
            yield agent

    def _restart_one(self, agent: Agent, replica: Replica) -> Agent:
        number = replica.number
        if replica.state is not AgentState.RUNNING:
            return self._starting.up(agent, [number])
        self._fleet.dismiss(agent.id, number)
        # A daemon that dies from here on finds a replica whose restart is due.
        agent = agent.changed(
            number, state=AgentState.STOPPED, reason="restarting", should_run=True, next_restart_at=clock.now()
        )
        agent = self._fleet.save(agent)
        self._lifecycle.down(agent, agent.spec.stop_grace_s, number)
        return self._starting.up(agent, [number])


def new_agent_id() -> str:
    """Return an id that no agent had."""
    return f"agent-{secrets.token_hex(8)}"


def _position(agent: Agent) -> str:
    return f"{agent.created_at:017.6f}{agent.id}"
