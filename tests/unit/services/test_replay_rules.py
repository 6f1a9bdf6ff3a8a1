"""The replay half of the table, row by row."""

import pytest

from agentainerd.model.requests import IdempotencyKey, Reason, Record, ReplayPolicy, RequestState
from agentainerd.proxy.replay import Failure, Replayed
from agentainerd.services.replay_rules import Verdict, backoff_s, rule

NOW = 1000.0


def record(method=b"POST", *, attempt=1, policy=ReplayPolicy.AUTO, key=None):
    return Record(
        "id", "agent-1", head=b"", method=method, target=b"/", received_at=0, expires_at=2, attempt=attempt, policy=policy,
        key=key,
    )  # fmt: skip


def ruled(record, replayed, **options):
    return rule(record, replayed, now=NOW, max_attempts=8, **options)


@pytest.mark.parametrize("status", [200, 201, 302, 400, 404, 409, 500, 501, 505])
def test_an_answer_completes(status):
    ruling = ruled(record(), Replayed(status=status))

    assert ruling.verdict is Verdict.SETTLE
    assert (ruling.outcome.state, ruling.outcome.reason, ruling.outcome.status) == (
        RequestState.COMPLETED,
        Reason.REPLAY,
        status,
    )


@pytest.mark.parametrize("status", [408, 425, 429, 502, 503, 504])
def test_not_now_is_tried_again_and_is_no_duplicate(status):
    ruling = ruled(record(), Replayed(status=status))

    assert (ruling.verdict, ruling.due_at, ruling.is_duplicate) == (Verdict.RETRY, NOW + 1, False)


def test_the_agents_wish_is_honoured_within_an_hour():
    assert ruled(record(), Replayed(status=503, retry_after_s=42.0)).due_at == NOW + 42
    assert ruled(record(), Replayed(status=503, retry_after_s=99999.0)).due_at == NOW + 3600


def test_the_pause_doubles_up_to_five_minutes():
    assert [backoff_s(attempt) for attempt in (1, 2, 3, 9, 50)] == [1, 2, 4, 256, 300]
    assert ruled(record(attempt=3), Replayed(status=503), jitter=1.2).due_at == pytest.approx(NOW + 4.8)


def test_the_last_attempt_fails_with_its_reason():
    ruling = ruled(record(attempt=8), Replayed(status=503))

    assert (ruling.outcome.state, ruling.outcome.reason) == (RequestState.FAILED, Reason.ATTEMPTS)
    assert "503" in ruling.outcome.error


def test_what_did_not_reach_the_agent_counts_for_nothing():
    for attempt in (1, 8):
        assert ruled(record(attempt=attempt), Replayed(failure=Failure.CONNECT)).verdict is Verdict.GIVE_BACK


@pytest.mark.parametrize(
    ("policy", "method", "key", "failure", "reason"),
    [
        (ReplayPolicy.AUTO, b"POST", None, Failure.DIED, None),
        (ReplayPolicy.SAFE, b"POST", None, Failure.DIED, Reason.OUTCOME_UNKNOWN),
        (ReplayPolicy.SAFE, b"GET", None, Failure.DIED, None),
        (ReplayPolicy.SAFE, b"POST", IdempotencyKey("s", "f"), Failure.DIED, None),
        (ReplayPolicy.AUTO, b"POST", None, Failure.NO_ANSWER, Reason.OUTCOME_UNKNOWN),
        (ReplayPolicy.AUTO, b"PUT", None, Failure.NO_ANSWER, None),
        (ReplayPolicy.AT_LEAST_ONCE, b"POST", None, Failure.NO_ANSWER, None),
        (ReplayPolicy.AUTO, b"POST", None, Failure.BROKEN, Reason.INTERRUPTED),
        (ReplayPolicy.AUTO, b"GET", None, Failure.BROKEN, None),
    ],
)
def test_who_may_be_sent_again_after_no_answer(policy, method, key, failure, reason):
    ruling = ruled(record(method, policy=policy, key=key), Replayed(failure=failure, error="gone"))

    if reason is None:
        assert (ruling.verdict, ruling.is_duplicate) == (Verdict.RETRY, True)
    else:
        assert (ruling.outcome.state, ruling.outcome.reason) == (RequestState.FAILED, reason)
