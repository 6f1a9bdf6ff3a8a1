"""`completion`, and the hidden call with which the scripts complete names."""

import click

from agentainerctl import output
from agentainerctl.client import path_of
from agentainerctl.options import Command
from agentainerctl.refs import list_agents
from agentainerctl.session import Session
from agentainerd.errors import AgentainerError

_MAX_REQUESTS = 50


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
@click.pass_obj
def names(session: Session, ref: str | None) -> None:
    """Print the names of all agents, or ids of an agent's requests; nothing where that fails."""
    try:
        if ref:
            data = session.client.get(path_of("agents", ref, "requests"), {"limit": _MAX_REQUESTS})
            found = [record.get("id", "") for record in data.get("requests") or []]
        else:
            found = [agent.get("name", "") for agent in list_agents(session.client)]
    except AgentainerError:
        return  # a person at TAB doesn't want to read an error
    for name in found:
        print(output.plain(name))
