"""What the commands share on the command line: the command class with its examples, options of connection and output,
and the types of values.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from agentainerctl.output import FORMATS
from agentainerctl.session import Session
from agentainerd import units
from agentainerd.errors import InvalidParameter

Function = TypeVar("Function", bound=Callable[..., Any])


class Command(click.Command):
    """A command with examples in its help, and with the options of connection after its name too.

    `examples`: whole command lines. `names`: what its arguments are, for completion ("agents", "requests", "runs", "jobs",
    "sessions" or "").
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), names: str = "", **settings: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **settings)
        self.examples = tuple(examples)
        self.names = names
        taken = {option for parameter in self.params for option in parameter.opts}
        self.params += [option for option in connection_options(is_hidden=True) if option.opts[0] not in taken]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, each on a line of its own that is never wrapped."""
        write_examples(self.examples, formatter)


class Group(click.Group):
    """A group with examples in its help; without a command it shows its help."""

    command_class = Command

    def __init__(self, *args: Any, examples: Sequence[str] = (), **settings: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **settings)
        self.examples = tuple(examples)
        self.params += connection_options(is_hidden=True)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, each on a line of its own that is never wrapped."""
        write_examples(self.examples, formatter)


def write_examples(examples: Sequence[str], formatter: click.HelpFormatter) -> None:
    """Write the section Examples, where there are any."""
    if examples:
        with formatter.section("Examples"):
            for example in examples:
                formatter.write(f"{' ' * formatter.current_indent}{example}\n")


def connection_options(*, is_hidden: bool = False) -> list[click.Option]:
    """Return new `--host`, `--token`, `--token-file` and `--debug`, which fill in the session."""

    def keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
        if value and parameter.name:
            setattr(context.ensure_object(Session), parameter.name, value)

    texts = (
        ("--host", "ENDPOINT", "unix:///PATH or http://HOST:PORT; else AGENTAINER_HOST, else the local socket."),
        (
            "--token",
            "TOKEN",
            "Token of the API over TCP; else AGENTAINER_TOKEN. Others can see it in the process list.",
        ),
        ("--token-file", "FILE", "File that holds the token."),
    )
    options = [
        click.Option([flag], metavar=metavar, help=text, hidden=is_hidden, expose_value=False, callback=keep)
        for flag, metavar, text in texts
    ]
    debug = click.Option(
        ["--debug", "is_debug"],
        is_flag=True,
        help="Show a traceback with an error.",
        hidden=is_hidden,
        expose_value=False,
        callback=keep,
    )
    return [*options, debug]


def output_options(*formats: str) -> Callable[[Function], Function]:
    """Add `-o`, `--json` and `-q`, which fill in the session; `formats` where not all of them make sense."""

    def keep_output(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if value:
            context.ensure_object(Session).output = value

    def keep_json(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            context.ensure_object(Session).output = "json"

    def keep_quiet(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            context.ensure_object(Session).is_quiet = True

    choices = click.Choice(formats or FORMATS)

    def add(function: Function) -> Function:
        for option in (
            click.option(
                "-q", "--quiet", is_flag=True, help="Print ids only.", expose_value=False, callback=keep_quiet
            ),
            click.option("--json", is_flag=True, help="Same as -o json.", expose_value=False, callback=keep_json),
            click.option(
                "-o", "--output", type=choices, help="Form of the output.", expose_value=False, callback=keep_output
            ),
        ):
            function = option(function)
        return function

    return add


class _Unit(click.ParamType[Any]):
    """A value with a unit, read by a function of agentainerd.units."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Return the number that `value` means, or fail as a usage error."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except InvalidParameter as error:
            self.fail(f"{error.reason}; {error.hint}" if error.hint else error.reason, param, ctx)


SIZE = _Unit("size", units.parse_size)
CPU = _Unit("cores", units.parse_cpu)
DURATION = _Unit("duration", units.parse_duration)
ON_OFF = click.Choice(["on", "off"])
