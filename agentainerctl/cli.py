"""The program: the table of commands, and the one place where errors become messages and exit codes.

A command's module is imported when the command is used: `agentainerctl list` must not pay for `deploy`.
"""

import os
import sys
from importlib import import_module

import click

from agentainerctl import exits, output
from agentainerctl.options import Command, Group, connection_options, write_examples
from agentainerctl.session import Session
from agentainerd.errors import AgentainerError
from agentainerd.version import VERSION

PROGRAM = "agentainerctl"
COMMANDS = {
    "deploy": ("deploy", "deploy", "Deploy an agent from an image or a Dockerfile."),
    "apply": ("apply", "apply", "Have agents as a file describes them."),
    "diff": ("apply", "diff", "Show what apply would do."),
    "start": ("lifecycle", "start", "Start deployed or stopped agents."),
    "stop": ("lifecycle", "stop", "Stop running agents."),
    "restart": ("lifecycle", "restart", "Restart running agents."),
    "pause": ("lifecycle", "pause", "Freeze running agents."),
    "resume": ("lifecycle", "resume", "Bring agents back, whatever took them down."),
    "remove": ("lifecycle", "remove", "Remove agents with their containers and requests."),
    "scale": ("replicas", "scale", "Give an agent another number of replicas."),
    "list": ("agents", "list_", "List agents."),
    "inspect": ("agents", "inspect", "Show all that is known of agents."),
    "deployments": ("apply", "deployments_", "List deployments."),
    "export": ("apply", "export", "Write a deployment as a file."),
    "open": ("ports", "open_", "Print addresses that open an agent's screens and notebooks in a browser."),
    "logs": ("logs", "logs", "Show what an agent writes."),
    "health": ("health", "health", "Show how agents are."),
    "metrics": ("metrics", "metrics", "Show what agents use."),
    "top": ("top", "top", "Show what agents use and do, again and again."),
    "models": ("models", "models", "List the models that agents can use."),
    "usage": ("models", "usage", "Show what agents used of models."),
    "events": ("events", "events", "Show what happened to agents."),
    "audit": ("audit", "audit", "Show who changed what."),
    "run": ("run", "run", "Give an agent something to do, and show what it says and does."),
    "runs": ("runs", "runs", "Show, join, answer and cancel runs."),
    "jobs": ("jobs", "jobs", "Submit, watch and collect jobs."),
    "sessions": ("sessions", "sessions", "Show and keep conversations with agents."),
    "chat": ("chat", "chat", "Talk to an agent."),
    "bridge": ("bridges", "bridge", "Check what an agent's container speaks."),
    "requests": ("requests", "requests", "Show and manage the durable requests of an agent."),
    "runtime": ("runtime", "group", "Build the image that agents of --runtime have."),
    "backup": ("backups", "backup", "Back up agents with what is in their volumes, and restore them."),
    "build": ("images", "build", "Build an image from a Dockerfile."),
    "system": ("system", "system", "Ask the daemon about itself."),
    "doctor": ("doctor", "doctor", "Examine the daemon and what it stands on."),
    "token": ("tokens", "token", "Make, list and revoke tokens of the API."),
    "completion": ("completion", "completion", "Print a completion script for a shell."),
    "version": ("system", "version", "Show the versions of this program and of the daemon."),
}
"""name: (module in commands/, attribute, line in the help)."""
ALIASES = {"ps": "list", "ls": "list", "rm": "remove"}
HIDDEN = {"__names": ("completion", "names", "")}
EXAMPLES = (
    "agentainerctl deploy --name web --image ./Dockerfile --wait",
    "agentainerctl logs --follow web",
    "AGENTAINER_HOST=http://10.0.0.5:8081 agentainerctl list",
)


class LazyGroup(click.Group):
    """The root: knows its commands by name only, until one is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None where there is no such one."""
        name = ALIASES.get(cmd_name, cmd_name)
        found = COMMANDS.get(name) or HIDDEN.get(name)
        if not found:
            return None
        command = getattr(import_module(f"agentainerctl.commands.{found[0]}"), found[1])
        assert isinstance(command, Command | Group)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a name that is nearly one is named in the error."""
        if args[0] not in COMMANDS and args[0] not in ALIASES and args[0] not in HIDDEN:
            raise click.NoSuchCommand(args[0], possibilities=COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their lines from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples and where to read on."""
        write_examples(EXAMPLES, formatter)
        formatter.write_paragraph()
        formatter.write_text("Options of connection may stand before or after the command.")


root = LazyGroup(
    name=PROGRAM,
    help="Run LLM agents as containers; no request that was accepted is lost.",
    params=[*connection_options()],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
root = click.version_option(VERSION, prog_name=PROGRAM, message="%(prog)s %(version)s")(root)


def main() -> int:
    """Run the command line in `sys.argv` and return the exit code; the entry point."""
    session = Session()
    _prepare_streams()
    try:
        code = _run(session, sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (head, grep -q) has what it wanted
        _close_stdout()
        return exits.OK
    except OSError as error:
        _close_stdout()
        what = error.filename or "cannot write the output"
        return _fail(session, AgentainerError(f"{what}: {error.strerror}", code="OUTPUT_FAILED"))
    return code


def _prepare_streams() -> None:
    """Make stdout and stderr take every character; one that was closed (`>&-`) takes all and shows nothing."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open until the program ends
        getattr(sys, name).reconfigure(errors="backslashreplace")


def _run(session: Session, arguments: list[str]) -> int:
    """Parse and run; every error but those of writing to stdout ends here as a message."""
    try:
        with root.make_context(PROGRAM, arguments, obj=session) as context:
            root.invoke(context)
    except click.exceptions.NoArgsIsHelpError as error:
        output.say(error.format_message())
    except click.exceptions.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        output.note("")
        return exits.INTERRUPTED
    except click.UsageError as error:
        return _fail(session, _usage(session, error, arguments))
    except AgentainerError as error:
        return _fail(session, error)
    except OSError:
        raise
    except Exception as error:  # a bug of ours: the boundary of the program, as the accept loop is the daemon's
        _trace(session)
        message = f"internal error: {type(error).__name__}: {error}"
        return _fail(session, AgentainerError(message, hint="run it again with --debug, and report what it shows"))
    return session.exit_code


def _fail(session: Session, error: AgentainerError) -> int:
    if error.__cause__ is not None or error.__traceback__ is not None:
        _trace(session)
    return session.report(error)


def _trace(session: Session) -> None:
    if session.is_debug:
        import traceback

        traceback.print_exc()


def _usage(session: Session, error: click.UsageError, arguments: list[str]) -> AgentainerError:
    flat = " ".join(arguments).replace("--output", "-o").replace("=", " ").replace("-o ", "-o")
    if "--json" in arguments or "-ojson" in flat.split():
        session.output = "json"  # parsing may have stopped before it came to this option
    path = error.ctx.command_path if error.ctx else PROGRAM
    message = error.format_message().rstrip(".")
    if isinstance(error, click.NoSuchCommand) and error.possibilities:
        message = f"{error.message} Did you mean '{error.possibilities[0]}'?"  # click names all that are near, by the alphabet
    return AgentainerError(message, code="INVALID_PARAMETER", hint=f"{path} --help")


def _close_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush has nowhere to fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
