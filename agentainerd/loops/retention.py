"""Deadlines and retention: what is too old becomes failed, what is kept long enough is dropped, summaries are written."""

from agentainerd import defaults
from agentainerd.services.services import Services

NAME = "retention"
INTERVAL_S = defaults.RETENTION_INTERVAL_S
MAX_ROUNDS = 20  # of one batch each: what is left waits for the next time


def run_once(services: Services, now: float) -> int:
    """Sweep until there is nothing more to do, in batches; return how many things were done."""
    done = services.audit.flush(now)
    for _ in range(MAX_ROUNDS):
        swept = services.requests.sweep(now)
        done += swept
        if not swept:
            break
    done += services.runs.sweep(now)
    # What may fail comes last: the sweep is what makes room.
    return done + services.audit.expire(now) + services.named_tokens.flush(now)
