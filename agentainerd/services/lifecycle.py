"""Bringing the containers of one agent up and down, and what the end of one means. The verbs of people and the reconcile of
state_sync.py are both made of these steps; every caller holds the agent's lock.

The order of writes: the intention (`should_run`) is stored before the engine is asked, the result after. A daemon that dies
in between finds at its next start an intention and a container, and goes on from there. Replicas are started and stopped
side by side.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import gevent
import msgspec
from gevent.lock import BoundedSemaphore

from agentainerd import clock, defaults
from agentainerd.errors import AgentainerError, Unavailable
from agentainerd.model.agents import Agent
from agentainerd.model.containers import Container, ContainerState
from agentainerd.model.replicas import AgentState, Exit
from agentainerd.services.containers import Containers
from agentainerd.services.fleet import Fleet

log = logging.getLogger(__name__)

DRAIN_POLL_S = 0.01
MAX_AT_ONCE = 8  # replicas that are started or stopped side by side

Spawn = Callable[..., gevent.Greenlet]
T = TypeVar("T")


@dataclass(slots=True)
class _Start:
    """How the start of one replica went: `container` as it was then, or the error."""

    number: int
    container_id: str
    container: Container | None = None
    error: AgentainerError | None = None


class Lifecycle:
    """`up`, `down` and `over`; see the module."""

    def __init__(self, fleet: Fleet, containers: Containers, spawn: Spawn) -> None:
        self._fleet = fleet
        self._containers = containers
        self._spawn = spawn
        self._places = BoundedSemaphore(MAX_AT_ONCE)

    def up(self, agent: Agent, numbers: Collection[int] = ()) -> Agent:
        """Start replicas (default: all that do not run), made anew where they have no container, and let probes admit them.

        Requests wait meanwhile. A program that exits at once is no error: its replica is then stopped or failed. Neither is a
        replica that could not be started beside others that were: it is failed, and says why.

        Raises:
            Failed: the engine could not start any. NotFound: the image is gone. InvalidParameter: a volume is.
            Conflict: a container's name is taken by a stranger.
            Unavailable: engine or Redis; the stored state of what was not started is what it was.
        """
        wanted = [
            replica.number
            for replica in agent.replicas
            if (replica.number in numbers if numbers else replica.state is not AgentState.RUNNING)
        ]
        self._fleet.expect(agent.id)
        try:
            found = self._containers.find(agent)
        except AgentainerError:
            self._fleet.settle(agent)
            raise
        starts = self._each(wanted, lambda number: self._start(agent, number, found.get(number)))
        return self._started(agent, starts)

    def down(self, agent: Agent, grace_s: float, number: int = 0) -> None:
        """Let what is in flight finish, up to `grace_s`, then stop a replica, or with `number` 0 all (SIGTERM, and SIGKILL
        after `grace_s`). `agent` says what comes next (Fleet.detach).

        No request gets through to them when this is called, or a stream of requests would never end.
        """
        replicas = [replica for replica in agent.replicas if number in (0, replica.number)]
        if any(replica.state is not AgentState.PAUSED for replica in replicas):
            self.drain(agent, grace_s, number)
        alive = {replica.number: replica.container_id for replica in replicas if replica.container_id}
        self._each(list(alive), lambda each: self._containers.stop(alive[each], grace_s))
        self._fleet.detach(agent, *(replica.number for replica in replicas))

    def drain(self, agent: Agent, grace_s: float, number: int = 0) -> None:
        """Wait until nothing is in flight at a replica, or with `number` 0 at any; at most `grace_s`."""
        route = self._fleet.route(agent.id)
        end = time.monotonic() + grace_s
        while route and time.monotonic() < end:
            if not any(target.in_flight for target in route.targets if number in (0, target.number)):
                return
            gevent.sleep(DRAIN_POLL_S)

    def over(self, agent: Agent, number: int, container: Container) -> Agent:
        """A replica's container ended, and nobody asked for that: record how, and decide what comes next."""
        return self.crashed(
            agent,
            number,
            Exit(
                code=container.exit_code,
                oom_killed=container.oom_killed,
                # An end that comes at once can be dated before the beginning: the engine takes the times in two processes.
                at=max(container.finished_at, container.started_at) if container.finished_at else time.time(),
                error=container.error,
                log=self._containers.last_lines(container.id),
            ),
            ran_s=max(0.0, container.finished_at - container.started_at),
        )

    def unwell(self, agent: Agent, number: int, message: str, *, well_s: float) -> Agent:
        """Stop a replica whose health check gave up on it, after what it has in flight, and go on as if it had crashed.

        `well_s`: how long it had been well; a run that never was counts as a crash at once.
        """
        self._fleet.dismiss(agent.id, number)
        container_id = agent.replica(number).container_id
        lines = self._containers.last_lines(container_id)
        self.down(agent, agent.spec.stop_grace_s, number)
        reason = f"unhealthy: {message}"
        end = Exit(code=self._containers.exit_code(container_id), at=time.time(), error=reason, log=lines)
        return self.crashed(agent, number, end, ran_s=well_s, reason=reason)

    def crashed(self, agent: Agent, number: int, end: Exit, *, ran_s: float = 0.0, reason: str = "") -> Agent:
        """Store an end that nobody asked for: `stopped`, with a time for the restart if there will be one, or `failed`.

        `reason`: what the end itself does not say.
        """
        replica = agent.replica(number)
        crashes = 1 if ran_s >= defaults.RESTART_RESET_S else replica.crashes + 1
        restarts = replica.should_run and agent.spec.auto_restart
        gives_up = restarts and crashes >= defaults.CRASH_LOOP_LIMIT
        will_return = restarts and not gives_up
        reason = reason or exit_reason(end)
        if gives_up:
            reason = f"crash loop: {crashes} crashes in a row, the last one with {reason}"
        agent = agent.changed(
            number,
            state=AgentState.FAILED if gives_up else AgentState.STOPPED,
            reason=reason,
            last_exit=end,
            crashes=crashes,
            should_run=will_return,
            next_restart_at=clock.now() + restart_delay_s(crashes, ran_s) if will_return else 0.0,
        )
        self._fleet.detach(agent, number)
        level = logging.INFO if agent.is_ephemeral else logging.WARNING  # the end of a job is told by the job
        log.log(level, "agent ended: %s", reason, extra=_fields(agent, number))
        return self._fleet.save(agent)

    def forgive(self, agent: Agent, number: int) -> Agent:
        """Undo that the last end of a replica counted as a crash: it is due for a restart, also where it had been given up."""
        replica = agent.replica(number)
        gave_up = replica.state is AgentState.FAILED and replica.crashes >= defaults.CRASH_LOOP_LIMIT
        if not replica.crashes or not (gave_up or (replica.state is AgentState.STOPPED and replica.should_run)):
            return agent
        agent = agent.changed(
            number,
            state=AgentState.STOPPED,
            reason="its engine ended",
            crashes=replica.crashes - 1,
            should_run=True,
            next_restart_at=clock.now(),
        )
        self._fleet.expect(agent.id)
        log.info("agent ended with its engine, and is started again", extra=_fields(agent, number))
        return self._fleet.save(agent)

    def failed(self, agent: Agent, error: AgentainerError, numbers: Collection[int] = ()) -> Agent:
        """Store that a person's start failed, of replicas (default: all that do not run)."""
        for replica in agent.replicas:
            if replica.number in numbers if numbers else not replica.is_alive:
                agent = agent.changed(replica.number, **_failure(error))
                self._fleet.detach(agent, replica.number)
        return self._fleet.save(agent)

    def shrink(self, agent: Agent) -> Agent:
        """Take the replicas away that its spec has no more: no new request, what is in flight finishes, then stop and remove.

        Raises:
            Unavailable: engine or Redis; those that are left are taken away by the next reconcile.
        """
        leaving = [replica.number for replica in agent.replicas if replica.number > agent.spec.replicas]
        for number in leaving:
            self._fleet.dismiss(agent.id, number)
        found = self._containers.find(agent)
        self._each(leaving, lambda number: self._leave(agent, number, found.get(number)))
        agent = msgspec.structs.replace(
            agent, replicas=tuple(replica for replica in agent.replicas if replica.number not in leaving)
        )
        self._fleet.detach(agent, *leaving)
        self.rename(agent)
        return self._fleet.save(agent)

    def find(self, agent: Agent) -> dict[int, Container]:
        """Return the containers of the agent's replicas (Containers.find)."""
        return self._containers.find(agent)

    def remove(self, agent: Agent, containers: Mapping[int, Container]) -> None:
        """Remove the containers of an agent by force."""
        self._each(list(containers), lambda number: self._containers.remove(containers[number].id))

    def rename(self, agent: Agent) -> None:
        """Call the containers as the agent's number of replicas wants it."""
        for replica in agent.replicas:
            if replica.container_id:
                self._containers.rename(agent, replica.number, replica.container_id)

    def _leave(self, agent: Agent, number: int, container: Container | None) -> None:
        self.drain(agent, agent.spec.stop_grace_s, number)
        if container is not None:
            self._containers.stop(container.id, agent.spec.stop_grace_s)
            self._containers.remove(container.id)

    def _start(self, agent: Agent, number: int, container: Container | None) -> _Start:
        start = _Start(number, container.id if container is not None else "")
        try:
            start.container_id = self._containers.ready_to_start(agent, number, container)
            start.container = self._containers.start(start.container_id)
        except AgentainerError as error:
            start.error = error
        return start

    def _started(self, agent: Agent, starts: Sequence[_Start]) -> Agent:
        """Store what came of starts, and let requests through to those that run."""
        errors = [start.error for start in starts if start.error is not None]
        worst = next((error for error in errors if isinstance(error, Unavailable)), None)
        is_lost = len(errors) == len(starts)
        for start in starts:
            agent = agent.changed(start.number, container_id=start.container_id)
            if start.container is not None:
                agent = agent.changed(start.number, **_success(start.container))
            elif not is_lost and not isinstance(start.error, Unavailable):
                agent = agent.changed(start.number, **_failure(start.error))
        for start in starts:
            if start.container is not None and start.container.state is ContainerState.RUNNING:
                self._fleet.attach(agent, start.number, start.container)
        self._fleet.settle(agent)
        agent = self._fleet.save(agent)
        if errors and (is_lost or worst):
            raise worst or errors[0]
        for start in starts:
            if start.container is not None and start.container.state is not ContainerState.RUNNING:
                agent = self.over(agent, start.number, start.container)
            elif start.container is not None:
                log.info("agent started", extra=_fields(agent, start.number))
        return agent

    def _each(self, numbers: Sequence[int], function: Callable[[int], T]) -> list[T]:
        """Do something for several replicas side by side; the first error is raised when all have ended."""
        if len(numbers) == 1:
            return [function(numbers[0])]
        tasks = [self._spawn(f"replica {number}", self._guarded, function, number) for number in numbers]
        gevent.joinall(tasks)
        values: list[T] = []
        for task in tasks:
            if isinstance(task.value, AgentainerError):
                raise task.value
            if not isinstance(task.value, tuple):
                raise Unavailable("agentainerd stops")
            values.append(task.value[0])
        return values

    def _guarded(self, function: Callable[[int], T], number: int) -> tuple[T] | AgentainerError:
        with self._places:
            try:
                return (function(number),)
            except AgentainerError as error:
                return error


def restart_delay_s(crashes: int, ran_s: float = 0.0) -> float:
    """Return how long to wait after the given number of crashes in a row: only a moment after the first one, or a good run."""
    if crashes <= 1 or ran_s >= defaults.RUN_WELL_S:
        return defaults.FIRST_RESTART_S
    return float(min(defaults.RESTART_BACKOFF_S * 2 ** min(crashes - 1, 16), defaults.MAX_RESTART_BACKOFF_S))


def exit_reason(end: Exit) -> str:
    """Return how a container ended, in one clause: "exit 137, out of memory"."""
    if end.oom_killed:
        return f"exit {end.code}, out of memory"
    if end.error and end.code in (0, 126, 127, 128):
        return end.error
    known = {126: "command not executable", 127: "command not found", 137: "killed", 139: "segmentation fault"}
    return f"exit {end.code}, {known[end.code]}" if end.code in known else f"exit {end.code}"


def _success(container: Container) -> dict[str, object]:
    return {
        "state": AgentState.RUNNING,
        "reason": "",
        "should_run": True,
        "next_restart_at": 0.0,
        "is_idle": False,
        "started_at": container.started_at,
    }


def _failure(error: AgentainerError | None) -> dict[str, object]:
    message = error.message if error else ""
    code = error.details.get("exit_code") if error else 0
    end = Exit(code=code if isinstance(code, int) else 0, at=time.time(), error=message)
    return {
        "state": AgentState.FAILED,
        "reason": message,
        "last_exit": end,
        "should_run": False,
        "next_restart_at": 0.0,
        "is_idle": False,
    }


def _fields(agent: Agent, number: int) -> dict[str, object]:
    """Return the fields of a line in the log."""
    fields: dict[str, object] = {"agent_id": agent.id, "agent": agent.name}
    return fields if agent.spec.replicas == 1 else {**fields, "replica": number}
