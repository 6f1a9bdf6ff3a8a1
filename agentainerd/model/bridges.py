"""Tiers: what a container speaks, as far as runs go (decision 0014). Pure."""

from collections.abc import Mapping
from enum import StrEnum

from agentainerd.errors import InvalidParameter


class Bridge(StrEnum):
    """How a run is given to an agent.

    NATIVE: AG-UI, and runs can be cancelled and joined again. AGUI: `POST /invocations` answered with AG-UI events.
    AGENTCORE: the same path, answered with anything. OPENAI: chat completions. BRIDGE: `/agent/execute` and `/agent/chat`.
    EXEC: a command in the container, one a run. ACP: one that speaks the Agent Client Protocol.
    """

    NATIVE = "native"
    AGUI = "agui"
    AGENTCORE = "agentcore"
    OPENAI = "openai"
    BRIDGE = "bridge"
    EXEC = "exec"
    ACP = "acp"

    @property
    def can_rejoin(self) -> bool:
        """Whether a run goes on without its connection, and can be asked for what was missed."""
        return self is Bridge.NATIVE

    @property
    def is_command(self) -> bool:
        """Whether runs are commands: then nothing has to listen in the container."""
        return self in (Bridge.EXEC, Bridge.ACP)


def labelled(labels: Mapping[str, str]) -> Bridge | None:
    """Return the tier that an image's label names, None where there is none. Raises InvalidParameter: it names none that is."""
    name = labels.get(LABEL, "")
    if name and name not in tuple(Bridge):
        raise InvalidParameter(LABEL, f"{name[:64]!r}, a label of the agent's image, is none of {', '.join(Bridge)}")
    return Bridge(name) if name else None


LABEL = "agentainer.bridge"
"""The label of an image that names its tier."""
COMMAND_LABEL = "agentainer.bridge.command"
"""The label of an image with the command of a run, as a line of a shell, for the tiers exec and acp."""
