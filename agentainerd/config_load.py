"""How the configuration is filled: from flags, environment, a file of variables, the configuration file and defaults.

A file of variables is below the environment and above the configuration file; what it says is nowhere but in the configuration,
so that no program that the daemon starts has it.
"""

import dataclasses
import os
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentainerd import config_models as models
from agentainerd import config_values as values
from agentainerd import defaults
from agentainerd.config import Config, Key, StorageConfig, keys
from agentainerd.config_dotenv import Dotenv, read_dotenv
from agentainerd.config_sources import Given, Source, find_file, read_environment, read_file
from agentainerd.errors import AgentainerError
from agentainerd.model.providers import KEY_VARIABLES, Provider

ENV_FILE = "AGENTAINER_ENV_FILE"
"""Names a file of variables, as --env-file does."""
DOCKER_HOST = "DOCKER_HOST"

MAX_SOCKET_PATH_BYTES = 107  # sockaddr_un of Linux, without its NUL
CLI_VARIABLES = (
    "AGENTAINER_HOST", "AGENTAINER_URL", "AGENTAINER_DEBUG", "AGENTAINER_OUTPUT", "AGENTAINER_CONFIG",
    "AGENTAINER_BACKUP_PASSPHRASE", ENV_FILE,
)  # fmt: skip


class ConfigError(AgentainerError):
    """The configuration cannot be used; `problems` has one line for each thing that is wrong."""

    default_code = "CONFIG_INVALID"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems), details={"problems": problems})
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and its story: `origins` says for each key where it was set (absent: default)."""

    config: Config
    origins: Mapping[str, str]
    file: str | None
    warnings: tuple[str, ...]
    env_file: str | None = None

    def origin(self, key: str) -> str:
        """Return where a key's value came from, for people."""
        return self.origins.get(key, "default")


def load(
    file: str | None, environment: Mapping[str, str], flags: Mapping[str, Given], env_file: str | None = None
) -> Loaded:
    """Read all sources and return the configuration.

    Args:
        file: the path that --config gave, which must be readable; None: the first file of the search path, if any.
        environment: usually os.environ.
        flags: values by key.
        env_file: the path that --env-file gave; None: the one that AGENTAINER_ENV_FILE names, if any.

    Raises:
        ConfigError: with every problem found.
    """
    known = {key.name: key for key in keys()}
    path = file if file is not None else find_file(environment)
    nested = [key.name for key in known.values() if key.nested]
    from_file = read_file(path, known, nested) if path else Source()
    env_file = env_file or environment.get(ENV_FILE) or None
    dotenv = read_dotenv(env_file, environment) if env_file else Dotenv()
    from_dotenv = _from_variables(dotenv.values, known, dotenv.places)
    from_environment = _from_variables(environment, known)
    inherited = {**_inherited(dotenv.values, dotenv.places), **_inherited(environment)}
    layers = (inherited, from_file.values, from_dotenv.values, from_environment.values, flags)
    given = {key: entry for layer in layers for key, entry in layer.items()}
    # An unknown variable of a file that was named for us is a mistake in it; in the environment it may be anybody's.
    problems = [*from_file.problems, *dotenv.problems, *from_dotenv.problems, *from_dotenv.warnings]
    problems += from_environment.problems
    parsed = _parse(given, known, problems)
    if problems:
        raise ConfigError(problems)
    warnings = [*from_file.warnings, *dotenv.warnings, *from_environment.warnings, *_settle_aliases(parsed, layers)]
    config = _build(parsed)
    variables = ChainMap(_set(environment), dotenv.values)
    providers, problems, odd = models.with_keys(config.models.providers, variables)
    config = dataclasses.replace(config, models=dataclasses.replace(config.models, providers=providers))
    warnings += [*odd, *_unheld(config), *_readable_keys(env_file, dotenv, known, providers)]
    if problems := [*problems, *_contradictions(config, given)]:
        raise ConfigError(problems)
    origins = {key: given[key].where for key in parsed if key in given}
    state_dir = origins.get("paths.state_dir") or origins.get("storage.data_dir")
    if state_dir:
        origins["paths.state_dir"] = origins["storage.data_dir"] = state_dir
    return Loaded(config, origins, path, tuple(warnings), env_file)


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


def _from_variables(
    variables: Mapping[str, str], known: Mapping[str, Key], places: Mapping[str, str] | None = None
) -> Source:
    return read_environment(
        variables,
        {name: key.name for key in known.values() for name in reversed(key.variables)},
        secrets=[key.name for key in known.values() if key.secret],
        foreign=CLI_VARIABLES,
        places=places,
    )


def _inherited(environment: Mapping[str, str], places: Mapping[str, str] | None = None) -> dict[str, Given]:
    """Docker's own variable: below everything that names the engine for us."""
    host = environment.get(DOCKER_HOST)
    where = f"{places[DOCKER_HOST]} ({DOCKER_HOST})" if places and host else DOCKER_HOST
    return {"docker.host": Given(host, where)} if host else {}


def _set(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are not empty: an empty one counts as not set."""
    return {name: text for name, text in environment.items() if text}


def _readable_keys(
    path: str | None, dotenv: Dotenv, known: Mapping[str, Key], providers: tuple[Provider, ...]
) -> list[str]:
    """Return a warning where a file of variables has a key or a token, and others than its owner can read it."""
    secrets = {name for key in known.values() if key.secret for name in key.variables}
    secrets |= {"AGENTAINER_MODELS_PROVIDERS", *KEY_VARIABLES.values(), *(each.key_variable for each in providers)}
    held = [name for name in dotenv.values if name in secrets and dotenv.values[name]]
    if not held or not dotenv.is_open:
        return []
    return [f"{path}: others than its owner can read {', '.join(held[:5])} in it: chmod 600 {path}"]


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
    if config.jobs.output_dir in ("/", config.paths.state_dir, config.paths.runtime_dir):
        problems.append(
            f"{at('jobs.output_dir')}: {config.jobs.output_dir} is not for jobs alone: name a folder of their own"
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
