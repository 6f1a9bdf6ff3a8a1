"""How many containers an agent has: `scale`."""

import logging
import time

import msgspec

from agentainerd import clock
from agentainerd.errors import AgentainerError
from agentainerd.model.agents import Agent, validate
from agentainerd.model.replicas import AgentState, Replica
from agentainerd.services.audit import Actor, AuditService
from agentainerd.services.fleet import Fleet
from agentainerd.services.lifecycle import Lifecycle
from agentainerd.services.starting import Starting

log = logging.getLogger(__name__)


class ReplicaService:
    """The number of replicas of agents; `ref` is an id or a name."""

    def __init__(self, fleet: Fleet, lifecycle: Lifecycle, *, starting: Starting, audit: AuditService) -> None:
        self._fleet = fleet
        self._lifecycle = lifecycle
        self._starting = starting
        self._audit = audit

    def scale(self, ref: str, replicas: int, actor: Actor, *, wait_s: float | None = None) -> Agent:
        """Give an agent so many replicas. Those of a running agent that are new are started; with `wait_s` until they are ready.

        Those with the highest numbers go: they get no more requests, finish what they have within the agent's grace, and
        are removed. This blocks until they are.

        Raises:
            NotFound: no such agent. InvalidParameter: the number. Conflict: the agent is paused, or another one is called as
                a new replica would be (code AGENT_NAME_TAKEN); nothing was changed.
            Failed, DeadlineExceeded: as AgentService.start, of the new replicas; the others go on.
            Unavailable: engine or Redis; what is left to do is done when they are back.
        """
        with self._audit.mutation(actor, "scale_agent", ref) as entry, self._fleet.locked(ref) as agent:
            entry.target = f"{agent.id} ({agent.name}) to {replicas}"
            spec = validate(msgspec.structs.replace(agent.spec, replicas=replicas))
            before = agent.spec.replicas
            if replicas != before:
                agent = self.resize(msgspec.structs.replace(agent, spec=spec), before)
        return self._starting.when_ready(agent, wait_s if agent.state is AgentState.RUNNING else None)

    def resize(self, agent: Agent, before: int) -> Agent:
        """Give an agent, whose spec says so, another number of replicas than `before`. The caller holds its lock.

        Raises: as `scale`.
        """
        agent.require("scale", AgentState.RUNNING, AgentState.STOPPED, AgentState.CREATED, AgentState.FAILED)
        agent = self._grow(agent, before) if agent.spec.replicas > before else self._shrink(agent)
        fields = {"agent_id": agent.id, "agent": agent.name, "replicas": agent.spec.replicas}
        log.info("agent scaled", extra=fields)
        return agent

    def _grow(self, agent: Agent, before: int) -> Agent:
        runs = agent.state is AgentState.RUNNING
        new = Replica(
            state=AgentState.STOPPED if runs else AgentState.CREATED,
            reason="starting" if runs else "",
            should_run=runs,
            next_restart_at=clock.now() if runs else 0.0,  # due, where the daemon dies before it started them
        )
        numbers = range(before + 1, agent.spec.replicas + 1)
        added = tuple(msgspec.structs.replace(new, number=number) for number in numbers)
        agent = msgspec.structs.replace(agent, replicas=agent.replicas + added, updated_at=time.time())
        self._fleet.store.scale(agent)
        self._fleet.reshape(agent)
        self._rename(agent)
        return self._starting.up(agent, numbers) if runs else agent

    def _shrink(self, agent: Agent) -> Agent:
        self._fleet.store.scale(agent)
        self._fleet.reshape(agent)
        return self._lifecycle.shrink(agent)

    def _rename(self, agent: Agent) -> None:
        try:
            self._lifecycle.rename(agent)
        except AgentainerError as error:
            log.warning("a container keeps its old name: %s", error, extra={"agent_id": agent.id})
