"""`completion`, and the hidden call with which the scripts complete names."""

import click

from agentainerctl import output
from agentainerctl.client import Client, path_of
from agentainerctl.options import Command
from agentainerctl.refs import list_agents
from agentainerctl.runstream import job_path, run_path
from agentainerctl.session import Session
from agentainerctl.sessions import session_path
from agentainerd.errors import AgentainerError

_MAX_IDS = 50


@click.command(
    "completion",
    cls=Command,
    examples=(
        "source <(agentainerctl completion bash)    # in ~/.bashrc; zsh likewise, in ~/.zshrc",
        "agentainerctl completion fish >~/.config/fish/completions/agentainerctl.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a completion script for a shell. Names of agents complete too."""
    from agentainerctl.completions import script

    top = context.find_root()
    assert isinstance(top.command, click.Group)
    print(script(shell, top.command, top), end="")


@click.command("__names", cls=Command, hidden=True)
@click.argument("ref", required=False)
@click.option("--of", "noun", type=click.Choice(["agents", "runs", "jobs", "sessions"]), default="agents")
@click.pass_obj
def names(session: Session, ref: str | None, noun: str) -> None:
    """Print the names of all agents, ids of an agent's requests, or of runs, jobs or sessions; nothing where that fails."""
    try:
        found = _names(session.client, ref, noun)
    except AgentainerError:
        return  # a person at TAB doesn't want to read an error
    for name in found:
        print(output.plain(name))


def _names(client: Client, ref: str | None, noun: str) -> list[str]:
    if ref:
        records = client.get(path_of("agents", ref, "requests"), {"limit": _MAX_IDS}).get("requests") or []
    elif noun in ("runs", "jobs"):
        records = client.get(run_path() if noun == "runs" else job_path(), {"limit": _MAX_IDS}) or []
    elif noun == "sessions":
        answer = client.call("GET", session_path(), query={"limit": _MAX_IDS})
        return [str(each.get("session_id", "")) for each in answer.get("sessions") or []]
    else:
        return [str(agent.get("name", "")) for agent in list_agents(client)]
    return [str(record.get("id", "")) for record in records]
