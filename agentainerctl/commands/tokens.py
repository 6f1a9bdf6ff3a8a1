"""`token create list revoke rotate show`."""

from typing import Any

import click

from agentainerctl import batch, output
from agentainerctl.client import path_of
from agentainerctl.options import DURATION, Group, output_options
from agentainerctl.output import Column, age
from agentainerctl.session import Session
from agentainerd.errors import InvalidParameter
from agentainerd.units import format_duration, parse_duration

Record = dict[str, Any]

COLUMNS = (
    Column("NAME", can_shrink=True),
    Column("ID"),
    Column("SCOPES", can_shrink=True),
    Column("CREATED"),
    Column("EXPIRES"),
    Column("LAST USED"),
)
WIDE_COLUMNS = (*COLUMNS, Column("ROTATED"), Column("OLD ONE GOOD"))
_COLOURS = {"expired": "red"}


@click.group(
    "token",
    cls=Group,
    examples=(
        "agentainerctl token create ci --scope operate --expires 30d",
        "agentainerctl token list",
        "agentainerctl token rotate ci --grace 24h",
        "agentainerctl token revoke ci",
    ),
)
def token() -> None:
    """Make, list and revoke tokens of the API.

    Over TCP a token is asked for: a named one, or the control token, which may do everything.
    """


@token.command(
    "create",
    examples=(
        "agentainerctl token create dashboard --scope read",
        "agentainerctl token create ci --scope operate --expires 30d -q >ci.token",
        "agentainerctl token create mobile-app --scope agent:web --expires never",
    ),
)
@click.argument("name", metavar="NAME")
@click.option(
    "--scope", "scopes", multiple=True, required=True, metavar="SCOPE",
    help="What it may do: read, operate (read, and start, stop, scale), admin (everything), or agent:NAME; repeatable.",
)  # fmt: skip
@click.option("--expires", metavar="TIME", help="How long it is good: 12h, 30d, or never.  [default: 90d]")
@output_options("table", "json", "yaml")
@click.pass_obj
def create(session: Session, name: str, scopes: tuple[str, ...], expires: str | None) -> None:
    """Make a token and print it, this once: the daemon keeps only a digest of it."""
    body: Record = {"name": name, "scopes": [scope for text in scopes for scope in text.split(",") if scope]}
    if expires is not None:
        body["expires_in_s"] = 0 if expires == "never" else _seconds(expires)
    made = session.client.call("POST", path_of("tokens"), body=body)["data"]
    _print(session, made)
    if session.has_progress:
        output.note(f"Token '{name}' {_lifetime(made)}. It is not shown again.")


@token.command("list", examples=("agentainerctl token list", "agentainerctl token list -o json"))
@output_options()
@click.pass_obj
def list_(session: Session) -> None:
    """List the named tokens: what they may do, until when, and when they were used."""
    found: list[Record] = session.client.get(path_of("tokens"))
    if session.is_machine:
        output.machine(found, session.output)
    elif session.is_quiet or session.output == "name":
        for each in found:
            print(output.plain(each["name"]))
    elif not found:
        print("No named tokens. Make one: agentainerctl token create NAME --scope read")
    else:
        is_wide = session.output == "wide"
        output.table(WIDE_COLUMNS if is_wide else COLUMNS, [_row(each, is_wide) for each in found], colours=_COLOURS)


@token.command("revoke", examples=("agentainerctl token revoke ci", "agentainerctl token revoke ci dashboard"))
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@output_options("table", "json", "yaml", "name")
@click.pass_obj
def revoke(session: Session, names: tuple[str, ...]) -> None:
    """Revoke named tokens: they are refused from now on, and forgotten."""

    def act(name: str) -> Record:
        gone: Record = session.client.call("DELETE", path_of("tokens", name))["data"]
        return gone

    batch.each(session, names, act, lambda _, gone: f"Token {output.plain(gone['name'])} revoked")


@token.command(
    "rotate",
    examples=("agentainerctl token rotate ci --grace 24h", "agentainerctl token rotate -q >token.txt"),
)
@click.argument("name", metavar="[NAME]", required=False)
@click.option(
    "--grace", type=DURATION, metavar="TIME", help="How long the old one is good too, at most 30d.  [default: 0]"
)
@output_options("table", "json", "yaml")
@click.pass_obj
def rotate(session: Session, name: str | None, grace: float | None) -> None:
    """Replace a token by a new one of the same name, and print it.

    Without a name it is the control token (on the daemon's host only), whose old one is refused at once.
    """
    if name is None:
        if grace is not None:
            raise InvalidParameter("--grace", "is for named tokens", hint="agentainerctl token rotate NAME --grace 24h")
        _print(session, session.client.call("POST", path_of("token", "rotate"))["data"])
        if session.has_progress:
            output.note("The old token is refused from now on.")
        return
    made = session.client.call("POST", path_of("tokens", name, "rotate"), body={"grace_s": grace or 0.0})["data"]
    _print(session, made)
    if session.has_progress:
        old = f"for {format_duration(grace)} more" if grace else "no longer"
        output.note(f"Token '{name}' {_lifetime(made)}. It is not shown again; the old one is good {old}.")


@token.command(
    "show",
    examples=("agentainerctl token show", "export AGENTAINER_TOKEN=$(agentainerctl token show)"),
)
@output_options("table", "json", "yaml")
@click.pass_obj
def show(session: Session) -> None:
    """Print the control token, and nothing else. It works on the daemon's host only."""
    _print(session, session.client.get(path_of("token")))


def _row(each: Record, is_wide: bool) -> list[str]:
    expires = "expired" if each["is_expired"] else age(each["expires_at"]) or "never"
    row = [
        each["name"],
        each["id"],
        ", ".join(each["scopes"]),
        age(each["created_at"]),
        expires,
        age(each["last_used_at"]) or "never",
    ]
    return [*row, age(each["rotated_at"]) or "never", _until(each["old_until"])] if is_wide else row


def _until(moment: str | None) -> str:
    return f"ends {age(moment)}" if moment else "no"


def _seconds(text: str) -> float:
    seconds = parse_duration(text, "--expires")
    if not seconds:
        raise InvalidParameter("--expires", "0 is over at once", hint="write never for a token that does not expire")
    return seconds


def _lifetime(made: Record) -> str:
    return f"expires {age(made['expires_at'])}" if made["expires_at"] else "does not expire"


def _print(session: Session, data: Any) -> None:  # noqa: ANN401 - JSON
    if session.is_machine:
        output.machine(data, session.output)
    else:
        print(output.plain(data["token"]))
