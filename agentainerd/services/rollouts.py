"""Giving an agent new containers while the old ones serve.

The new ones are started beside the old ones, under other names, and get no requests until all of them are ready. Then the
record is written, the requests of the next moment go to them, the old ones finish what they have, and go. If one of the new ones
does not get ready, all of them go, and nothing has changed. A daemon that dies in between finds either record, and
containers that are not in it, which it removes (state_sync.py).
"""

import logging
import time
from collections.abc import Callable, Mapping

import gevent
import msgspec
from gevent.lock import BoundedSemaphore

from agentainerd.errors import AgentainerError, Failed, NotFound, Unavailable
from agentainerd.model.agents import Agent
from agentainerd.model.containers import Container, ContainerState
from agentainerd.model.replicas import AgentState, Exit, Replica
from agentainerd.proxy.target import Target
from agentainerd.services.containers import Containers
from agentainerd.services.fleet import Fleet
from agentainerd.services.lifecycle import DRAIN_POLL_S, MAX_AT_ONCE
from agentainerd.services.readiness import Probe
from agentainerd.services.starting import start_error

log = logging.getLogger(__name__)

Spawn = Callable[..., gevent.Greenlet]


class Rollout:
    """Replaces the containers of agents; the caller holds the agent's lock."""

    def __init__(self, fleet: Fleet, containers: Containers, spawn: Spawn) -> None:
        self._fleet = fleet
        self._containers = containers
        self._spawn = spawn
        self._places = BoundedSemaphore(MAX_AT_ONCE)

    def replace(self, agent: Agent, wanted: Agent, wait_s: float) -> Agent:
        """Give an agent that runs the containers that `wanted` describes, each ready within `wait_s`, and return it as it is
        then.

        Needs room for both for a while. Blocks until the old ones are gone.

        Raises:
            Failed: a new one could not be started, or ended: code AGENT_START_FAILED or AGENT_EXITED.
            DeadlineExceeded: one is not ready in time: code AGENT_NOT_READY. Conflict: a name is taken.
            NotFound: the image. Unavailable: engine or Redis. In all cases the old ones serve on, and the record is as it was;
            after Unavailable of Redis only when it is back (state_sync.py).
        """
        before = self._containers.find(agent)
        ids: dict[int, str] = {}
        try:
            started = self._start(wanted, ids)
            self._wait(wanted, started, wait_s)
        except AgentainerError as error:
            self._fleet.unstage(agent.id)
            self._discard(ids)
            _say_kept(error, agent)
            raise
        old = self._succeed(_with_containers(wanted, started), ids)
        self._retire(wanted, before, old)
        return self._fleet.find(agent.id)

    def tidy(self, agent: Agent) -> None:
        """Remove what a replacement left behind that a daemon did not live to end."""
        for container in self._containers.strays(agent):
            log.info("a container of an older version is removed", extra={"agent_id": agent.id, "agent": agent.name})
            self._end(container.id, agent.spec.stop_grace_s)
        for replica in agent.replicas:
            if replica.container_id:
                self._containers.rename(agent, replica.number, replica.container_id)

    def _start(self, wanted: Agent, ids: dict[int, str]) -> dict[int, Container]:
        """Make and start one container for each replica, side by side; `ids` has those that were made, also where one fails."""
        numbers = [replica.number for replica in wanted.replicas]
        tasks = [self._spawn(f"successor {number}", self._start_one, wanted, number, ids) for number in numbers]
        gevent.joinall(tasks)
        values = [task.value for task in tasks]
        for value in values:
            if not isinstance(value, Container):
                raise value if isinstance(value, AgentainerError) else Unavailable("agentainerd stops")
        return dict(zip(numbers, values, strict=True))

    def _start_one(self, wanted: Agent, number: int, ids: dict[int, str]) -> Container | AgentainerError:
        with self._places:
            try:
                ids[number] = self._containers.make_successor(wanted, number)
                return self._containers.start(ids[number])
            except AgentainerError as error:
                return error

    def _wait(self, wanted: Agent, started: Mapping[int, Container], wait_s: float) -> None:
        """Block until all are ready at once. Raises: as `replace`."""
        probes: dict[int, Probe] = {}
        for number, container in started.items():
            if container.state is not ContainerState.RUNNING:
                raise self._why_not(wanted, number, container, wait_s)
            probe = self._fleet.stage(wanted, number, container)
            if probe is None:
                raise NotFound("agent", wanted.name)
            probes[number] = probe
        end = time.monotonic() + wait_s
        for probe in probes.values():
            probe.ended.wait(max(0.0, end - time.monotonic()))
        for number, probe in probes.items():
            if not probe.is_ready or probe.target.is_retired:
                raise self._why_not(wanted, number, started[number], wait_s)

    def _why_not(self, wanted: Agent, number: int, started: Container, wait_s: float) -> AgentainerError:
        try:
            now = self._containers.inspect(started.id)
        except NotFound:
            return Failed(f"a new container of '{wanted.name}' was removed from outside")
        lines = self._containers.last_lines(now.id)
        is_over = now.state is not ContainerState.RUNNING
        end = Exit(
            code=now.exit_code, oom_killed=now.oom_killed, at=max(now.finished_at, now.started_at), error=now.error, log=lines
        )  # fmt: skip
        replica = Replica(number=number, state=AgentState.RUNNING, last_exit=end if is_over else None)
        error = start_error(wanted, replica, started_at=started.started_at, waited_s=wait_s)
        error.details.setdefault("log", list(lines))
        return error

    def _succeed(self, agent: Agent, ids: Mapping[int, str]) -> list[Target]:
        try:
            return self._fleet.succeed(agent)
        except Unavailable:
            self._fleet.unstage(agent.id)  # which record there is nobody can say now: state_sync will
            raise
        except AgentainerError as error:
            self._fleet.unstage(agent.id)
            self._discard(ids)
            _say_kept(error, agent)
            raise

    def _retire(self, agent: Agent, before: Mapping[int, Container], old: list[Target]) -> None:
        """Let the old ones finish, and remove them; what fails is done by the next reconcile."""
        grace_s = agent.spec.stop_grace_s
        end = time.monotonic() + grace_s
        while any(target.in_flight for target in old) and time.monotonic() < end:
            gevent.sleep(DRAIN_POLL_S)
        gone = [self._spawn("predecessor", self._end_quietly, each.id, grace_s) for each in before.values()]
        gevent.joinall(gone)
        for target in old:
            self._fleet.end(target)
        try:
            self.tidy(self._fleet.find(agent.id))
        except AgentainerError as error:
            log.warning("what is left of a replacement will be removed: %s", error, extra={"agent_id": agent.id})

    def _discard(self, ids: Mapping[int, str]) -> None:
        for container_id in ids.values():
            self._end_quietly(container_id, 0)

    def _end_quietly(self, container_id: str, grace_s: float) -> None:
        try:
            self._end(container_id, grace_s)
        except AgentainerError as error:
            log.warning(
                "a container could not be removed, and will be: %s", error, extra={"container_id": container_id}
            )

    def _end(self, container_id: str, grace_s: float) -> None:
        if grace_s:
            self._containers.stop(container_id, grace_s)
        self._containers.remove(container_id)


def _with_containers(wanted: Agent, started: Mapping[int, Container]) -> Agent:
    """Return the record with the new containers, which run."""
    replicas = tuple(
        Replica(
            number=replica.number,
            state=AgentState.RUNNING,
            container_id=started[replica.number].id,
            should_run=True,
            restarts=replica.restarts,
            started_at=started[replica.number].started_at,
        )
        for replica in wanted.replicas
    )
    return msgspec.structs.replace(wanted, replicas=replicas)


def _say_kept(error: AgentainerError, agent: Agent) -> None:
    """Have an error say what became of the agent: nothing."""
    error.hint = f"'{agent.name}' goes on as it was; mend what is said above, and apply it again"
