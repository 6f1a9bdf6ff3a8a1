"""What the services ask of an engine and what it tells them, in our words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from agentainerd import defaults
from agentainerd.model.agents import Volume


class ContainerState(StrEnum):
    """The engine's word for a container, reduced to what matters."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"
    GONE = "gone"  # removed, or being removed


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container of an agent; hardened by the engine as docs/operations.md says (baseline).

    `name` is the container's, `hostname` the agent's id, `aliases` what other agents can call it.
    `cpu_limit` nano-CPUs (0: none), `memory_limit` bytes (0: none). `egress` False: on the isolated network.
    `is_runtime`: its program is an init itself, and writes to its volumes and /tmp only. `pids_limit`: processes and threads.
    """

    name: str
    hostname: str
    image: str
    aliases: tuple[str, ...]
    labels: Mapping[str, str]
    env: Mapping[str, str]
    command: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    cpu_limit: int = 0
    memory_limit: int = 0
    egress: bool = True
    is_runtime: bool = False
    pids_limit: int = defaults.PIDS_LIMIT


@dataclass(frozen=True, slots=True)
class Container:
    """What the engine knows of a container.

    `agent_id` is its label. `address` is its IP on the agents' network, "" while it doesn't run. `started_at`,
    `finished_at`: epoch seconds; two runs of one container have different ones. `error`: the engine's word on a start
    that failed.
    """

    id: str
    agent_id: str
    name: str
    state: ContainerState
    image_id: str = ""
    address: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_alive(self) -> bool:
        """Its program has not ended."""
        return self.state in (ContainerState.RUNNING, ContainerState.PAUSED)


@dataclass(frozen=True, slots=True)
class Image:
    """An image on the engine: `exposed` are its TCP ports, sorted; `folder` is where its programs begin."""

    id: str
    tags: tuple[str, ...]
    exposed: tuple[int, ...]
    created_at: float
    size: int
    labels: Mapping[str, str] = field(default_factory=dict)
    folder: str = "/"


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """Something happened to a container of ours. `action`: create start die oom pause unpause destroy, or `reconnected`
    (agent_id ""): the stream has begun or had broken at `since` (0.0: it has begun), so anything may have happened meanwhile.
    `exit_code` is that of a `die`.
    """

    action: str
    agent_id: str = ""
    container_id: str = ""
    at: float = 0.0
    exit_code: int = 0
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class LogPiece:
    """A piece of a container's output: `stream` is stdout or stderr, `data` raw bytes (with `timestamps`: RFC 3339 first)."""

    stream: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a build or a pull. `text`: a line of output; `id`: the layer or step; `current`/`total` bytes, 0: unknown.

    `image_id` is set on the last one of a build that went well.
    """

    text: str = ""
    id: str = ""
    status: str = ""
    current: int = 0
    total: int = 0
    image_id: str = ""


@dataclass(frozen=True, slots=True)
class Networks:
    """The agents' networks on this host: gateway addresses, where agents find the daemon, and the names of the Linux
    bridges. "" where unknown. `is_member`: the daemon is a container of its own in both, and agents find it by name.
    `subnets`: the addresses of both.
    """

    gateway: str
    isolated_gateway: str
    bridge: str = ""
    isolated_bridge: str = ""
    is_member: bool = False
    subnets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """The engine: versions, storage folder, and counts as the engine gives them; `warnings`: what it misses on its host, in
    its words; `clock`: its time, epoch seconds, 0.0 where it does not say.
    """

    version: str
    api_version: str
    root_dir: str
    storage_driver: str
    cgroup_version: str
    containers: int
    images: int
    warnings: tuple[str, ...] = ()
    clock: float = 0.0
