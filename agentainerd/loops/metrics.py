"""What agents use is measured; see services/metrics.py."""

from agentainerd import defaults
from agentainerd.services.services import Services

NAME = "metrics"
INTERVAL_S = defaults.METRICS_INTERVAL_S


def run_once(services: Services, now: float) -> int:
    """Measure all agents; return how many containers were read."""
    return services.measuring.run_once(now)
