"""`models` and `usage`."""

from typing import Any

import click

from agentainerctl import output
from agentainerctl.client import path_of
from agentainerctl.options import Command, output_options
from agentainerctl.output import Column
from agentainerctl.session import Session

Row = dict[str, Any]

MODEL_COLUMNS = (
    Column("MODEL"),
    Column("INPUT"),
    Column("CACHED"),
    Column("OUTPUT"),
    Column("STANDS FOR", can_shrink=True),
)
COUNTS = (
    Column("CALLS"),
    Column("FAILED"),
    Column("INPUT"),
    Column("CACHED"),
    Column("OUTPUT"),
    Column("COST"),
)


@click.command(
    "models",
    cls=Command,
    examples=("agentainerctl models", "agentainerctl models -o json | jq -r '.[].name'"),
)
@output_options("table", "json", "yaml", "name")
@click.pass_obj
def models(session: Session) -> None:
    """List the models that agents can use, with their prices: US dollars for a million tokens.

    `provider/*` is a provider that is asked for whatever it is that comes behind the stroke.
    """
    found: list[Row] = session.client.get(path_of("models"))
    if session.is_machine:
        output.machine(found, session.output)
    elif session.is_quiet or session.output == "name":
        for each in found:
            print(output.plain(each["name"]))
    elif not found:
        print("No models: the daemon has no provider (models.providers, or OPENAI_API_KEY in its environment)")
    else:
        output.table(MODEL_COLUMNS, [_model(each) for each in found])


@click.command(
    "usage",
    cls=Command,
    examples=(
        "agentainerctl usage",
        "agentainerctl usage --agent web --by day --since 7d",
        "agentainerctl usage --by model -o json | jq .total.cost_usd",
    ),
)
@click.option("-a", "--agent", "ref", metavar="AGENT", help="Only of this one; of one that is gone, its id.")
@click.option("--since", metavar="TIME", help="From that day on (UTC): 7d (ago), 2026-11-20T00:00:00Z.  [default: 30d]")
@click.option(
    "--by", type=click.Choice(["agent", "day", "model"]), default="agent", show_default=True, help="What the rows are."
)
@output_options("table", "json", "yaml")
@click.pass_obj
def usage(session: Session, ref: str | None, since: str | None, by: str) -> None:
    """Show what agents used of models: calls, tokens, cost.

    The cost is what providers said, or the configured prices of the tokens. A + behind it: some calls had neither. A call
    that is under way is not in it.
    """
    query = {"since": since, "by": by, "agent": ref}
    found: Row = session.client.get(path_of("usage"), query)
    if session.is_machine:
        output.machine(found, session.output)
        return
    rows = found["rows"]
    if not rows:
        print(f"No model was used since {output.plain(found['since'])}")
        return
    columns = (Column(by.upper(), can_shrink=by != "day"), *COUNTS)
    cells = [[_name(each, by), *_counts(each)] for each in rows]
    total = [["total", *_counts(found["total"])]] if len(rows) > 1 else []
    output.table(columns, [*cells, *total], colours={"total": "bold"})
    _notes(found)


def _notes(found: Row) -> None:
    """Say what the figures leave out."""
    total, today = found["total"], found["today"]
    if total["unpriced"]:
        output.note(f"{total['unpriced']} calls have no known price: see models.providers, prices")
    if total["estimated"]:
        output.note(f"{total['estimated']} calls were cut off: their tokens are estimated")
    if today["budget_usd"]:
        output.note(f"Today: ${today['cost_usd']:.2f} of ${today['budget_usd']:g}")


def _model(each: Row) -> list[str]:
    price = each["price"] or {}
    cells = [_dollars(price.get(kind)) for kind in ("input", "cached", "output")]
    return [str(each["name"]), *cells, ", ".join(each["models"]) or "-"]


def _name(each: Row, by: str) -> str:
    return str(each.get(by) or each.get("agent_id") or "-")


def _counts(each: Row) -> list[str]:
    counts = [f"{each[name]:,}" for name in ("calls", "failed", "input_tokens", "cached_tokens", "output_tokens")]
    cost = each["cost_usd"]
    return [*counts, "-" if cost is None else f"${cost:,.4f}{'+' if each['unpriced'] else ''}"]


def _dollars(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
