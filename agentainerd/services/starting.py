"""Starting for a person: what a verb adds to `Lifecycle.up`, waiting until it is ready, and why it is not."""

import time
from collections.abc import Callable, Collection

from agentainerd.engine.engine import Engine
from agentainerd.errors import AgentainerError, Conflict, DeadlineExceeded, Failed
from agentainerd.model.agents import Agent
from agentainerd.model.replicas import AgentState, Exit, Replica
from agentainerd.services.fleet import Fleet
from agentainerd.services.lifecycle import Lifecycle
from agentainerd.services.repositories import wait_for_repository


class Starting:
    """The starts of verbs. `sync(agent_id)` makes the stored state of one agent agree with the engine now."""

    def __init__(self, fleet: Fleet, lifecycle: Lifecycle, engine: Engine, sync: Callable[[str], object]) -> None:
        self._fleet = fleet
        self._lifecycle = lifecycle
        self._engine = engine
        self._sync = sync

    def up(self, agent: Agent, numbers: Collection[int] = ()) -> Agent:
        """Start replicas (default: all that do not run): earlier crashes are forgotten, a failure is stored and raised.

        The caller holds the agent's lock. Raises: as Lifecycle.up.
        """
        for replica in agent.replicas:
            if replica.state is not AgentState.RUNNING and (not numbers or replica.number in numbers):
                agent = agent.changed(replica.number, crashes=0)
        try:
            return self._lifecycle.up(agent, numbers)
        except AgentainerError as error:
            if error.code == "AGENT_START_FAILED":
                self._lifecycle.failed(self._fleet.find(agent.id), error, numbers)
            raise

    def when_ready(self, agent: Agent, wait_s: float | None, numbers: Collection[int] = ()) -> Agent:
        """Block until replicas (default: all) are ready, at most `wait_s` seconds; None: do not wait.

        Raises:
            Failed: one ended, code AGENT_EXITED, or can't have its repository, REPOSITORY_FAILED. DeadlineExceeded: code
                AGENT_NOT_READY. Conflict: somebody stopped it.
        """
        if wait_s is None:
            return agent
        end = time.monotonic() + wait_s
        started = {
            replica.number: replica.started_at for replica in agent.replicas if not numbers or replica.number in numbers
        }
        for probe in self._fleet.probes_of(agent.id):
            if probe.target.number in started:
                started[probe.target.number] = probe.target.started_at
                probe.ended.wait(max(0.0, end - time.monotonic()))
        route = self._fleet.route(agent.id)
        ready = {target.number for target in route.serving} if route else set()
        missing = next((number for number in started if number not in ready), 0)
        if not missing:
            for target in route.serving if route else ():
                if target.number in started:
                    wait_for_repository(agent, target, end)
            return self._fleet.find(agent.id)
        self._sync(agent.id)
        agent = self._fleet.find(agent.id)
        raise start_error(
            agent,
            agent.replica(missing),
            started_at=started[missing],
            waited_s=wait_s,
            exposed=self._exposed(agent),
        )

    def _exposed(self, agent: Agent) -> tuple[int, ...]:
        try:
            return self._engine.image(agent.image_id or agent.spec.image).exposed
        except AgentainerError:
            return ()


def start_error(
    agent: Agent, replica: Replica, *, started_at: float, waited_s: float, exposed: tuple[int, ...] = ()
) -> AgentainerError:
    """Return why a replica is not ready `waited_s` after its run of `started_at` began, with the evidence.

    `exposed`: the ports that its image names, for the case that it listens elsewhere.
    """
    end = replica.last_exit
    name = agent.name if agent.spec.replicas == 1 else f"{agent.name}-{replica.number}"
    if end is not None and end.at >= started_at:
        return Failed(
            f"agent '{name}' {_how_it_ended(agent, end, end.at - started_at)}",
            code="AGENT_EXITED",
            hint=f"fix it and: agentainerctl start {agent.name}   (full log: agentainerctl logs {agent.name})",
            details={"exit_code": end.code, "oom_killed": end.oom_killed, "log": list(end.log)},
        )
    if replica.state is not AgentState.RUNNING:
        return Conflict(
            f"agent '{name}' is {replica.state}: somebody changed it meanwhile", code=f"AGENT_{replica.state.upper()}"
        )
    also = f" (EXPOSE says {', '.join(map(str, exposed))})" if exposed and agent.port not in exposed else ""
    return DeadlineExceeded(
        f"'{name}' is running but nothing answers on port {agent.port} after {waited_s:g} s{also}",
        code="AGENT_NOT_READY",
        hint=f"agentainerctl logs {agent.name}",
        details={"port": agent.port, "exposed": list(exposed)},
    )


def _how_it_ended(agent: Agent, end: Exit, ran_s: float) -> str:
    if end.oom_killed:
        limit = f"{agent.spec.memory_limit / 2**20:g} MiB"
        return f"was killed: out of memory (limit {limit}), {ran_s:.1f} s after start"
    what = {126: ": its command cannot be executed", 127: ": its command was not found"}.get(end.code, "")
    return f"exited {ran_s:.1f} s after start (exit {end.code}){what}"
