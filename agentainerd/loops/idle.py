"""Agents without requests are put to sleep; see services/idle.py."""

from agentainerd import defaults
from agentainerd.services.services import Services

NAME = "idle"
INTERVAL_S = defaults.IDLE_INTERVAL_S


def run_once(services: Services, now: float) -> int:
    """Begin to stop agents that are idle, and to wake those that have requests waiting; return how many."""
    return services.idle.run_once(now)
