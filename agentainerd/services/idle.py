"""Agents that nobody asks for anything: they are stopped, and started by the next request, which waits.

An agent sleeps as `stopped (idle)`. Its gate holds: a request that comes waits for the start, up to the agent's hold time, and is
queued then, like with any start. What was queued otherwise (`Prefer: respond-async`, by a daemon that is gone) wakes it too,
at the next look.
"""

import logging
import time
from collections.abc import Callable

from agentainerd.errors import AgentainerError, NotFound, Unavailable
from agentainerd.model.agents import Agent
from agentainerd.model.replicas import AgentState
from agentainerd.services.fleet import Fleet
from agentainerd.services.lifecycle import Lifecycle
from agentainerd.services.starting import Starting
from agentainerd.store.requests import RequestStore

log = logging.getLogger(__name__)

IDLE = "idle"
"""The reason of an agent that sleeps."""
PAUSE_S = 10.0  # after a stop or a start that failed


class IdleService:
    """Puts agents to sleep, and wakes them. `run_once` is a loop's body; `wake` may be called at any time and never blocks."""

    def __init__(
        self,
        fleet: Fleet,
        lifecycle: Lifecycle,
        starting: Starting,
        requests: RequestStore,
        *,
        spawn: Callable[..., object],
    ) -> None:
        self._fleet = fleet
        self._lifecycle = lifecycle
        self._starting = starting
        self._requests = requests
        self._spawn = spawn
        self._under_way: set[str] = set()
        self._wanted: set[str] = set()
        self._not_before: dict[str, float] = {}

    def run_once(self, now: float) -> int:
        """Begin to stop the agents that were idle for so long as they may be, and to wake those that have requests waiting.

        Returns how many those are.

        Raises:
            Unavailable: Redis does not answer.
        """
        begun = 0
        sleeping = []
        for route in self._fleet.routes.routes():
            if route.on_wanted is not None:
                sleeping.append(route.agent_id)
            elif route.idle_timeout_s and route.idle_s() >= route.idle_timeout_s:
                begun += self._begin(route.agent_id, self._rest)
        for agent_id, counts in self._requests.counts_of(sleeping).items() if sleeping else ():
            if counts.pending:
                begun += self._begin(agent_id, self._wake)
        return begun

    def wake(self, agent_id: str) -> None:
        """Start an agent that sleeps, in the background; one that is just being stopped when it is."""
        if not self._begin(agent_id, self._wake):
            self._wanted.add(agent_id)

    def _begin(self, agent_id: str, function: Callable[[Agent], None]) -> bool:
        if agent_id in self._under_way or time.monotonic() < self._not_before.get(agent_id, 0.0):
            return False
        self._under_way.add(agent_id)
        self._spawn(f"idle {agent_id}", self._run, agent_id, function)
        return True

    def _run(self, agent_id: str, function: Callable[[Agent], None]) -> None:
        try:
            with self._fleet.locked(agent_id) as agent:
                function(agent)
            self._not_before.pop(agent_id, None)
        except AgentainerError as error:
            if isinstance(error, NotFound) and error.noun == "agent":
                return  # it was removed meanwhile
            log.warning("an idle agent could not be stopped or started: %s", error, extra={"agent_id": agent_id})
            self._not_before[agent_id] = time.monotonic() + PAUSE_S
        finally:
            self._under_way.discard(agent_id)
        if agent_id in self._wanted:
            self._wanted.discard(agent_id)
            self._begin(agent_id, self._wake)

    def _rest(self, agent: Agent) -> None:
        route = self._fleet.route(agent.id)
        if route is None or self._requests.counts_of([agent.id])[agent.id].pending:
            return
        if not route.idle_timeout_s or route.idle_s() < route.idle_timeout_s:
            return  # a request came while we waited
        self._fleet.rest(agent)
        before = agent
        for replica in agent.replicas:
            if replica.is_alive or replica.next_restart_at:
                agent = agent.changed(replica.number, is_idle=True, should_run=False, next_restart_at=0.0)
        try:
            agent = self._fleet.save(agent)
            self._lifecycle.down(agent, agent.spec.stop_grace_s)
        except AgentainerError:
            self._fleet.settle(before)
            self._fleet.reopen(agent.id)
            self._fleet.save(before)
            raise
        for replica in agent.replicas:
            if replica.is_idle:
                agent = agent.changed(replica.number, state=AgentState.STOPPED, reason=IDLE, crashes=0)
        self._fleet.save(agent)
        log.info("agent is idle, and stopped", extra={"agent_id": agent.id, "agent": agent.name})

    def _wake(self, agent: Agent) -> None:
        if not agent.is_idle:
            return
        log.info("agent is started by a request", extra={"agent_id": agent.id, "agent": agent.name})
        try:
            self._starting.up(agent)
        except Unavailable:
            raise
        except AgentainerError as error:
            if error.code != "AGENT_START_FAILED":  # which is written down already
                self._lifecycle.failed(self._fleet.find(agent.id), error)
            raise
