"""What becomes of a replayed request, by how its attempt went: the replay half of the table in docs/requests.md. No I/O."""

from dataclasses import dataclass
from enum import Enum

from agentainerd import defaults
from agentainerd.model.requests import (
    RETRIED_STATUSES,
    Outcome,
    Reason,
    Record,
    ReplayPolicy,
    RequestState,
)
from agentainerd.proxy.replay import Failure, Replayed

Jitter = float  # a factor of about 1: 0.8 to 1.2


class Verdict(Enum):
    """What to do with the record."""

    SETTLE = 1  # it ended: `Ruling.outcome`
    RETRY = 2  # another attempt at `Ruling.due_at`; this one counts
    GIVE_BACK = 3  # it never left: pending at its old place, nothing counts


@dataclass(frozen=True, slots=True)
class Ruling:
    """A verdict and what belongs to it. `is_duplicate`: the attempt may have run, so a later one says so."""

    verdict: Verdict
    outcome: Outcome | None = None
    due_at: float = 0.0
    error: str = ""
    is_duplicate: bool = False


def rule(record: Record, replayed: Replayed, *, now: float, max_attempts: int, jitter: Jitter = 1.0) -> Ruling:
    """Return what becomes of `record` after an attempt. `now`: epoch seconds; `max_attempts` counts this one too."""
    failure = replayed.failure
    if failure is Failure.CONNECT:
        return Ruling(Verdict.GIVE_BACK, error=replayed.error)
    if failure is Failure.NONE and replayed.status not in RETRIED_STATUSES:
        return Ruling(Verdict.SETTLE, _answered(replayed))
    lost = _lost_reason(record, failure)
    if lost is not None:
        return Ruling(Verdict.SETTLE, _failed(lost, replayed, replayed.error))
    error = replayed.error or f"the agent answered {replayed.status}"
    if record.attempt >= max_attempts:
        return Ruling(
            Verdict.SETTLE, _failed(Reason.ATTEMPTS, replayed, f"{error} (attempt {record.attempt}, the last)")
        )
    delay_s = backoff_s(record.attempt) * jitter
    if replayed.retry_after_s is not None:
        delay_s = min(replayed.retry_after_s, defaults.MAX_RETRY_AFTER_S)
    return Ruling(Verdict.RETRY, due_at=now + delay_s, error=error, is_duplicate=failure is not Failure.NONE)


def backoff_s(attempt: int) -> float:
    """Return the pause after the given attempt, the first being 1."""
    return float(min(defaults.RETRY_BACKOFF_S * 2 ** min(max(attempt, 1) - 1, 16), defaults.MAX_RETRY_BACKOFF_S))


def _lost_reason(record: Record, failure: Failure) -> Reason | None:
    """Return why it may not be sent again; None: it may."""
    if failure is Failure.NONE or record.is_repeatable:
        return None
    if failure is Failure.BROKEN:
        return Reason.INTERRUPTED
    if failure is Failure.DIED:
        return Reason.OUTCOME_UNKNOWN if record.policy is ReplayPolicy.SAFE else None
    return None if record.policy is ReplayPolicy.AT_LEAST_ONCE else Reason.OUTCOME_UNKNOWN


def _answered(replayed: Replayed) -> Outcome:
    return Outcome(
        state=RequestState.COMPLETED,
        reason=Reason.REPLAY,
        status=replayed.status,
        response_bytes=replayed.response_bytes,
        duration_s=replayed.duration_s,
        response=replayed.response,
    )


def _failed(reason: Reason, replayed: Replayed, error: str) -> Outcome:
    return Outcome(
        state=RequestState.FAILED,
        reason=reason,
        status=replayed.status,
        response_bytes=replayed.response_bytes,
        duration_s=replayed.duration_s,
        error=error,
        response=replayed.response,
    )
