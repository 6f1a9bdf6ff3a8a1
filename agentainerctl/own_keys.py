"""Keys of models' providers that are given to agents themselves: said once for each command, with what is better."""

from collections.abc import Mapping

from agentainerctl import output
from agentainerctl.session import Session
from agentainerd.defaults import MODEL_KEY_VARIABLES


def warn(session: Session, agents: Mapping[str, Mapping[str, object]]) -> None:
    """Warn where one of the agents (the environment by name) is given such a key."""
    having = {name: [key for key in MODEL_KEY_VARIABLES if given.get(key)] for name, given in agents.items()}
    having = {name: found for name, found in having.items() if found}
    if not having or not session.has_progress:
        return
    keys = ", ".join(key for key in MODEL_KEY_VARIABLES if any(key in found for found in having.values()))
    who = f"the agent {next(iter(having))}" if len(having) == 1 else f"the agents {', '.join(having)}"
    container, agent = ("its container", "the agent") if len(having) == 1 else ("their containers", "the agents")
    output.note(
        f"warning: {who}, and whoever may inspect {container}, can read {keys}; give the daemon the key and {agent} a model"
        " (--model, `model:` in a file), and it stays there"
    )
