"""The look at every agent and every container; events bring the news in between."""

from agentainerd import defaults
from agentainerd.services.services import Services
from agentainerd.services.state_sync import LOOP

NAME = LOOP
INTERVAL_S = defaults.STATE_SYNC_INTERVAL_S


def run_once(services: Services, now: float) -> int:
    """Reconcile the agents that differ from what the engine has; return how many those are."""
    return services.state_sync.run_once(now)
