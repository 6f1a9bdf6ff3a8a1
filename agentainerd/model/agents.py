"""Agents: what a person asked for (`AgentSpec`), what the daemon knows (`Agent`), and the rules between states.

`validate` is the one place where the bounds of an agent's options are said.
"""

import re
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from agentainerd import defaults
from agentainerd.errors import Conflict, InvalidParameter, NotFound
from agentainerd.model.bridges import Bridge
from agentainerd.model.health import HealthCheck, check_health
from agentainerd.model.ports import check_ports
from agentainerd.model.replicas import AgentState as AgentState
from agentainerd.model.replicas import Exit as Exit
from agentainerd.model.replicas import Replica, leading, reason_of
from agentainerd.model.requests import ReplayPolicy

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
AGENT_ID = re.compile(r"agent-[0-9a-f]{16}")
REPLICA = re.compile(r"(.+)-([1-9][0-9]{0,2})")
"""How one replica is called: the agent's name or id and its number."""
SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|AUTH|COOKIE|CREDENTIAL", re.IGNORECASE)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}")
_MODEL = re.compile(r"[A-Za-z0-9._:/@+-]{0,128}")
_LABEL = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9._/-]*[a-zA-Z0-9])?")
_IMAGE = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]+)?/)?[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
    r"(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*(?::[\w][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?|sha256:[0-9a-f]{64}"
)
MASK = "***"
SHARED_NAME = "shared"  # keys of the shared Redis under this name are everybody's
REDIS_VARIABLE = "REDIS_URL"
DENIED_SOURCES = ("/etc", "/proc", "/sys", "/dev", "/run", "/var/run", "/boot", "/var/lib/docker")
DENIED_TARGETS = ("/", "/proc", "/sys", "/dev")


class Volume(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mount: `source` is an absolute path on the host, or the name of an engine volume."""

    host_path: str
    container_path: str
    read_only: bool = False

    @property
    def is_named(self) -> bool:
        """The source is a volume of the engine, not a folder of the host."""
        return not self.host_path.startswith("/")


class AgentServices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the daemon offers beside the agent. `redis`: the Redis that agents share (docs/shared-redis.md)."""

    redis: bool = False


class UpdateStrategy(StrEnum):
    """How an agent that runs gets new containers: beside the old ones, which serve until they are ready, or after them."""

    ROLLING = "rolling"
    RECREATE = "recreate"


class AgentSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a person asked for; the field names are those of the API's deploy body.

    Units: `cpu_limit` nano-CPUs (0: no limit), `memory_limit` bytes, `*_s` seconds, `max_pending_bytes` bytes.
    `secrets` names the variables of `env_vars` that are masked in every read, beside those whose names look secret.
    `token`: what `/agent/<ref>/` asks for; empty: the agent's proxy path is public.
    `port` 0: the image's only EXPOSE, else 8000. `command` empty: the image's own. `replicas`: how many containers.
    `idle_timeout_s`: without any request for so long it is stopped, until the next one comes; 0: never.
    `health_check`: what each of them is asked; None: nothing, it is ready when it listens.
    `dependencies`: names of agents whose URLs are in its environment. `deployment`: the name of the one that it belongs to.
    `services`: what it finds in its environment. `bridge`: how runs are given to it; None: as its image or its containers say.
    `bridge_command`: what a run starts in its container, for the tiers exec and acp; empty: as its image says.
    `model`: which model it reaches through the daemon; "": none. `runtime`: its image is of the kind that `agentainerctl runtime
    build` makes: its own init, a root that can't be written, Git's variables of the daemon.
    `named_ports`: what it serves beside its port, by name, for people; empty: as its image says (docs/desktop.md).
    """

    name: str
    image: str
    env_vars: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    cpu_limit: int = 0
    memory_limit: int = defaults.MEMORY_BYTES
    auto_restart: bool = False
    token: str = ""
    port: int = 0
    command: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    network_egress: bool = True
    hold_timeout_s: float = defaults.HOLD_TIMEOUT_S
    request_timeout_s: float = defaults.REQUEST_TIMEOUT_S
    stop_grace_s: float = defaults.STOP_GRACE_S
    persistence: bool = True
    replay_policy: ReplayPolicy = ReplayPolicy.AUTO
    replay_concurrency: int = defaults.REPLAY_CONCURRENCY
    ordered: bool = False
    max_pending: int = defaults.MAX_PENDING
    max_pending_bytes: int = defaults.MAX_PENDING_BYTES
    replicas: int = 1
    health_check: HealthCheck | None = None
    idle_timeout_s: float = 0
    dependencies: tuple[str, ...] = ()
    deployment: str = ""
    update_strategy: UpdateStrategy = UpdateStrategy.ROLLING
    services: AgentServices = AgentServices()
    bridge: Bridge | None = None
    bridge_command: tuple[str, ...] = ()
    model: str = ""
    runtime: bool = False
    named_ports: dict[str, int] = {}

    def is_secret(self, variable: str) -> bool:
        """The value of this variable is never shown."""
        return variable in self.secrets or SECRET_NAME.search(variable) is not None


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon knows of one agent; times are epoch seconds, 0: never.

    `replicas`: one for each of its containers, by number; while it is scaled down, also those that are on their way out.
    What is said of the agent as a whole is that of its leading replica (model/replicas.py). `links`: variables with the URLs of
    its dependencies, as its containers have them. `bridge`, `named_ports`: as its spec or its image says. `workspace`: of one
    that was made for a job (decision 0018), the folder of the host that is mounted at /workspace; "" for all others.
    `pids_limit`: its processes and threads; 0: as all agents have.
    """

    id: str
    spec: AgentSpec
    replicas: tuple[Replica, ...] = (Replica(),)
    image_id: str = ""
    port: int = defaults.AGENT_PORT
    links: dict[str, str] = {}
    bridge: Bridge | None = None
    named_ports: dict[str, int] = {}
    workspace: str = ""
    pids_limit: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0

    @property
    def name(self) -> str:
        """The unique, DNS-safe name."""
        return self.spec.name

    @property
    def is_ephemeral(self) -> bool:
        """It is a job's, and goes with it."""
        return bool(self.workspace)

    @property
    def state(self) -> AgentState:
        """The state as a whole: running where one replica runs."""
        return leading(self.replicas).state

    @property
    def reason(self) -> str:
        """Why it is in this state."""
        return reason_of(self.replicas)

    @property
    def container_id(self) -> str:
        """The container of its leading replica."""
        return leading(self.replicas).container_id

    @property
    def should_run(self) -> bool:
        """A person wants it to run."""
        return any(replica.should_run for replica in self.replicas)

    @property
    def is_expected(self) -> bool:
        """One of its replicas runs, or will by itself."""
        return any(replica.is_expected for replica in self.replicas)

    @property
    def is_idle(self) -> bool:
        """It was stopped because nothing was asked of it, and the next request starts it."""
        return any(replica.is_idle for replica in self.replicas)

    @property
    def crashes(self) -> int:
        """In a row, of the replica that crashed most."""
        return max(replica.crashes for replica in self.replicas)

    @property
    def restarts(self) -> int:
        """By the daemon, of all replicas since deploy."""
        return sum(replica.restarts for replica in self.replicas)

    @property
    def next_restart_at(self) -> float:
        """The next restart of any replica; 0: none is waited for."""
        return min((replica.next_restart_at for replica in self.replicas if replica.next_restart_at), default=0.0)

    @property
    def last_exit(self) -> Exit | None:
        """The last end of any replica."""
        ends = [replica.last_exit for replica in self.replicas if replica.last_exit]
        return max(ends, key=lambda end: end.at) if ends else None

    @property
    def started_at(self) -> float:
        """Since when the oldest running replica runs, else when the leading one was started."""
        running = [replica.started_at for replica in self.replicas if replica.state is AgentState.RUNNING]
        return min(running) if running else leading(self.replicas).started_at

    def replica(self, number: int) -> Replica:
        """Return a replica by its number.

        Raises:
            NotFound: there is none with it.
        """
        for replica in self.replicas:
            if replica.number == number:
                return replica
        raise NotFound("replica", f"{self.name}-{number}", message=f"'{self.name}' has no replica {number}")

    def changed(self, number: int = 0, **changes: object) -> "Agent":
        """Return the agent with one replica changed, or with `number` 0 all of them; `changes` are fields by name."""
        replicas = tuple(
            msgspec.structs.replace(replica, **changes) if number in (0, replica.number) else replica
            for replica in self.replicas
        )
        return msgspec.structs.replace(self, replicas=replicas)

    def require(self, verb: str, *states: AgentState) -> None:
        """Check that `verb` is allowed in this state.

        Raises:
            Conflict: it is in none of `states`; the code is AGENT_<STATE>.
        """
        if self.state in states:
            return
        hints = {
            AgentState.CREATED: f"agentainerctl start {self.name}",
            AgentState.STOPPED: f"agentainerctl start {self.name}",
            AgentState.PAUSED: f"agentainerctl resume {self.name}",
            AgentState.FAILED: f"agentainerctl logs {self.name}",
        }
        why = f" ({self.reason})" if self.reason else ""
        raise Conflict(
            f"cannot {verb} '{self.name}': it is {self.state}{why}",
            code=f"AGENT_{self.state.upper()}",
            hint=hints.get(self.state),
        )


def validate(spec: AgentSpec) -> AgentSpec:
    """Return `spec`, checked.

    Checks all that can be said without asking the engine or the file system (services/agents.py does the rest).

    Raises:
        InvalidParameter: the first field that is wrong, and the reason.
    """
    check_name(spec.name)
    if spec.deployment:
        check_name(spec.deployment, "deployment")
    check_image(spec.image)
    _check_dependencies(spec)
    _check_env(spec)
    for volume in spec.volumes:
        _check_volume(volume)
    _check_distinct("volumes", [volume.container_path for volume in spec.volumes])
    for key, value in spec.labels.items():
        if not _LABEL.fullmatch(key) or len(key) > 128 or key.startswith("agentainer."):
            raise InvalidParameter(
                "labels", f"{key!r} is not a label's name (letters, digits, . _ / -; not agentainer.*)"
            )
        _check_text("labels", value, 1024)
    for part in spec.command:
        _check_text("command", part, 32768)
    _check_token(spec.token)
    _check_numbers(spec)
    if spec.replicas > 1 and len(f"{spec.name}-{spec.replicas}") > defaults.MAX_NAME_CHARS:
        raise InvalidParameter(
            "replicas", f"'{spec.name}-{spec.replicas}' is longer than {defaults.MAX_NAME_CHARS} characters"
        )
    _check_bridge(spec)
    check_ports(spec.named_ports)
    if spec.health_check is not None:
        check_health(spec.health_check)
    _check_services(spec)
    if not _MODEL.fullmatch(spec.model):
        raise InvalidParameter("model", f"{spec.model!r} is not a model's name", hint="provider/model, or an alias")
    if spec.ordered and spec.replay_concurrency not in (1, defaults.REPLAY_CONCURRENCY):
        raise InvalidParameter("replay_concurrency", "an ordered agent is replayed one by one: leave it out, or 1")
    return spec


def _check_bridge(spec: AgentSpec) -> None:
    for part in spec.bridge_command:
        _check_text("bridge_command", part, 32768)
    if spec.bridge_command and not (spec.bridge and spec.bridge.is_command):
        raise InvalidParameter("bridge_command", "is of the bridges exec and acp only", hint="--bridge exec, or acp")


def check_image(image: str) -> None:
    """Check the grammar of an image's name.

    Raises:
        InvalidParameter: it can't name an image.
    """
    if not image:
        raise InvalidParameter("image", "is required")
    if len(image) > defaults.MAX_IMAGE_CHARS:
        raise InvalidParameter("image", f"is longer than {defaults.MAX_IMAGE_CHARS} characters")
    if not _IMAGE.fullmatch(image):
        raise InvalidParameter(
            "image", f"{image!r} is not an image's name", hint="write it as name:tag, or give a Dockerfile"
        )


def check_name(name: str, field: str = "name") -> None:
    """Check the grammar of the name of an agent, or of a deployment.

    Raises:
        InvalidParameter: it can't be one.
    """
    if not name:
        raise InvalidParameter(field, "is required")
    if len(name) > defaults.MAX_NAME_CHARS:
        raise InvalidParameter(field, f"is longer than {defaults.MAX_NAME_CHARS} characters")
    if not NAME.fullmatch(name):
        raise InvalidParameter(field, f"{name!r} is not a name", hint="use a-z, 0-9 and -, as in a host's name")
    replica = REPLICA.fullmatch(name)
    if AGENT_ID.fullmatch(name) or (replica and AGENT_ID.fullmatch(replica[1])):
        raise InvalidParameter(field, f"{name!r} has the form of an id")


def masked_env(spec: AgentSpec) -> dict[str, str]:
    """Return the variables with every secret's value masked."""
    return {name: MASK if spec.is_secret(name) else value for name, value in spec.env_vars.items()}


def _check_dependencies(spec: AgentSpec) -> None:
    for name in spec.dependencies:
        check_name(name, "dependencies")
        if name == spec.name:
            raise InvalidParameter("dependencies", f"'{name}' depends on itself")
    _check_distinct("dependencies", list(spec.dependencies))


def _check_env(spec: AgentSpec) -> None:
    if len(spec.env_vars) > defaults.MAX_ENV_VARS:
        raise InvalidParameter("env_vars", f"has {len(spec.env_vars)} variables; at most {defaults.MAX_ENV_VARS}")
    for name, value in spec.env_vars.items():
        if not _ENV_NAME.fullmatch(name) or len(name) > 256:
            raise InvalidParameter("env_vars", f"{name!r} is not a variable's name")
        if name in ("AGENT_ID", "AGENT_NAME", "AGENT_REPLICA", "AGENTAINER_URL"):
            raise InvalidParameter("env_vars", f"{name} is set by agentainerd")
        _check_text("env_vars", value, 32768)
    for name in spec.secrets:
        if name not in spec.env_vars:
            raise InvalidParameter("secrets", f"{name!r} is not in env_vars")


def _check_services(spec: AgentSpec) -> None:
    if not spec.services.redis:
        return
    if spec.name == SHARED_NAME:
        raise InvalidParameter(
            "services", f"an agent '{SHARED_NAME}' can't have Redis: keys under that name are everybody's"
        )
    if REDIS_VARIABLE in spec.env_vars:
        raise InvalidParameter("env_vars", f"{REDIS_VARIABLE} is set by agentainerd for agents with the service redis")


def _check_volume(volume: Volume) -> None:
    source, target = volume.host_path, volume.container_path
    for path in (source, target):
        _check_text("volumes", path, 4096)
        if ".." in path.split("/"):
            raise InvalidParameter("volumes", f"{path!r} has a '..'")
    if volume.is_named:
        if not _VOLUME_NAME.fullmatch(source):
            raise InvalidParameter("volumes", f"{source!r} is neither an absolute path nor a volume's name")
    elif is_denied_source(source):
        raise InvalidParameter("volumes", f"{source!r} may not be mounted into an agent", code="VOLUME_DENIED")
    if not target.startswith("/") or _clean(target) in DENIED_TARGETS or _under(_clean(target), DENIED_TARGETS[1:]):
        raise InvalidParameter("volumes", f"{target!r} is not a place in the container where a volume can be")


def is_denied_source(path: str) -> bool:
    """The host path is `/`, a system folder, in one, or holds one: closed to agents, whatever the configuration says."""
    clean = _clean(path)
    return clean == "/" or _under(clean, DENIED_SOURCES) or any(_under(denied, (clean,)) for denied in DENIED_SOURCES)


def _clean(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def _under(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(root + "/") for root in roots)


def _check_token(token: str) -> None:
    if token and (len(token) < 8 or len(token) > 512 or not all(33 <= ord(char) < 127 for char in token)):
        raise InvalidParameter("token", "must be 8 to 512 printable ASCII characters without spaces")


def _check_numbers(spec: AgentSpec) -> None:
    bounds: Mapping[str, tuple[float, float]] = {
        "port": (0, 65535),
        "hold_timeout_s": (0, defaults.MAX_HOLD_S),
        "request_timeout_s": (1, 86400),
        "stop_grace_s": (0, 3600),
        "replay_concurrency": (1, 64),
        "max_pending": (1, 1_000_000),
        "max_pending_bytes": (1024, 2**40),
        "replicas": (1, defaults.MAX_REPLICAS),
        "idle_timeout_s": (0, 30 * 86400),
    }
    for field, (low, high) in bounds.items():
        value = getattr(spec, field)
        if not low <= value <= high:
            raise InvalidParameter(field, f"{value:g} is not between {low:g} and {high:g}")
    if spec.cpu_limit and not 10_000_000 <= spec.cpu_limit <= 1024 * 10**9:
        raise InvalidParameter("cpu_limit", f"{spec.cpu_limit} nano-CPUs is not between 0.01 and 1024 cores")
    if spec.memory_limit and not defaults.MIN_MEMORY_BYTES <= spec.memory_limit <= 2**50:
        raise InvalidParameter("memory_limit", f"{spec.memory_limit} bytes is not between 6 MiB and 1 PiB")


def _check_text(field: str, value: str, limit: int) -> None:
    if len(value) > limit:
        raise InvalidParameter(field, f"a value is longer than {limit} characters")
    if "\0" in value:
        raise InvalidParameter(field, "a value has a NUL character")


def _check_distinct(field: str, values: list[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if _clean(value) in seen:
            raise InvalidParameter(field, f"{value!r} is there twice")
        seen.add(_clean(value))
