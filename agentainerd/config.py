"""The configuration: frozen dataclasses whose attribute path is the key path of config.yaml. config_load.py fills them.

Flags beat environment beat a file of variables beat the file beat defaults. Every value remembers where it came from. A key
that does not exist, a value that cannot be right or a file that cannot be read is an error which names the file, the line, the
key and what would be right; all of them are told at once. docs/configuration.md lists every key, and a test holds it against
this.
"""

import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

from agentainerd import config_models as models
from agentainerd import config_values as values
from agentainerd import defaults
from agentainerd.model.providers import Provider
from agentainerd.model.webhooks import MAX_ATTEMPTS

T = TypeVar("T")

YEAR_S = 366 * 86400.0


def _key(
    default: T,
    parse: Callable[[object], T],
    *,
    env: tuple[str, ...] = (),
    reload: bool = False,
    secret: bool = False,
    nested: bool = False,
) -> T:
    """Declare a key: its default, its kind, short names in the environment, whether SIGHUP changes it, and whether it has keys of
    its own below it.
    """
    metadata = {"parse": parse, "env": env, "reload": reload, "secret": secret, "nested": nested}
    return field(default=default, metadata=metadata)


def default_state_dir() -> str:
    """Return the state folder where nothing says otherwise: systemd's (StateDirectory=), of the system for root, else the
    user's (XDG).
    """
    if given := os.environ.get("STATE_DIRECTORY"):
        return given.partition(":")[0]
    if os.geteuid() == 0:
        return defaults.SYSTEM_STATE_DIR
    return os.path.join(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state"), "agentainer")


def default_runtime_dir() -> str:
    """Return the runtime folder where nothing says otherwise, as `default_state_dir` does; without XDG_RUNTIME_DIR one in /tmp
    named after the uid.
    """
    if given := os.environ.get("RUNTIME_DIRECTORY"):
        return given.partition(":")[0]
    if os.geteuid() == 0:
        return defaults.SYSTEM_RUNTIME_DIR
    if xdg := os.environ.get("XDG_RUNTIME_DIR"):
        return os.path.join(xdg, "agentainer")
    return os.path.join(tempfile.gettempdir(), f"agentainer-{os.geteuid()}")


def default_templates_dir() -> str:
    """Return the folder of templates where nothing says otherwise: of the system for root, else the user's (XDG)."""
    if os.geteuid() == 0:
        return defaults.SYSTEM_TEMPLATES_DIR
    return os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "agentainer", "templates")


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The TCP side."""

    host: str = _key(defaults.LISTEN_HOST, values.host)
    port: int = _key(defaults.LISTEN_PORT, values.integer(0, 65535))
    drain_timeout_s: float = _key(defaults.DRAIN_TIMEOUT_S, values.seconds(0, 3600))
    domain: str = _key("localhost", values.domain)
    trusted_proxies: tuple[str, ...] = _key((), values.texts(values.ip_network))
    allowed_hosts: tuple[str, ...] = _key((), values.texts(values.host_pattern), reload=True)
    allowed_origins: tuple[str, ...] = _key((), values.texts(values.origin), reload=True)
    max_connections: int = _key(defaults.MAX_CONNECTIONS, values.integer(1, 1_000_000), reload=True)
    max_connections_per_source: int = _key(
        defaults.MAX_CONNECTIONS_PER_SOURCE, values.integer(1, 1_000_000), reload=True
    )
    max_in_flight: int = _key(defaults.MAX_IN_FLIGHT, values.integer(1, 1_000_000), reload=True)


@dataclass(frozen=True, slots=True)
class PathsConfig:
    """Folders of the daemon; absolute paths."""

    state_dir: str = field(
        default_factory=default_state_dir,
        metadata={"parse": values.some_folder, "env": ("AGENTAINER_STATE_DIR",)},
    )
    runtime_dir: str = field(
        default_factory=default_runtime_dir,
        metadata={"parse": values.some_folder, "env": ("AGENTAINER_RUNTIME_DIR",)},
    )

    @property
    def control_socket(self) -> str:
        """Where administrators connect."""
        return os.path.join(self.runtime_dir, defaults.CONTROL_SOCKET)

    @property
    def gateway_socket(self) -> str:
        """Where the data plane hands over what is for the API."""
        return os.path.join(self.runtime_dir, defaults.GATEWAY_SOCKET)


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """Where the journal is: a server of your own (`url`, or `host` and its companions), else the embedded one."""

    url: str = _key("", values.url("redis", "rediss", "unix"), secret=True)
    host: str = _key("", values.optional_host)
    port: int = _key(6379, values.integer(1, 65535))
    password: str = _key("", values.secret, secret=True)
    db: int = _key(0, values.integer(0, 1_000_000))
    server_binary: str = _key("", values.program)
    maxmemory_bytes: int = _key(512 * 1024 * 1024, values.size(16 * 1024 * 1024, 2**50))

    @property
    def is_external(self) -> bool:
        """Whether somebody else runs the server."""
        return bool(self.url or self.host)

    @property
    def address(self) -> str:
        """The URL of the external server, with its password; "" for the embedded one."""
        if not self.url:
            host = f"[{self.host}]" if ":" in self.host else self.host
            secret = f":{quote(self.password, safe='')}@" if self.password else ""
            return f"redis://{secret}{host}:{self.port}/{self.db}" if host else ""
        scheme, _, rest = self.url.partition("://")
        if self.password and "@" not in rest:
            return f"{scheme}://:{quote(self.password, safe='')}@{rest}"
        return self.url


@dataclass(frozen=True, slots=True)
class SharedRedisConfig:
    """The server for agents that ask for the service redis; its program is `redis.server_binary`."""

    port: int = _key(defaults.SHARED_REDIS_PORT, values.integer(1, 65535))
    maxmemory_bytes: int = _key(defaults.SHARED_REDIS_BYTES, values.size(16 * 1024 * 1024, 2**50))


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """The engine and the networks of the agents on it."""

    host: str = _key(defaults.DOCKER_HOST, values.url("unix", "tcp", "http", "https"))
    network: str = _key(defaults.NETWORK, values.network)
    isolated_network: str = _key(defaults.ISOLATED_NETWORK, values.network)


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """The original's name for the state folder: after loading always the same as paths.state_dir."""

    data_dir: str = _key("", values.folder)


@dataclass(frozen=True, slots=True)
class SecurityConfig:
    """Tokens and what agents may mount."""

    default_token: str = _key("", values.text, env=("AGENTAINER_AUTH_TOKEN", "AGENTAINER_TOKEN"), secret=True)
    volume_roots: tuple[str, ...] = _key((), values.texts(values.absolute_folder), reload=True)
    allow_query_token: bool = _key(False, values.boolean)
    host_ports: tuple[str, ...] = _key((), values.texts(values.host_port))
    open_prefixes: tuple[str, ...] = _key((), values.texts(values.open_prefix), reload=True)


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """Bounds of what clients of the API ask, and of how long they are waited for; the sites whose pages may ask are
    `server.allowed_origins`.
    """

    request_timeout_s: float = _key(defaults.API_REQUEST_TIMEOUT_S, values.seconds(1, 3600), reload=True)
    max_body_bytes: int = _key(defaults.MAX_API_BODY_BYTES, values.size(64 * 1024, 2**30), reload=True)
    answer_timeout_s: float = _key(defaults.RUN_ANSWER_TIMEOUT_S, values.seconds(1, YEAR_S), reload=True)
    summaries: bool = _key(True, values.boolean, reload=True)


@dataclass(frozen=True, slots=True)
class FeaturesConfig:
    """Switches of the original."""

    request_persistence: bool = _key(True, values.boolean)


@dataclass(frozen=True, slots=True)
class RequestsConfig:
    """How long requests are kept, and what happens while they cannot be."""

    max_age_s: float = _key(defaults.MAX_AGE_S, values.seconds(1, YEAR_S), reload=True)
    max_attempts: int = _key(defaults.MAX_ATTEMPTS, values.integer(1, 1000), reload=True)
    response_ttl_s: float = _key(defaults.RESPONSE_TTL_S, values.seconds(1, YEAR_S), reload=True)
    failed_ttl_s: float = _key(defaults.FAILED_TTL_S, values.seconds(1, YEAR_S), reload=True)
    on_journal_down: str = _key("pass", values.choice("pass", "reject"), reload=True)


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The daemon's own log: on standard error, and in files of <state>/logs, which are JSON whatever `format` is."""

    level: str = _key("info", values.choice("debug", "info", "warning", "error"), reload=True)
    format: str = _key("text", values.choice("text", "json"), reload=True)
    file_bytes: int = _key(defaults.LOG_FILE_BYTES, values.size(64 * 1024, 2**40), reload=True)
    file_age_s: float = _key(defaults.LOG_FILE_AGE_S, values.seconds(60, YEAR_S), reload=True)
    files: int = _key(defaults.LOG_FILES, values.integer(2, 10_000), reload=True)


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """When a file of the audit log is full, and when the oldest full one is removed."""

    file_bytes: int = _key(defaults.AUDIT_FILE_BYTES, values.size(64 * 1024, 2**40), reload=True)
    keep_bytes: int = _key(defaults.AUDIT_KEEP_BYTES, values.size(1024 * 1024, 2**50), reload=True)
    keep_s: float = _key(defaults.AUDIT_KEEP_S, values.seconds(60, 100 * YEAR_S), reload=True)


@dataclass(frozen=True, slots=True)
class ModelsConfig:
    """The models that agents reach through the daemon, what they may cost, and how often they may be asked.

    0 is no limit: `budget_run_usd` of one run, `budget_agent_usd` of one agent and `budget_day_usd` of all of them in a day
    (UTC); `*_per_minute` of one agent. `record`, `replay`: folders for exchanges, "" for none.
    """

    providers: tuple[Provider, ...] = _key((), models.providers, reload=True, nested=True)
    aliases: models.Aliases = _key((), models.aliases, reload=True, nested=True)
    default: str = _key("", values.text, env=("AGENT_MODEL",), reload=True)
    budget_run_usd: float = _key(0.0, values.number(0, 1e6), reload=True)
    budget_agent_usd: float = _key(0.0, values.number(0, 1e6), reload=True)
    budget_day_usd: float = _key(0.0, values.number(0, 1e6), reload=True)
    requests_per_minute: int = _key(0, values.integer(0, 10**9), reload=True)
    tokens_per_minute: int = _key(0, values.integer(0, 10**9), reload=True)
    record: str = _key("", values.folder)
    replay: str = _key("", values.folder)


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """What agents of the runtime image get where they are deployed without: bytes, nano-CPUs, what Git is told."""

    memory_limit: int = _key(defaults.RUNTIME_MEMORY_BYTES, values.size(0, 2**50), env=("DEFAULT_CONTAINER_MEMORY",))
    cpu_limit: int = _key(defaults.RUNTIME_CPU, values.integer(0, 10**12), env=("DEFAULT_CONTAINER_CPU",))
    git_user_name: str = _key("", values.text, env=("GIT_USER_NAME",))
    git_user_email: str = _key("", values.text, env=("GIT_USER_EMAIL",))
    github_token: str = _key("", values.secret, env=("GITHUB_TOKEN",), secret=True)


@dataclass(frozen=True, slots=True)
class JobsConfig:
    """What jobs run in and what they get where they name nothing: bytes, nano-CPUs, seconds.

    `output_dir` "": the folder `jobs` of the state folder. `templates_dir` "": `default_templates_dir`.
    `max_running` 0: one per core. `warm`: containers that stand ready.
    `webhook_attempts`: to tell its end. `webhook_refuse`: networks where no webhook goes, and names of some.
    """

    image: str = _key(defaults.JOB_IMAGE, values.image, env=("AGENT_IMAGE",), reload=True)
    output_dir: str = _key("", values.folder, env=("AGENT_OUTPUT_DIR",))
    retention_days: float = _key(1.0, values.number(0, 366), env=("RETENTION_DAYS",), reload=True)
    max_bytes: int = _key(defaults.JOBS_BYTES, values.size(0, 2**60), reload=True)
    max_running: int = _key(0, values.integer(0, 1000), reload=True)
    warm: int = _key(0, values.integer(0, 100), reload=True)
    memory_limit: int = _key(defaults.JOB_MEMORY_BYTES, values.size(defaults.MIN_MEMORY_BYTES, 2**50), reload=True)
    cpu_limit: int = _key(defaults.JOB_CPU, values.integer(10**7, 10**12), reload=True)
    pids_limit: int = _key(defaults.JOB_PIDS, values.integer(defaults.MIN_JOB_PIDS, 2**22), reload=True)
    disk_limit: int = _key(defaults.JOB_DISK_BYTES, values.size(2**20, 2**50), reload=True)
    archive_limit: int = _key(defaults.MAX_ARCHIVE_BYTES, values.size(2**20, 2**50))
    wall_s: float = _key(defaults.JOB_WALL_S, values.seconds(1, defaults.MAX_RUN_WALL_S), reload=True)
    network: bool = _key(True, values.boolean, reload=True)
    templates_dir: str = _key("", values.folder, reload=True)
    webhook_attempts: int = _key(MAX_ATTEMPTS, values.integer(1, MAX_ATTEMPTS), reload=True)
    webhook_refuse: tuple[str, ...] = _key(("metadata", "agents"), values.texts(values.refused_network), reload=True)

    @property
    def templates_folder(self) -> str:
        """Where templates are, whether something says so or not."""
        return self.templates_dir or default_templates_dir()


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be configured. `Config()` is what runs where nobody says anything."""

    server: ServerConfig = field(default_factory=ServerConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    redis: RedisConfig = field(default_factory=RedisConfig)
    shared_redis: SharedRedisConfig = field(default_factory=SharedRedisConfig)
    docker: DockerConfig = field(default_factory=DockerConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    security: SecurityConfig = field(default_factory=SecurityConfig)
    api: ApiConfig = field(default_factory=ApiConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    requests: RequestsConfig = field(default_factory=RequestsConfig)
    log: LogConfig = field(default_factory=LogConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    models: ModelsConfig = field(default_factory=ModelsConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    jobs: JobsConfig = field(default_factory=JobsConfig)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the configuration, such as "server.port"."""

    name: str
    default: object
    parse: values.Parse
    variables: tuple[str, ...]
    reload: bool
    secret: bool
    nested: bool


def keys() -> Iterator[Key]:
    """Return every key, in the order of the file. `variables` are its names in the environment, the full one first."""
    for section in dataclasses.fields(Config):
        start: Any = section.default_factory() if callable(section.default_factory) else None
        for entry in dataclasses.fields(start):
            name = f"{section.name}.{entry.name}"
            full = "AGENTAINER_" + name.replace(".", "_").upper()
            meta = entry.metadata
            variables = (full, *reversed(meta["env"]))
            flags = (meta.get(flag, False) for flag in ("reload", "secret", "nested"))
            yield Key(name, getattr(start, entry.name), meta["parse"], variables, *flags)
