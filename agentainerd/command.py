"""The command `agentainerd`: flags, messages for people, exit codes. What runs is in daemon.py.

Exit codes: 0 stopped, 1 a bug, 2 configuration or usage (starting again changes nothing), 3 something it needs is
missing or taken, 4 the journal is lost, damaged or taken over (a person must look).
"""

import os
import sys
from pathlib import Path

import click

from agentainerd import folders
from agentainerd.config import Config
from agentainerd.config_load import ConfigError, Loaded, load
from agentainerd.config_print import describe
from agentainerd.config_sources import Given
from agentainerd.daemon import Daemon
from agentainerd.errors import AgentainerError, InvalidParameter
from agentainerd.store import losses
from agentainerd.store.redis_binary import find_binary
from agentainerd.version import VERSION

EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_MISSING = 3
EXIT_JOURNAL = 4
JOURNAL_CODES = frozenset(("JOURNAL_LOST", "JOURNAL_DAMAGED", "JOURNAL_FENCED", "JOURNAL_TOO_NEW"))

EPILOG = """\b
Files:
  ./config.yaml, ~/.agentainer/config.yaml, /etc/agentainer/config.yaml   the first that is there
  <state-dir>/token        the token of the API over TCP, made at the first start
Signals:
  SIGTERM, SIGINT          stop: finish what is in flight, leave agents running; twice: at once
  SIGHUP                   read the configuration again
Examples:
  agentainerd                                      as root: a server for the whole machine
  agentainerd --state-dir ~/agents --listen 127.0.0.1:9000
  agentainerd --config agentainer.yaml --check-config
  agentainerd --accept-journal-loss                after exit code 4, once: what is missing may be missing
"""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=EPILOG)
@click.option("--config", "file", metavar="FILE", help="Configuration file, instead of those that are looked for.")
@click.option("--env-file", metavar="FILE", help="File of variables (.env), below the environment and above --config.")
@click.option("--state-dir", metavar="DIR", help="Folder for what must survive: journal, token.")
@click.option("--runtime-dir", metavar="DIR", help="Folder for the sockets.")
@click.option("--listen", metavar="HOST:PORT", help="Address of API and proxy  [default: 127.0.0.1:8081]")
@click.option("--redis-url", metavar="URL", help="Use this Redis server instead of an own one.")
@click.option("--docker-host", metavar="URL", help="Address of the Docker Engine.")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error  [default: info]")
@click.option(
    "--record-models",
    "--record",
    metavar="DIR",
    help="Write every exchange with a provider of models there, for tests.",
)
@click.option(
    "--replay-models", "--replay", metavar="DIR", help="Play the exchanges that are there, and ask no provider."
)
@click.option("--check-config", is_flag=True, help="Check the configuration and start nothing.")
@click.option(
    "--accept-journal-loss", is_flag=True, help="After exit code 4: give up what the journal lost, and start nothing."
)
@click.option("--print-config", is_flag=True, help="Print every value and where it comes from, and start nothing.")
@click.version_option(VERSION, prog_name="agentainerd", message="%(prog)s %(version)s")
def agentainerd(
    file: str | None,
    env_file: str | None,
    *,
    check_config: bool,
    accept_journal_loss: bool,
    print_config: bool,
    **flags: str | None,
) -> None:
    """Run LLM agents as containers, and deliver every request that was accepted."""

    def read() -> Loaded:
        return load(file, os.environ, flag_values(flags), env_file)

    loaded = read()
    if print_config:
        click.echo(describe(loaded))
    if check_config or print_config:
        for warning in loaded.warnings:
            click.echo(f"warning: {warning}", err=True)
    if check_config:
        files = ", ".join(name for name in (loaded.file, loaded.env_file) if name)
        click.echo(f"the configuration is right ({files or 'no file'})", err=print_config)
    if accept_journal_loss and not check_config:
        give_up_loss(loaded.config)
    elif not (check_config or print_config):
        sys.exit(Daemon(loaded, read).run())


def main() -> None:
    """Run the command; every failure that has a name becomes a message and an exit code."""
    try:
        agentainerd.main(standalone_mode=True)
    except ConfigError as exc:
        for problem in exc.problems:
            click.echo(f"error: {problem}", err=True)
        click.echo("hint: docs/configuration.md has every key; check again with: agentainerd --check-config", err=True)
        sys.exit(EXIT_USAGE)
    except AgentainerError as exc:
        click.echo(f"error: {exc.message}", err=True)
        if exc.hint:
            click.echo(f"hint: {exc.hint}", err=True)
        sys.exit(exit_code(exc))


def give_up_loss(config: Config) -> None:
    """Make the journal one that the next start takes, and say what that cost.

    Raises:
        AgentainerError: a daemon runs on this state folder, or it can't be changed.
    """
    state_dir = config.paths.state_dir
    folders.prepare_state(state_dir)
    lock = folders.FolderLock(state_dir, "state")
    try:
        for line in losses.accept(Path(state_dir), lambda: find_binary(config.redis.server_binary).path):
            click.echo(line)
    finally:
        lock.release()


def exit_code(error: AgentainerError) -> int:
    """Return the exit code for an error that ended the start."""
    if isinstance(error, InvalidParameter):
        return EXIT_USAGE
    return EXIT_JOURNAL if error.code in JOURNAL_CODES else EXIT_MISSING


def flag_values(flags: dict[str, str | None]) -> dict[str, Given]:
    """Return the configuration values that flags give.

    Raises:
        ConfigError: --listen is not HOST:PORT.
    """
    names = {
        "state_dir": "paths.state_dir",
        "runtime_dir": "paths.runtime_dir",
        "redis_url": "redis.url",
        "docker_host": "docker.host",
        "log_level": "log.level",
        "record_models": "models.record",
        "replay_models": "models.replay",
    }
    values = {
        key: Given(text, "--" + flag.replace("_", "-"))
        for flag, key in names.items()
        if (text := flags.get(flag)) is not None
    }
    if (listen := flags.get("listen")) is not None:
        host, colon, port = listen.rpartition(":")
        if not (host and colon and port):
            raise ConfigError([f"--listen: {listen!r} is not HOST:PORT: write 127.0.0.1:8081, or 0.0.0.0:8081 for all"])
        values["server.host"] = Given(host, "--listen")
        values["server.port"] = Given(port, "--listen")
    return values
