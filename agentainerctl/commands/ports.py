"""`open`."""

import click

from agentainerctl import output
from agentainerctl.client import path_of
from agentainerctl.options import Command, output_options
from agentainerctl.refs import with_agent
from agentainerctl.session import Session

COLUMNS = (output.Column("PORT"), output.Column("URL"))


@click.command(
    "open",
    cls=Command,
    names="agents",
    examples=("agentainerctl open web", "agentainerctl open web gui", "xdg-open $(agentainerctl open web jupyter)"),
)
@click.argument("ref", metavar="AGENT")
@click.argument("port", metavar="[PORT]", required=False)
@output_options("table", "json", "yaml")
@click.pass_obj
def open_(session: Session, ref: str, port: str | None) -> None:
    """Print addresses that open an agent's screens and notebooks in a browser.

    Each is good once, within five minutes, and lets that browser in for twelve hours. Without PORT: of all of them.
    """
    show_logins(
        session, with_agent(session.client, ref, lambda known: find_logins(session, known, port)), has_port=bool(port)
    )


def find_logins(session: Session, agent: str, port: str | None) -> list[dict[str, str]]:
    """Return addresses that open the named ports of an agent, or one of them. Raises AgentainerError, as `Client.call`."""
    query = {"port": port} if port else {}
    found: list[dict[str, str]] = session.client.call("POST", path_of("agents", agent, "ports", "open"), query=query)[
        "data"
    ]
    return found


def show_logins(session: Session, found: list[dict[str, str]], *, has_port: bool) -> None:
    """Print such addresses; `has_port`: of one port, whose name need not be told."""
    if session.is_machine:
        output.machine(found, session.output)
    elif has_port or session.is_quiet:
        for login in found:
            print(output.plain(login["url"]))
    else:
        output.table(COLUMNS, [(login["port"], login["url"]) for login in found])
