"""Tiers: what a container speaks, as far as runs go (decision 0014). Pure."""

from enum import StrEnum


class Bridge(StrEnum):
    """How a run is given to an agent.

    NATIVE: AG-UI, and runs can be cancelled and joined again. AGUI: `POST /invocations` answered with AG-UI events.
    AGENTCORE: the same path, answered with anything. OPENAI: chat completions. BRIDGE: `/agent/execute` and `/agent/chat`.
    """

    NATIVE = "native"
    AGUI = "agui"
    AGENTCORE = "agentcore"
    OPENAI = "openai"
    BRIDGE = "bridge"

    @property
    def can_rejoin(self) -> bool:
        """Whether a run goes on without its connection, and can be asked for what was missed."""
        return self is Bridge.NATIVE


LABEL = "agentainer.bridge"
"""The label of an image that names its tier."""
