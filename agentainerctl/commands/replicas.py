"""`scale`."""

import click

from agentainerctl import agents, output
from agentainerctl.client import READ_TIMEOUT_S, path_of
from agentainerctl.commands.lifecycle import WAIT_S
from agentainerctl.options import DURATION, Command, output_options
from agentainerctl.progress import Waiting
from agentainerctl.refs import with_agent
from agentainerctl.session import Session


@click.command(
    "scale",
    cls=Command,
    names="agents",
    examples=("agentainerctl scale web 3", "agentainerctl scale --wait web 5", "agentainerctl scale web 1"),
)
@click.argument("ref", metavar="AGENT")
@click.argument("replicas", metavar="N", type=click.IntRange(min=1))
@click.option("--wait", is_flag=True, help="Return when all are ready.")
@click.option("--timeout", type=DURATION, default=WAIT_S, metavar="TIME", help="How long --wait waits.  [default: 60s]")
@output_options("table", "json", "yaml", "name")
@click.pass_obj
def scale(session: Session, ref: str, replicas: int, wait: bool, timeout: float) -> None:
    """Give an agent another number of replicas: containers behind one path.

    New ones are started where the agent runs. Those with the highest numbers go: they get no more requests, finish what
    they have, up to the agent's grace, and are removed; this returns when they are.
    """
    wait_s = timeout if wait else None
    text = f"scale {ref} to {replicas}" + (", waiting until it is ready" if wait else "")
    with Waiting(text, is_silent=not session.has_progress) as waiting:
        envelope = with_agent(
            session.client,
            ref,
            lambda known: session.client.call(
                "POST",
                path_of("agents", known, "scale"),
                body={"replicas": replicas},
                query={"wait": wait_s},
                timeout_s=None if wait_s is None else wait_s + READ_TIMEOUT_S,
                tick=waiting,
            ),
        )
    agent = dict(envelope["data"])
    if session.is_machine:
        output.machine(agent, session.output)
    elif session.is_quiet or session.output == "name":
        print(output.plain(agent.get("id" if session.is_quiet else "name", "")))
    else:
        several = "replica" if replicas == 1 else "replicas"
        print(output.plain(f"Agent {ref} has {replicas} {several}: {agents.status(agent)}"))
