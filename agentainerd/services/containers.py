"""The container of one replica on the engine: found, made, started, and its last words. Nothing here stores anything."""

import contextlib
import logging
from collections.abc import Callable, Mapping

from agentainerd import defaults
from agentainerd.engine.engine import Engine
from agentainerd.errors import AgentainerError, Conflict, NotFound
from agentainerd.model.agents import Agent, Volume
from agentainerd.model.containers import Container, ContainerSpec, ContainerState
from agentainerd.model.jobs import WORKSPACE
from agentainerd.model.replicas import container_name, is_successor, number_of, successor_name
from agentainerd.services.runtime import RuntimeAgents
from agentainerd.services.shared_redis import SharedRedisService
from agentainerd.services.volumes import VolumePolicy

log = logging.getLogger(__name__)

MAX_LOG_LINE_CHARS = 1000
WORKSPACE_LABEL = "agentainer.workspace"
"""Of a container that was made for a job: which folder of the host it has."""


class Containers:
    """Stateless; every method asks the engine and blocks its greenlet. `url` is where agents find the daemon.

    Attributes:
        models: returns what an agent that asks for a model finds in its environment; ports: one with named ports. runtime:
            of the runtime image.
    """

    def __init__(
        self, engine: Engine, volumes: VolumePolicy, url: str, shared_redis: SharedRedisService, runtime: RuntimeAgents
    ) -> None:
        self.models: Callable[[Agent], Mapping[str, str]] = lambda agent: {}
        self.ports: Callable[[Agent], Mapping[str, str]] = lambda agent: {}
        self.runtime = runtime
        self._shared_redis = shared_redis
        self._engine = engine
        self._volumes = volumes
        self._url = url

    def find(self, agent: Agent) -> dict[int, Container]:
        """Return the containers of the agent's replicas, by number, as the engine sees them now.

        One that the record does not know (the daemon died before it could write it down) is found by label and name.
        """
        found: dict[int, Container] = {}
        for replica in agent.replicas:
            if replica.container_id:
                with contextlib.suppress(NotFound):
                    found[replica.number] = self._engine.inspect(replica.container_id)
        if len(found) < len(agent.replicas):
            for container in self._engine.containers():
                number = number_of(container.name, agent.id) if container.agent_id == agent.id else 0
                if number and number not in found and any(replica.number == number for replica in agent.replicas):
                    with contextlib.suppress(NotFound):
                        found[number] = self._engine.inspect(container.id)
        return found

    def ready_to_start(self, agent: Agent, number: int, container: Container | None) -> str:
        """Return the id of a container that `start` can start: the one that was found, or a new one.

        Raises:
            NotFound: the image is gone. InvalidParameter: a volume is. Conflict: the name is a stranger's.
            Failed, Unavailable: the engine, or a service that the agent asked for.
        """
        self._shared_redis.admit(agent)
        if container is None or container.state is ContainerState.GONE:
            return self._create(agent, number)
        if container.state is ContainerState.PAUSED:
            self._engine.unpause(container.id)
        return container.id

    def make_successor(self, agent: Agent, number: int) -> str:
        """Make a container that is to take the place of a replica's and has another name until then; return its id.

        Raises: as `ready_to_start`.
        """
        self._shared_redis.admit(agent)
        return self._create(agent, number, successor_name(agent.id, number, agent.spec.replicas))

    def strays(self, agent: Agent) -> list[Container]:
        """Return containers that a replacement left behind: they are the agent's, and not those of its replicas."""
        known = {container.id for container in self.find(agent).values()}
        return [
            container
            for container in self._engine.containers()
            if container.agent_id == agent.id and container.id not in known and _is_stray(agent, container)
        ]

    def limit(self, container_id: str, agent: Agent) -> None:
        """Give it the limits that the agent's spec has, if it is there."""
        with contextlib.suppress(NotFound):
            self._engine.limit(container_id, cpu_limit=agent.spec.cpu_limit, memory_limit=agent.spec.memory_limit)

    def inspect(self, container_id: str) -> Container:
        """Return it as the engine sees it now; see Engine.inspect."""
        return self._engine.inspect(container_id)

    def start(self, container_id: str) -> Container:
        """Start it; see Engine.start."""
        return self._engine.start(container_id)

    def stop(self, container_id: str, grace_s: float) -> None:
        """Stop it, if it is there."""
        with contextlib.suppress(NotFound):
            self._engine.stop(container_id, grace_s=grace_s)

    def exit_code(self, container_id: str) -> int:
        """Return how its last run ended; 0 where it is not there any more."""
        with contextlib.suppress(NotFound):
            return self._engine.inspect(container_id).exit_code
        return 0

    def remove(self, container_id: str) -> None:
        """Remove it, if it is there."""
        self._engine.remove(container_id)

    def rename(self, agent: Agent, number: int, container_id: str) -> None:
        """Call it as the agent's number of replicas wants it; one that is not there, or whose name is taken, is left."""
        name = container_name(agent.id, number, agent.spec.replicas)
        with contextlib.suppress(NotFound, Conflict):
            if self._engine.inspect(container_id).name != name:
                self._engine.rename(container_id, name)

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

    def _create(self, agent: Agent, number: int, name: str = "") -> str:
        spec = agent.spec
        name = name or container_name(agent.id, number, spec.replicas)
        labels = {"agentainer.id": agent.id, "agentainer.name": agent.name, "agentainer.replica": str(number)}
        if agent.is_ephemeral:
            labels[WORKSPACE_LABEL] = agent.workspace
        env = {
            "AGENT_ID": agent.id,
            "AGENT_NAME": agent.name,
            "AGENT_REPLICA": str(number),
            "AGENTAINER_URL": self._url,
            **self._shared_redis.environment(agent),
        }
        try:
            return self._engine.create(
                ContainerSpec(
                    name=name,
                    hostname=agent.id if spec.replicas == 1 else f"{agent.id}-{number}",
                    image=self._image(agent),
                    aliases=(agent.id, agent.name),
                    labels={**spec.labels, **labels},
                    env={
                        **agent.links,
                        **self.runtime.environment(agent),
                        **self.models(agent),
                        **spec.env_vars,
                        **self.ports(agent),
                        **env,
                    },
                    command=spec.command,
                    volumes=(*self._volumes.resolve(spec.volumes), *_workspace(agent)),
                    cpu_limit=spec.cpu_limit,
                    memory_limit=spec.memory_limit,
                    egress=spec.network_egress,
                    is_runtime=spec.runtime,
                    pids_limit=agent.pids_limit or defaults.PIDS_LIMIT,
                )
            )
        except Conflict as error:
            raise Conflict(
                f"there is a container '{name}' that is not this agent's", code=error.code, hint=f"docker rm -f {name}"
            ) from error

    def _image(self, agent: Agent) -> str:
        """Return what to run: the image of the deploy, by its name where that still means it."""
        if not agent.image_id:
            return agent.spec.image
        with contextlib.suppress(NotFound):
            if self._engine.image(agent.spec.image).id == agent.image_id:
                return agent.spec.image
        return agent.image_id


def _workspace(agent: Agent) -> tuple[Volume, ...]:
    """The folder of a job, which is the daemon's: no policy has to let it through."""
    return (Volume(agent.workspace, WORKSPACE),) if agent.is_ephemeral else ()


def _is_stray(agent: Agent, container: Container) -> bool:
    """A successor that came to nothing, or one that another has succeeded. One that may yet be adopted by its name is none."""
    number = number_of(container.name, agent.id)
    replaced = any(replica.number == number and replica.container_id for replica in agent.replicas)
    return replaced or is_successor(container.name, agent.id)
