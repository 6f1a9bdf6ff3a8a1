"""`token show` and `token rotate`: only over the daemon's Unix socket."""

from typing import Any

import click

from agentainerctl import output
from agentainerctl.client import path_of
from agentainerctl.options import Group, output_options
from agentainerctl.session import Session


@click.group(
    "token",
    cls=Group,
    examples=("agentainerctl token show", "agentainerctl token rotate"),
)
def token() -> None:
    """Show or replace the token of the API. It is asked for over TCP; these two work on the daemon's host only."""


@token.command(
    "show",
    examples=("agentainerctl token show", "export AGENTAINER_TOKEN=$(agentainerctl token show)"),
)
@output_options("table", "json", "yaml")
@click.pass_obj
def show(session: Session) -> None:
    """Print the token, and nothing else."""
    _print(session, session.client.get(path_of("token")))


@token.command(
    "rotate",
    examples=("agentainerctl token rotate", "agentainerctl token rotate -q >token.txt"),
)
@output_options("table", "json", "yaml")
@click.pass_obj
def rotate(session: Session) -> None:
    """Make a new token and print it; the old one is refused from then on."""
    _print(session, session.client.call("POST", path_of("token", "rotate")).get("data"))
    if session.has_progress:
        output.note("The old token is refused from now on.")


def _print(session: Session, data: Any) -> None:  # noqa: ANN401 - JSON
    if session.is_machine:
        output.machine(data, session.output)
    else:
        print(output.plain(data["token"]))
