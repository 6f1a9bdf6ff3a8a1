"""`bridge check`: an agent's container held against the contract of its tier."""

import sys
from contextlib import closing
from typing import Any

import click

from agentainerctl import exits, output
from agentainerctl.client import path_of
from agentainerctl.failures import StreamBroken
from agentainerctl.options import Group, output_options
from agentainerctl.session import Session
from agentainerd import defaults
from agentainerd.units import parse_duration

Record = dict[str, Any]
_MARKS = {"pass": "✓", "fail": "✗", "skip": "-"}
_COLOURS = {"pass": "green", "fail": "red", "skip": "yellow"}
_TIERS = ("native", "agui", "agentcore", "openai", "bridge", "exec", "acp")
_WIDTH = 14  # of the longest rule's name


@click.group(
    "bridge", cls=Group, examples=("agentainerctl bridge check web", "agentainerctl bridge check web --bridge openai")
)
def bridge() -> None:
    """Check what an agent's container speaks."""


@bridge.command(
    "check",
    names="agents",
    examples=(
        "agentainerctl bridge check web",
        "agentainerctl bridge check web --bridge agui --task 'Say hello.' --timeout 5m",
        "agentainerctl bridge check web -o json | jq '.findings[] | select(.outcome == \"fail\")'",
    ),
)
@click.argument("ref", metavar="AGENT")
@click.option("--bridge", "tier", type=click.Choice(_TIERS), help="Check this tier.  [default: the agent's own]")
@click.option("--task", metavar="TEXT", help="What the agent is given to do.  [default: to count to 40]")
@click.option(
    "--timeout", metavar="TIME", help=f"How long one task may take.  [default: {defaults.BRIDGE_CHECK_WALL_S:g}s]"
)
@output_options("table", "json", "yaml")
@click.pass_obj
def check(session: Session, ref: str, tier: str | None, task: str | None, timeout: str | None) -> None:
    """Hold a ready agent's container against the contract for images, and say of each rule how it was met.

    Gives the agent up to four small tasks, which may cost something where a model does them. ✓ kept, ✗ broken, - not seen, or
    only recommended. Exit code 1 if a rule is broken. With -q only those are shown.
    """
    body: Record = {"bridge": tier, "task": task}
    if timeout is not None:
        body["timeout_s"] = parse_duration(timeout, "--timeout")
    findings: list[Record] = []
    result: Record | None = None
    path = path_of("api", "v1", "agents", ref, "bridge", "check")
    with closing(session.client.stream("POST", path, body=body)) as lines:  # type: ignore[type-var] # a generator has close()
        for line in lines:
            if "result" in line:
                result = line["result"]
            elif "finding" in line:
                findings.append(line["finding"])
                if not session.is_machine:
                    _show(line["finding"], is_quiet=session.is_quiet)
    if result is None:
        raise StreamBroken("agentainerd stopped before it was done", hint="agentainerctl system ping")
    if session.is_machine:
        output.machine({**result, "findings": findings}, session.output)
    elif not session.is_quiet:
        output.say(_summary(ref, result))
    if result["failed"]:
        session.exit_code = exits.FAILED


def _show(finding: Record, *, is_quiet: bool) -> None:
    outcome = finding["outcome"]
    if is_quiet and outcome != "fail":
        return
    mark = output.paint(_MARKS.get(outcome, "?"), _COLOURS.get(outcome, "red"), sys.stdout)
    output.say(f"{mark} {output.plain(finding['check']).ljust(_WIDTH)}  {output.plain(finding['seen'])}")
    if outcome == "fail":
        output.say(f"  {' ' * _WIDTH}  contract: {output.plain(finding['contract'])}")


def _summary(agent: str, result: Record) -> str:
    told = [f"{result['passed']} kept", f"{result['failed']} broken", f"{result['skipped']} not seen"]
    verdict = "does not keep the contract" if result["failed"] else "keeps the contract"
    return f"{output.plain(agent)} {verdict} of tier {output.plain(result['bridge'])}: {', '.join(told)}."
