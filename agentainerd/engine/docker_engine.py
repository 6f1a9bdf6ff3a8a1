"""`Engine` on Docker: a thin facade over containers, images, networks, logs and events, one file each.

It connects when it is first used, and again after a loss, so the daemon can start before its engine does.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import IO

from agentainerd import defaults
from agentainerd.engine import logs
from agentainerd.engine.commands import AttachedCommand, Commands
from agentainerd.engine.connection import Connection
from agentainerd.engine.containers import Containers, epoch_s
from agentainerd.engine.engine import Stream
from agentainerd.engine.events import Events
from agentainerd.engine.host import Host
from agentainerd.engine.images import Images
from agentainerd.engine.networks import AgentNetworks
from agentainerd.engine.usages import Usages
from agentainerd.engine.volumes import Volumes
from agentainerd.model.containers import (
    Container,
    ContainerSpec,
    EngineEvent,
    EngineInfo,
    Image,
    LogPiece,
    Networks,
    Progress,
)
from agentainerd.model.metrics import Usage


class DockerEngine:
    """One Docker Engine (API 1.41 or newer; the version is the engine's). Safe from any greenlet."""

    def __init__(
        self,
        host: str,
        *,
        network: str = defaults.NETWORK,
        isolated_network: str = defaults.ISOLATED_NETWORK,
        timeout_s: float = defaults.ENGINE_TIMEOUT_S,
    ) -> None:
        """Take the engine's address and the names of the agents' networks; connect to nothing.

        Raises:
            InvalidParameter: `host` is not unix:///path, tcp://host:port, http:// or https://.
        """
        self._connection = Connection(host, timeout_s=timeout_s)
        self._networks = AgentNetworks(self._connection, network=network, isolated=isolated_network)
        self._containers = Containers(self._connection, self._networks)
        self._commands = Commands(self._connection)
        self._images = Images(self._connection)
        self._volumes = Volumes(self._connection, network)
        self._usages = Usages(self._connection, Host())
        self._events: set[Events] = set()

    def ping(self) -> None:
        """See Engine."""
        with self._connection.calling("ping", "engine") as client:
            client.ping()

    def info(self) -> EngineInfo:
        """See Engine."""
        with self._connection.calling("ask", "engine") as client:
            told = client.info()
            api_version = client.api_version
        return EngineInfo(
            version=str(told.get("ServerVersion", "")),
            api_version=str(api_version),
            root_dir=str(told.get("DockerRootDir", "")),
            storage_driver=str(told.get("Driver", "")),
            cgroup_version=str(told.get("CgroupVersion", "")),
            containers=int(told.get("Containers", 0)),
            images=int(told.get("Images", 0)),
            warnings=tuple(str(text).removeprefix("WARNING: ") for text in told.get("Warnings") or ()),
            clock=epoch_s(str(told.get("SystemTime") or "")),
        )

    def ensure_networks(self) -> Networks:
        """See Engine."""
        return self._networks.ensure()

    def image(self, ref: str) -> Image:
        """See Engine."""
        return self._images.get(ref)

    def pull(self, ref: str) -> Stream[Progress]:
        """See Engine."""
        return self._images.pull(ref)

    def build(self, context: IO[bytes], *, tag: str, dockerfile: str, args: Mapping[str, str]) -> Stream[Progress]:
        """See Engine."""
        return self._images.build(context, tag=tag, dockerfile=dockerfile, args=args)

    def create(self, spec: ContainerSpec) -> str:
        """See Engine."""
        return self._containers.create(spec)

    def start(self, container_id: str) -> Container:
        """See Engine."""
        return self._containers.start(container_id)

    def stop(self, container_id: str, *, grace_s: float) -> None:
        """See Engine."""
        self._containers.stop(container_id, grace_s=grace_s)

    def pause(self, container_id: str) -> None:
        """See Engine."""
        self._containers.pause(container_id)

    def unpause(self, container_id: str) -> None:
        """See Engine."""
        self._containers.unpause(container_id)

    def remove(self, container_id: str) -> None:
        """See Engine."""
        self._containers.remove(container_id)

    def limit(self, container_id: str, *, cpu_limit: int, memory_limit: int) -> None:
        """See Engine."""
        self._containers.limit(container_id, cpu_limit=cpu_limit, memory_limit=memory_limit)

    def rename(self, container_id: str, name: str) -> None:
        """See Engine."""
        self._containers.rename(container_id, name)

    def inspect(self, container_id: str) -> Container:
        """See Engine."""
        return self._containers.inspect(container_id)

    def containers(self) -> list[Container]:
        """See Engine."""
        return self._containers.list()

    def execute(self, container_id: str, command: Sequence[str], *, timeout_s: float) -> int:
        """See Engine."""
        return self._commands.run(container_id, command, timeout_s)

    def attach(self, container_id: str, command: Sequence[str], environment: Mapping[str, str]) -> AttachedCommand:
        """See Engine."""
        return self._commands.attach(container_id, command, environment)

    def usages(self, container_ids: Sequence[str]) -> dict[str, Usage]:
        """See Engine."""
        return self._usages.read(container_ids)

    def logs(
        self,
        container_id: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float = 0.0,
        timestamps: bool = False,
    ) -> Stream[LogPiece]:
        """See Engine."""
        return logs.read(self._connection, container_id, follow=follow, tail=tail, since=since, timestamps=timestamps)

    def volume_folder(self, name: str) -> str:
        """See Engine."""
        return self._volumes.folder(name)

    def create_volume(self, name: str) -> str:
        """See Engine."""
        return self._volumes.create(name)

    def remove_volume(self, name: str) -> None:
        """See Engine."""
        self._volumes.remove(name)

    def read_volume(self, source: str, image: str) -> Stream[bytes]:
        """See Engine."""
        return self._volumes.read(source, image)

    def write_volume(self, source: str, image: str, tar: Iterator[bytes]) -> None:
        """See Engine."""
        self._volumes.write(source, image, tar)

    def tidy_volumes(self) -> None:
        """See Engine."""
        self._volumes.tidy()

    def events(self) -> Stream[EngineEvent]:
        """See Engine."""
        stream = Events(self._connection, on_close=self._events.discard)
        self._events.add(stream)
        return stream

    def close(self) -> None:
        """See Engine."""
        for stream in list(self._events):
            stream.close()
        self._connection.close()
