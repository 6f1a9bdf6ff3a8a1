"""Changing an agent that is there: at once where the daemon or the engine can, with new containers where they can't."""

import logging
import time
from collections.abc import Callable

import msgspec

from agentainerd import clock
from agentainerd.engine.engine import Engine
from agentainerd.errors import Unavailable
from agentainerd.model.agents import Agent, AgentSpec, UpdateStrategy, validate
from agentainerd.model.deployments import Change, Need, ResolvedSpec, changes_of
from agentainerd.model.events import Action
from agentainerd.model.replicas import AgentState, Replica
from agentainerd.services.audit import Actor, AuditService
from agentainerd.services.containers import Containers
from agentainerd.services.events import EventService
from agentainerd.services.fleet import Fleet
from agentainerd.services.lifecycle import Lifecycle
from agentainerd.services.replicas import ReplicaService
from agentainerd.services.rollouts import Rollout
from agentainerd.services.specs import SpecResolver
from agentainerd.services.starting import Starting

log = logging.getLogger(__name__)

_DOWN: dict[str, object] = {"state": AgentState.STOPPED, "reason": "", "should_run": False}


class UpdateService:
    """`update`; see the module. `ref` is an id or a name. `doubt` is called when nobody knows which of two records is stored."""

    def __init__(  # noqa: PLR0913 - one for each service that it builds on
        self,
        fleet: Fleet,
        containers: Containers,
        rollout: Rollout,
        replicas: ReplicaService,
        *,
        lifecycle: Lifecycle,
        starting: Starting,
        doubt: Callable[[], object],
        resolver: SpecResolver,
        engine: Engine,
        audit: AuditService,
        events: EventService,
    ) -> None:
        self._fleet = fleet
        self._containers = containers
        self._rollout = rollout
        self._replicas = replicas
        self._lifecycle = lifecycle
        self._starting = starting
        self._doubt = doubt
        self._resolver = resolver
        self._engine = engine
        self._audit = audit
        self._events = events

    def update(self, ref: str, spec: AgentSpec, actor: Actor, *, wait_s: float) -> Agent:
        """Give an agent another spec of the same name. One that runs goes on to do so, with as many replicas as it then has;
        one that does not is left so. What needs other containers gets them while the old ones serve, up to `wait_s` seconds, or,
        with the strategy `recreate`, after these have ended.

        Raises:
            InvalidParameter: the spec. NotFound: no such agent, image or dependency. Conflict: it is paused, and its number of
                replicas changes; or a name is taken.
            Failed, DeadlineExceeded: as Rollout.replace: the agent is what it was. Unavailable: engine or Redis.
        """
        with self._audit.mutation(actor, "update_agent", ref) as entry, self._fleet.locked(ref) as agent:
            entry.target = f"{agent.id} ({agent.name})"
            wanted = self._resolver.resolve(validate(spec))
            changes = changes_of(agent, wanted)
            if changes:
                self._engine.ping()
                try:
                    self._change(agent, wanted, {change.needs for change in changes}, wait_s)
                except Unavailable:
                    self._doubt()
                    raise
                self._tell(agent, changes)
            return self._fleet.find(agent.id)

    def _change(self, agent: Agent, wanted: ResolvedSpec, needs: set[Need], wait_s: float) -> None:
        if Need.CONTAINER not in needs:
            if Need.LIMITS in needs:
                self._limit(agent, wanted)
            before = agent.spec.replicas
            agent = _with_spec(agent, wanted)
            self._fleet.configure(self._fleet.save(_with_replicas(agent, before)))
            if agent.spec.replicas != before:
                self._replicas.resize(agent, before)
        elif agent.state is AgentState.RUNNING and wanted.spec.update_strategy is UpdateStrategy.RECREATE:
            self._recreate(agent, wanted)
        elif agent.state is AgentState.RUNNING:
            self._rollout.replace(agent, _renewed(agent, wanted), wait_s)
        else:
            self._rebuild(agent, wanted)

    def _limit(self, agent: Agent, wanted: ResolvedSpec) -> None:
        limited = _with_spec(agent, wanted)
        for replica in agent.replicas:
            if replica.container_id:
                self._containers.limit(replica.container_id, limited)

    def _recreate(self, agent: Agent, wanted: ResolvedSpec) -> None:
        """End the containers, after what they have in flight, and start the new ones. Requests wait meanwhile, up to the agent's
        hold time, and are queued then. A daemon that dies in between finds replicas whose restart is due, of the one spec or the
        other.
        """
        agent = self._fleet.save(_due(self._claim(agent, wanted)))
        self._fleet.hold(agent.id)
        self._lifecycle.down(agent, agent.spec.stop_grace_s)
        for container in self._containers.find(agent).values():
            self._containers.remove(container.id)
        renewed = _due(_renewed(agent, wanted))
        self._fleet.store.scale(renewed)
        self._fleet.configure(renewed)
        self._starting.up(self._fleet.save(renewed))

    def _claim(self, agent: Agent, wanted: ResolvedSpec) -> Agent:
        """Take the names of its replicas while nothing is changed yet: another agent may have one. Raises Conflict."""
        if wanted.spec.replicas == agent.spec.replicas:
            return agent
        claimed = _with_replicas(agent, wanted.spec.replicas)
        self._fleet.store.scale(claimed)
        return claimed

    def _rebuild(self, agent: Agent, wanted: ResolvedSpec) -> None:
        """Nothing serves: remove the containers, so that the next start makes others. In this order: one that is left behind
        without a record of it would be adopted.
        """
        agent = self._claim(agent, wanted)
        self._fleet.close(agent.id)
        for container in self._containers.find(agent).values():
            self._containers.remove(container.id)
        self._fleet.detach(agent)
        renewed = _renewed(agent, wanted)
        self._fleet.store.scale(renewed)
        self._fleet.configure(renewed)
        self._fleet.settle(self._fleet.save(renewed))

    def _tell(self, agent: Agent, changes: tuple[Change, ...]) -> None:
        fields = ", ".join(change.field for change in changes)
        is_new = any(change.needs is Need.CONTAINER for change in changes)
        self._events.publish(
            Action.UPDATE, agent_id=agent.id, agent=agent.name, message=fields, replaced=is_new, changes=len(changes)
        )
        log.info("agent updated", extra={"agent_id": agent.id, "agent": agent.name, "changed": fields})


def _with_spec(agent: Agent, wanted: ResolvedSpec) -> Agent:
    return msgspec.structs.replace(
        agent,
        spec=wanted.spec,
        image_id=wanted.image_id,
        port=wanted.port,
        links=wanted.links,
        bridge=wanted.bridge,
        named_ports=wanted.named_ports,
        updated_at=time.time(),
    )


def _with_replicas(agent: Agent, replicas: int) -> Agent:
    """Return the agent with a number of replicas that it has now, until they are more or fewer."""
    return msgspec.structs.replace(agent, spec=msgspec.structs.replace(agent.spec, replicas=replicas))


def _due(agent: Agent) -> Agent:
    """Return the agent with all its replicas stopped, and their restart due."""
    return agent.changed(state=AgentState.STOPPED, reason="replaced", should_run=True, next_restart_at=clock.now())


def _renewed(agent: Agent, wanted: ResolvedSpec) -> Agent:
    """Return the record with a replica for each that there will be, without containers; what is known of the old ones is kept."""
    known = {replica.number: replica for replica in agent.replicas}
    kept = [known.get(number, Replica(number=number)) for number in range(1, wanted.spec.replicas + 1)]
    replicas = tuple(
        msgspec.structs.replace(
            replica,
            container_id="",
            crashes=0,
            **(_DOWN if replica.is_alive else {}),
        )
        for replica in kept
    )
    return msgspec.structs.replace(_with_spec(agent, wanted), replicas=replicas)
