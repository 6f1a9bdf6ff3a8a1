"""`logs`."""

import re
import sys
import time
from datetime import datetime

import click

from agentainerctl import output
from agentainerctl.logstream import Piece, follow_log, read_log
from agentainerctl.options import Command
from agentainerctl.refs import with_agent
from agentainerctl.session import Session
from agentainerd import units
from agentainerd.errors import InvalidParameter


class _Tail(click.ParamType[int | None]):
    name = "lines"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or value == "all" or isinstance(value, int):
            return value if isinstance(value, int) else None
        if not re.fullmatch(r"[0-9]{1,9}", str(value)):
            self.fail(f"{value!r} is not a number of lines, nor 'all'", param, ctx)
        return int(str(value))


@click.command(
    "logs",
    cls=Command,
    names="agents",
    examples=(
        "agentainerctl logs --tail 50 web",
        "agentainerctl logs --follow --since 10m web",
        "agentainerctl logs --stderr web 2>errors.txt",
    ),
)
@click.argument("ref", metavar="AGENT")
@click.option(
    "-f", "--follow", is_flag=True, help="Go on until the agent is removed, across its restarts and the daemon's."
)
@click.option("-n", "--tail", type=_Tail(), metavar="LINES", help="Begin with the last LINES lines.  [default: all]")
@click.option("--since", metavar="TIME", help="Begin there: 10m (ago), or 2026-11-20T10:00:00Z.")
@click.option("-t", "--timestamps", is_flag=True, help="Put the time before each line.")
@click.option("--replica", type=click.IntRange(min=1), metavar="N", help="Only of this replica; else of all.")
@click.option("--stdout", "only_stdout", is_flag=True, help="Only what the agent writes on its stdout.")
@click.option("--stderr", "only_stderr", is_flag=True, help="Only what the agent writes on its stderr.")
@click.pass_obj
def logs(  # noqa: PLR0913 - one for each option
    session: Session,
    ref: str,
    follow: bool,
    tail: int | None,
    since: str | None,
    timestamps: bool,
    replica: int | None,
    only_stdout: bool,
    only_stderr: bool,
) -> None:
    """Show what an agent writes, as it is: its stdout on stdout, its stderr on stderr.

    Of an agent with several replicas the lines of all are shown, each with its replica in front.
    """
    query: dict[str, object] = {"tail": tail, "since": _since(since) if since else None, "replica": replica}
    if only_stdout != only_stderr:
        query["stream"] = "stdout" if only_stdout else "stderr"
    client = session.client

    def show(agent: str) -> None:
        if follow:
            pieces = follow_log(client, agent, query, with_times=timestamps)
        else:
            pieces = read_log(client, agent, {**query, "timestamps": timestamps or None})
        for piece in pieces:
            _write(piece, f"{agent}-{piece.replica}" if piece.replica else "")

    with_agent(client, ref, show)


def _write(piece: Piece, replica: str) -> None:
    if piece.stream == "notice":
        output.note(f"--- {f'{replica}: ' if replica else ''}{output.plain(piece.data)} ---")
        return
    stream = sys.stderr if piece.stream == "stderr" else sys.stdout
    data = re.sub(r"(?m)^(?=.|\n)", f"{replica} | ", piece.data) if replica else piece.data
    stream.buffer.write(data.encode("utf-8", "surrogateescape"))
    stream.buffer.flush()


def _since(text: str) -> str:
    """Return epoch seconds for a duration ago or a time; a time without a zone is local."""
    if re.match(r"\d{4}-\d\d-\d\d", text):
        try:
            return f"{datetime.fromisoformat(text).timestamp():.6f}"
        except ValueError:
            raise InvalidParameter("since", f"{text!r} is not a time", hint="2026-11-20T10:00:00Z, or 10m") from None
    return f"{time.time() - units.parse_duration(text, 'since'):.6f}"
