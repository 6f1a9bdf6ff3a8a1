"""Jobs whose time has come begin, those that fill the disk end, what is kept long enough is forgotten; see services/jobs.py."""

from agentainerd import defaults
from agentainerd.services.services import Services

NAME = "jobs"
INTERVAL_S = defaults.JOBS_INTERVAL_S


def run_once(services: Services, now: float) -> int:
    """Look at the jobs that run and wait, and now and then at those that are over; return how many were ended or forgotten."""
    return services.jobs.run_once(now)
