"""`list` and `inspect`."""

import click

from agentainerctl import agents, output
from agentainerctl.client import path_of
from agentainerctl.options import Command, output_options
from agentainerctl.refs import list_agents, with_agent
from agentainerctl.session import Session
from agentainerd.errors import InvalidParameter

FILTERS = ("status", "name", "label")


@click.command(
    "list",
    cls=Command,
    examples=(
        "agentainerctl list",
        "agentainerctl list --filter status=running --filter label=team=search",
        "agentainerctl list -q | xargs agentainerctl stop",
    ),
)
@click.option(
    "-f",
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help="status=STATE (any of several), name=PART, label=KEY=VALUE (all of several).",
)
@click.option("--no-trunc", is_flag=True, help="Never cut a column, however narrow the terminal is.")
@output_options()
@click.pass_obj
def list_(session: Session, filters: tuple[str, ...], no_trunc: bool) -> None:
    """List agents.

    The first column is the id, the second the name. In a pipe the table is never cut.
    """
    found = list_agents(session.client, _query(filters))
    if session.is_machine:
        output.machine(found, session.output)
    elif session.is_quiet or session.output == "name":
        for agent in found:
            print(output.plain(agent.get("id" if session.is_quiet else "name", "")))
    elif not found:
        print("No agents found")
    else:
        is_wide = session.output == "wide"
        columns = agents.WIDE_COLUMNS if is_wide else agents.COLUMNS
        if no_trunc:
            columns = tuple(column._replace(can_shrink=False) for column in columns)
        rows = [agents.row(agent, session, is_wide=is_wide) for agent in found]
        output.table(columns, rows, colours=agents.colours(found))


@click.command(
    "inspect",
    cls=Command,
    names="agents",
    examples=("agentainerctl inspect web", "agentainerctl inspect -o json web | jq .last_exit"),
)
@click.argument("refs", metavar="AGENT...", nargs=-1, required=True)
@output_options()
@click.pass_obj
def inspect(session: Session, refs: tuple[str, ...]) -> None:
    """Show all that is known of agents: state and why, last exit with its log, limits, volumes, queue.

    With -o json, one agent is an object and several are an array. Values of secrets are never shown.
    """
    found = [
        with_agent(session.client, ref, lambda known: session.client.get(path_of("agents", known))) for ref in refs
    ]
    if session.is_machine:
        output.machine(found[0] if len(found) == 1 else found, session.output)
        return
    for number, agent in enumerate(found):
        if session.is_quiet or session.output == "name":
            print(output.plain(agent.get("id" if session.is_quiet else "name", "")))
            continue
        if number:
            print()
        agents.page(agent, session)


def _query(filters: tuple[str, ...]) -> dict[str, object]:
    """Return the filters as parameters of the API: any of the states, all of the labels, one part of a name."""
    found: dict[str, list[str]] = {}
    for text in filters:
        key, separator, value = text.partition("=")
        if not separator or key not in FILTERS:
            raise InvalidParameter("filter", f"{text!r} is not a filter", hint=f"KEY=VALUE with {', '.join(FILTERS)}")
        found.setdefault(key, []).append(value)
    if len(found.get("name", ())) > 1:
        raise InvalidParameter("filter", "name is there twice")
    return {key: values if key == "label" else ",".join(values) for key, values in found.items()}
