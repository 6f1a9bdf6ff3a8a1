"""Bringing the container of one agent up and down, and what its end means. The verbs of people and the reconcile of
state_sync.py are both made of these steps; every caller holds the agent's lock.

The order of writes: the intention (`should_run`) is stored before the engine is asked, the result after. A daemon that dies
in between finds at its next start an intention and a container, and goes on from there.
"""

import contextlib
import logging
import time

import gevent

from agentainerd import clock, defaults
from agentainerd.engine.engine import Engine
from agentainerd.errors import AgentainerError, Conflict, DeadlineExceeded, Failed, NotFound
from agentainerd.model.agents import Agent, AgentState, Exit
from agentainerd.model.containers import Container, ContainerSpec, ContainerState
from agentainerd.services.fleet import Fleet
from agentainerd.services.volumes import VolumePolicy

log = logging.getLogger(__name__)

DRAIN_POLL_S = 0.01
MAX_LOG_LINE_CHARS = 1000


def container_name(agent_id: str) -> str:
    """Return the name of an agent's container."""
    return f"agentainer-{agent_id}"


class Lifecycle:
    """`up`, `down` and `over`. `url` is where agents find the daemon."""

    def __init__(self, fleet: Fleet, engine: Engine, volumes: VolumePolicy, url: str) -> None:
        self._fleet = fleet
        self._engine = engine
        self._volumes = volumes
        self._url = url

    def up(self, agent: Agent) -> Agent:
        """Make the container if there is none, start it, and let a probe open the gate. Requests wait meanwhile.

        A program that exits at once is no error: the agent that is returned is then stopped or failed.

        Raises:
            Failed: the engine could not start it. NotFound: the image is gone. InvalidParameter: a volume is.
            Conflict: its container's name is taken by a stranger.
            Unavailable: engine or Redis; the stored state is what it was, the gate is closed.
        """
        self._fleet.hold(agent.id)
        try:
            agent, container = self._start(agent)
        except AgentainerError:
            self._fleet.detach(agent.id)
            raise
        is_running = container.state is ContainerState.RUNNING
        if is_running:
            self._fleet.attach(agent, container)
        agent = self._fleet.save(
            agent,
            state=AgentState.RUNNING,
            reason="",
            should_run=True,
            next_restart_at=0.0,
            started_at=container.started_at,
        )
        log.info("agent started", extra={"agent_id": agent.id, "agent": agent.name})
        return agent if is_running else self.over(agent, container)

    def down(self, agent: Agent, grace_s: float, *, will_return: bool = False) -> None:
        """Let what is in flight finish, up to `grace_s`, then stop the container (SIGTERM, and SIGKILL after `grace_s`).

        The gate is not open when this is called, or a stream of requests would never end.
        """
        if agent.state is not AgentState.PAUSED:
            self.drain(agent, grace_s)
        if agent.container_id:
            with contextlib.suppress(NotFound):
                self._engine.stop(agent.container_id, grace_s=grace_s)
        self._fleet.detach(agent.id, will_return=will_return)

    def drain(self, agent: Agent, grace_s: float) -> int:
        """Wait until nothing is in flight at the agent, at most `grace_s`; return how much still is."""
        route = self._fleet.route(agent.id)
        end = time.monotonic() + grace_s
        while route and route.in_flight and time.monotonic() < end:
            gevent.sleep(DRAIN_POLL_S)
        return route.in_flight if route else 0

    def over(self, agent: Agent, container: Container) -> Agent:
        """Its container ended, and nobody asked for that: record how, and decide what comes next."""
        return self.crashed(
            agent,
            Exit(
                code=container.exit_code,
                oom_killed=container.oom_killed,
                at=container.finished_at or time.time(),
                error=container.error,
                log=self.last_lines(container.id),
            ),
            ran_s=max(0.0, container.finished_at - container.started_at),
        )

    def crashed(self, agent: Agent, end: Exit, *, ran_s: float = 0.0) -> Agent:
        """Store an end that nobody asked for: `stopped`, with a time for the restart if there will be one, or `failed`."""
        crashes = 1 if ran_s >= defaults.RESTART_RESET_S else agent.crashes + 1
        restarts = agent.should_run and agent.spec.auto_restart
        gives_up = restarts and crashes >= defaults.CRASH_LOOP_LIMIT
        will_return = restarts and not gives_up
        reason = exit_reason(end)
        if gives_up:
            reason = f"crash loop: {crashes} crashes in a row, the last one with {reason}"
        self._fleet.detach(agent.id, will_return=will_return)
        log.warning("agent ended: %s", reason, extra={"agent_id": agent.id, "agent": agent.name})
        return self._fleet.save(
            agent,
            state=AgentState.FAILED if gives_up else AgentState.STOPPED,
            reason=reason,
            last_exit=end,
            crashes=crashes,
            should_run=will_return,
            next_restart_at=clock.now() + restart_delay_s(crashes) if will_return else 0.0,
        )

    def failed(self, agent: Agent, error: AgentainerError) -> Agent:
        """Store that a person's start failed."""
        code = error.details.get("exit_code")
        end = Exit(code=code if isinstance(code, int) else 0, at=time.time(), error=error.message)
        self._fleet.detach(agent.id)
        return self._fleet.save(
            agent,
            state=AgentState.FAILED,
            reason=error.message,
            last_exit=end,
            should_run=False,
            next_restart_at=0.0,
        )

    def last_lines(self, container_id: str) -> tuple[str, ...]:
        """Return the last lines of a container's output; none where the engine does not tell them."""
        try:
            stream = self._engine.logs(container_id, tail=defaults.CRASH_LOG_LINES)
        except AgentainerError:
            return ()
        data = bytearray()
        try:
            for piece in stream:
                data += piece.data
        except AgentainerError:
            log.debug("the log of a container broke off", extra={"container_id": container_id})
        finally:
            stream.close()
        lines = data.decode("utf-8", "replace").splitlines()[-defaults.CRASH_LOG_LINES :]
        return tuple(line[:MAX_LOG_LINE_CHARS] for line in lines)

    def find(self, agent: Agent) -> Container | None:
        """Return the agent's container as the engine sees it now; None where there is none.

        One that the record does not know (the daemon died before it could write it down) is found by label and name.
        """
        if agent.container_id:
            with contextlib.suppress(NotFound):
                return self._engine.inspect(agent.container_id)
        for container in self._engine.containers():
            if container.agent_id == agent.id and container.name == container_name(agent.id):
                with contextlib.suppress(NotFound):
                    return self._engine.inspect(container.id)
        return None

    def _start(self, agent: Agent) -> tuple[Agent, Container]:
        container = self.find(agent)
        if container is None or container.state is ContainerState.GONE:
            agent = self._fleet.save(agent, container_id=self._create(agent))
        elif container.id != agent.container_id:
            agent = self._fleet.save(agent, container_id=container.id)
        if container is not None and container.state is ContainerState.PAUSED:
            self._engine.unpause(container.id)
        return agent, self._engine.start(agent.container_id)

    def _create(self, agent: Agent) -> str:
        spec = agent.spec
        try:
            return self._engine.create(
                ContainerSpec(
                    name=container_name(agent.id),
                    hostname=agent.id,
                    image=self._image(agent),
                    aliases=(agent.id, agent.name),
                    labels={**spec.labels, "agentainer.id": agent.id, "agentainer.name": agent.name},
                    env={
                        **spec.env_vars,
                        "AGENT_ID": agent.id,
                        "AGENT_NAME": agent.name,
                        "AGENTAINER_URL": self._url,
                    },
                    command=spec.command,
                    volumes=self._volumes.resolve(spec.volumes),
                    cpu_limit=spec.cpu_limit,
                    memory_limit=spec.memory_limit,
                    egress=spec.network_egress,
                )
            )
        except Conflict as error:
            raise Conflict(
                f"there is a container '{container_name(agent.id)}' that is not this agent's",
                code=error.code,
                hint=f"docker rm -f {container_name(agent.id)}",
            ) from error

    def _image(self, agent: Agent) -> str:
        """Return what to run: the image of the deploy, by its name where that still means it."""
        if not agent.image_id:
            return agent.spec.image
        with contextlib.suppress(NotFound):
            if self._engine.image(agent.spec.image).id == agent.image_id:
                return agent.spec.image
        return agent.image_id


def restart_delay_s(crashes: int) -> float:
    """Return how long to wait after the given number of crashes in a row: after the first one only a moment."""
    if crashes <= 1:
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


def start_error(agent: Agent, *, started_at: float, waited_s: float, exposed: tuple[int, ...] = ()) -> AgentainerError:
    """Return why an agent is not ready `waited_s` after its run of `started_at` began, with the evidence.

    `exposed`: the ports that its image names, for the case that it listens elsewhere.
    """
    end = agent.last_exit
    if end is not None and end.at >= started_at:
        return Failed(
            f"agent '{agent.name}' {_how_it_ended(agent, end, end.at - started_at)}",
            code="AGENT_EXITED",
            hint=f"fix it and: agentainerctl start {agent.name}   (full log: agentainerctl logs {agent.name})",
            details={"exit_code": end.code, "oom_killed": end.oom_killed, "log": list(end.log)},
        )
    if agent.state is not AgentState.RUNNING:
        return Conflict(
            f"agent '{agent.name}' is {agent.state}: somebody changed it meanwhile", code=f"AGENT_{agent.state.upper()}"
        )
    also = f" (EXPOSE says {', '.join(map(str, exposed))})" if exposed and agent.port not in exposed else ""
    return DeadlineExceeded(
        f"'{agent.name}' is running but nothing answers on port {agent.port} after {waited_s:g} s{also}",
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
