"""What a run costs while it is under way, and came to in the end: as its agent says, else as its calls to models were counted."""

import msgspec

from agentainerd.model.runs import Run, Usage
from agentainerd.services.run_means import Means


def is_spent(means: Means, run: Run) -> bool:
    """Whether what its calls to models cost, as far as they went through the daemon, is what it may cost."""
    limit = run.limits.cost_usd
    used = means.used(run.id) if limit is not None else None
    return limit is not None and used is not None and used.cost_usd is not None and used.cost_usd >= limit


def spent(run: Run) -> str:
    """Say that it is."""
    return f"it cost what it may: ${run.limits.cost_usd:g}"


def used(means: Means, run: Run, told: Usage) -> Usage:
    """Return what it used, as `told` by its agent; where that says nothing, or no cost, what was counted of it."""
    if told.cost_usd is not None:
        return told
    counted = means.used(run.id)
    if counted is None or told == Usage():
        return counted or told
    return msgspec.structs.replace(told, cost_usd=counted.cost_usd, cost_source=counted.cost_source)
