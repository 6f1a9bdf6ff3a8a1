"""The reference part of docs/cli.md, from the commands themselves.

`python -m tests.unit.ctl.cli_reference` writes it; test_docs.py fails when it is out of date.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from agentainerctl.cli import PROGRAM, root
from agentainerctl.session import Session

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"
BEGIN = "<!-- reference: begin (written by tests/unit/ctl/cli_reference.py) -->\n"
END = "<!-- reference: end -->\n"


def commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Return all commands that people see, with the words that call them."""
    yield from _below(PROGRAM, root, click.Context(root, info_name=PROGRAM, obj=Session()))


def reference() -> str:
    """Return the text between the marks."""
    parts = [_section(path, command, context) for path, command, context in commands() if path != PROGRAM]
    return "\n".join(parts)


def written() -> str:
    """Return the page with a reference that is up to date."""
    page = PAGE.read_text()
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{reference()}\n{END}{tail}"


def _below(
    path: str, command: click.Command, context: click.Context
) -> Iterator[tuple[str, click.Command, click.Context]]:
    yield path, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _below(
                f"{path} {name}", child, click.Context(child, parent=context, info_name=name, obj=Session())
            )


def _section(path: str, command: click.Command, context: click.Context) -> str:
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    lines = [f"### {path}", "", f"    {usage}", "", inspect.cleandoc(command.help or ""), ""]
    options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    if options:
        lines += ["| option | |", "|---|---|"]
        lines += [_row(option, context) for option in options]
        lines.append("")
    lines += ["Examples:", "", *(f"    {example}" for example in getattr(command, "examples", ())), ""]
    return "\n".join(lines)


def _row(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    assert record is not None
    flags, text = (part.replace("|", "\\|") for part in record)
    return f"| `{flags}` | {' '.join(text.split())} |"


if __name__ == "__main__":
    PAGE.write_text(written())
