"""The net below replay: leases are renewed here, and what nobody woke up for is found here."""

from agentainerd import defaults
from agentainerd.services.replay import LOOP
from agentainerd.services.services import Services

NAME = LOOP
INTERVAL_S = defaults.REPLAY_INTERVAL_S


def run_once(services: Services, now: float) -> int:
    """Renew leases and wake the drains of ready agents with something due; return how many those are."""
    return services.replay.run_once(now)
