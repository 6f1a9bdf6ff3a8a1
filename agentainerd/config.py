"""The configuration: frozen dataclasses whose attribute path is the key path of config.yaml, and how they are filled.

Flags beat environment beat file beat defaults. Every value remembers where it came from. A key that does not exist, a
value that cannot be right or a file that cannot be read is an error which names the file, the line, the key and what
would be right; all of them are told at once. docs/configuration.md lists every key, and a test holds it against this.
"""

import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

from agentainerd import config_models as models
from agentainerd import config_values as values
from agentainerd import defaults
from agentainerd.config_sources import Given, Source, find_file, read_environment, read_file
from agentainerd.errors import AgentainerError
from agentainerd.model.providers import Provider

T = TypeVar("T")

MAX_SOCKET_PATH_BYTES = 107  # sockaddr_un of Linux, without its NUL
YEAR_S = 366 * 86400.0
CLI_VARIABLES = (
    "AGENTAINER_HOST", "AGENTAINER_URL", "AGENTAINER_DEBUG", "AGENTAINER_OUTPUT", "AGENTAINER_CONFIG",
    "AGENTAINER_BACKUP_PASSPHRASE",
)  # fmt: skip


class ConfigError(AgentainerError):
    """The configuration cannot be used; `problems` has one line for each thing that is wrong."""

    default_code = "CONFIG_INVALID"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems), details={"problems": problems})
        self.problems = problems


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
    """Bounds of what clients of the API ask; the sites whose pages may are `server.allowed_origins`."""

    request_timeout_s: float = _key(defaults.API_REQUEST_TIMEOUT_S, values.seconds(1, 3600), reload=True)
    max_body_bytes: int = _key(defaults.MAX_API_BODY_BYTES, values.size(64 * 1024, 2**30), reload=True)


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


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and its story: `origins` says for each key where it was set (absent: default)."""

    config: Config
    origins: Mapping[str, str]
    file: str | None
    warnings: tuple[str, ...]

    def origin(self, key: str) -> str:
        """Return where a key's value came from, for people."""
        return self.origins.get(key, "default")


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


def load(file: str | None, environment: Mapping[str, str], flags: Mapping[str, Given]) -> Loaded:
    """Read all sources and return the configuration.

    Args:
        file: the path that --config gave, which must be readable; None: the first file of the search path, if any.
        environment: usually os.environ.
        flags: values by key.

    Raises:
        ConfigError: with every problem found.
    """
    known = {key.name: key for key in keys()}
    path = file if file is not None else find_file(environment)
    nested = [key.name for key in known.values() if key.nested]
    from_file = read_file(path, known, nested) if path else Source()
    from_environment = read_environment(
        environment,
        {name: key.name for key in known.values() for name in reversed(key.variables)},
        secrets=[key.name for key in known.values() if key.secret],
        foreign=CLI_VARIABLES,
    )
    layers = (_inherited(environment), from_file.values, from_environment.values, flags)
    given = {key: entry for layer in layers for key, entry in layer.items()}
    problems = [*from_file.problems, *from_environment.problems]
    parsed = _parse(given, known, problems)
    if problems:
        raise ConfigError(problems)
    warnings = [*from_file.warnings, *from_environment.warnings, *_settle_aliases(parsed, layers)]
    config = _build(parsed)
    providers, problems, odd = models.with_keys(config.models.providers, environment)
    config = dataclasses.replace(config, models=dataclasses.replace(config.models, providers=providers))
    warnings += [*odd, *_unheld(config)]
    if problems := [*problems, *_contradictions(config, given)]:
        raise ConfigError(problems)
    origins = {key: given[key].where for key in parsed if key in given}
    state_dir = origins.get("paths.state_dir") or origins.get("storage.data_dir")
    if state_dir:
        origins["paths.state_dir"] = origins["storage.data_dir"] = state_dir
    return Loaded(config, origins, path, tuple(warnings))


def reloaded(old: Config, new: Config) -> tuple[Config, list[str], list[str]]:
    """Return the configuration to go on with, the keys that change with it, and those that wait for a restart."""
    applied, waiting = [], []
    current = old
    for key in keys():
        section, name = key.name.split(".")
        value = getattr(getattr(new, section), name)
        if value == getattr(getattr(old, section), name):
            continue
        if not key.reload:
            waiting.append(key.name)
            continue
        applied.append(key.name)
        changed = dataclasses.replace(getattr(current, section), **{name: value})
        current = dataclasses.replace(current, **{section: changed})
    return current, applied, waiting


def _inherited(environment: Mapping[str, str]) -> dict[str, Given]:
    """Docker's own variable: below everything that names the engine for us."""
    host = environment.get("DOCKER_HOST")
    return {"docker.host": Given(host, "DOCKER_HOST")} if host else {}


def _parse(given: Mapping[str, Given], known: Mapping[str, Key], problems: list[str]) -> dict[str, object]:
    parsed: dict[str, object] = {}
    for name, entry in given.items():
        try:
            parsed[name] = known[name].parse(entry.value)
        except ValueError as exc:
            problems.append(f"{entry.where}: {name}: {exc}")
    return parsed


def _settle_aliases(parsed: dict[str, object], layers: tuple[Mapping[str, Given], ...]) -> list[str]:
    """Where two keys mean one thing the higher source wins; in one source the newer key, with a warning."""
    warnings = []
    for newer, older in (("paths.state_dir", "storage.data_dir"), ("redis.url", "redis.host")):
        if not parsed.get(newer) or not parsed.get(older):
            continue
        ranks = [max(rank for rank, layer in enumerate(layers) if key in layer) for key in (newer, older)]
        loser = newer if ranks[1] > ranks[0] else older
        del parsed[loser]
        if ranks[0] == ranks[1]:
            warnings.append(f"{layers[ranks[0]][older].where}: {older} is not used, since {newer} is set too")
    if data_dir := parsed.get("storage.data_dir"):
        parsed["paths.state_dir"] = data_dir
    return warnings


def _build(parsed: Mapping[str, object]) -> Config:
    sections: dict[str, dict[str, object]] = {}
    for key, value in parsed.items():
        section, name = key.split(".")
        sections.setdefault(section, {})[name] = value
    start = Config()
    built: dict[str, Any] = {
        section: dataclasses.replace(getattr(start, section), **changes) for section, changes in sections.items()
    }
    config = dataclasses.replace(start, **built)
    return dataclasses.replace(config, storage=StorageConfig(config.paths.state_dir))


def _unheld(config: Config) -> list[str]:
    """Return a warning where a budget is set that does not hold every model."""
    chosen = config.models
    names = models.unpriced(chosen.providers)
    if not names or not (chosen.budget_run_usd or chosen.budget_agent_usd or chosen.budget_day_usd):
        return []
    return [f"models: no budget holds {', '.join(names[:5])}: models.providers has no prices of them"]


def _contradictions(config: Config, given: Mapping[str, Given]) -> list[str]:
    """Return what is wrong with values that are right one by one."""

    def at(key: str) -> str:
        return f"{given[key].where}: {key}" if key in given else key

    problems = []
    if config.security.default_token == defaults.SEED_TOKEN and not values.is_loopback(config.server.host):
        problems.append(
            f"{at('security.default_token')}: refusing to listen on {config.server.host} with the default token, which "
            "everybody knows: set a token of your own, or remove the key and one is made"
        )
    if config.security.open_prefixes and not values.is_loopback(config.server.host):
        problems.append(
            f"{at('security.open_prefixes')}: refusing to listen on {config.server.host} with paths that ask for no token: "
            "set server.host to 127.0.0.1, or remove the key"
        )
    if config.paths.state_dir == config.paths.runtime_dir:
        problems.append(f"{at('paths.runtime_dir')}: is the state folder too: they must be two folders")
    if len(os.fsencode(config.paths.control_socket)) > MAX_SOCKET_PATH_BYTES:
        problems.append(
            f"{at('paths.runtime_dir')}: {config.paths.runtime_dir!r} is too long for the sockets in it: "
            f"at most {MAX_SOCKET_PATH_BYTES - len(defaults.CONTROL_SOCKET) - 1} bytes"
        )
    if config.shared_redis.port == config.server.port:
        problems.append(
            f"{at('shared_redis.port')}: is server.port too: on the agents' networks they must be two ports"
        )
    if config.models.record and config.models.replay:
        problems.append(f"{at('models.replay')}: is set together with models.record: play exchanges, or record them")
    if config.docker.network == config.docker.isolated_network:
        problems.append(f"{at('docker.isolated_network')}: is docker.network too: they must be two networks")
    return problems
