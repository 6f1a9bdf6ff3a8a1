"""The ends of jobs are told to who asked for that; see services/webhooks.py."""

from agentainerd import defaults
from agentainerd.services import webhooks
from agentainerd.services.services import Services

NAME = webhooks.LOOP
INTERVAL_S = defaults.WEBHOOK_INTERVAL_S


def run_once(services: Services, now: float) -> int:
    """Begin to tell what is due; return how many."""
    return services.webhooks.run_once(now)
