"""`run`."""

import os
from typing import Any

import click

from agentainerctl import output
from agentainerctl.options import DURATION, Command, output_options
from agentainerctl.prompts import read_image, read_prompt
from agentainerctl.refs import with_agent
from agentainerctl.runstream import Record, call_again, run_path
from agentainerctl.session import Session
from agentainerctl.watching import View, conclude, watch
from agentainerd import defaults


@click.command(
    "run",
    cls=Command,
    names="agents",
    examples=(
        'agentainerctl run web "Which tests fail, and why?"',
        'agentainerctl run web --max-steps 30 --timeout 10m "Fix them" >answer.txt',
        "git diff | agentainerctl run web - -o json | jq -r .output",
        'agentainerctl run --detach web "Write a report"',
        'agentainerctl run --detach --delay 8h web "Look whether the tests still pass"',
    ),
)
@click.argument("ref", metavar="AGENT")
@click.argument("prompt", metavar="PROMPT")
@click.option("-s", "--session", "session_id", metavar="SESSION", help="Go on with this conversation; else it is none.")
@click.option(
    "--stream/--no-stream",
    "is_streamed",
    default=None,
    help="Show it as it comes, or only the answer at its end. With -o json: each event as a line, or the run at its end.",
)
@click.option(
    "--full", "is_full", is_flag=True, help="Show thinking and steps too, and results of tools and edits whole."
)
@click.option(
    "--image", "images", multiple=True, metavar="FILE", help="Show it an image, a file or https://...; repeatable."
)
@click.option("--timeout", type=DURATION, metavar="TIME", help="How long it may take.")
@click.option(
    "--max-steps", type=click.IntRange(1, defaults.MAX_RUN_STEPS), metavar="N", help="How often it may ask its model."
)
@click.option("--max-cost", type=click.FloatRange(0, min_open=True), metavar="DOLLARS", help="What its model may cost.")
@click.option("--model", metavar="MODEL", help="Another model than the agent's.")
@click.option(
    "--on-busy",
    type=click.Choice(["queue", "reject", "interrupt"]),
    help="Where the conversation has a run under way: wait for its end, be refused, or cancel it.  [default: queue]",
)
@click.option("--delay", type=DURATION, metavar="TIME", help="Begin it so much later; at most a week.")
@click.option("-d", "--detach", is_flag=True, help="Start it, and print its id.")
@output_options("table", "json")
@click.pass_obj
def run(
    session: Session, /, ref: str, prompt: str, is_streamed: bool | None, is_full: bool, detach: bool, **given: Any
) -> None:  # noqa: ANN401 - of several types
    """Give an agent something to do, and show what it says and does until it is done.

    The answer goes to stdout; what the agent does to find it (tools, edits of files) to stderr. PROMPT - is standard
    input. The run belongs to the daemon: it goes on when the connection breaks, and so does this command as soon as the
    daemon is back. Ctrl-C asks whether to cancel it or to leave it running. What the agent asks for you can answer; without
    a terminal it is said how, and the exit code is 11.
    """
    body = _body(prompt, given)
    started = with_agent(session.client, ref, lambda agent: _start(session, {**body, "agent_id": agent}))
    if detach:
        _show_started(session, started)
        return
    form = {True: "stream", False: "answer", None: ""}[is_streamed]
    view = View(session, form=form, is_full=is_full)
    view.begin(started)
    ended = watch(session, started, view)
    view.end(ended)
    conclude(session, ended)


def _show_started(session: Session, started: Record) -> None:
    if session.is_machine:
        output.machine(started, session.output)
        return
    print(output.plain(started["id"]))
    if session.has_progress:
        output.note(f"Watch it: agentainerctl runs attach {output.plain(started['id'])}")


def _body(prompt: str, given: dict[str, Any]) -> Record:
    limits = {"wall_s": given["timeout"], "steps": given["max_steps"], "cost_usd": given["max_cost"]}
    body = {
        "input": read_prompt(prompt),
        "session_id": given["session_id"],
        "media": [read_image(source) for source in given["images"]],
        "limits": {name: value for name, value in limits.items() if value is not None},
        "model": given["model"],
        "on_busy": given["on_busy"],
        "after_seconds": given["delay"],
    }
    return {name: value for name, value in body.items() if value or name == "input"}


def _start(session: Session, body: Record) -> Record:
    """Start a run, one however often the connection breaks meanwhile."""
    return dict(call_again(session.client, "POST", run_path(), body=body, key=os.urandom(16).hex())["data"])
