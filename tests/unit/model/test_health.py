"""none → starting → healthy ⇄ unhealthy, and what may be asked."""

import pytest

from agentainerd.errors import InvalidParameter
from agentainerd.model.health import Health, HealthCheck, HealthResult, HealthState, check_health, worst

CHECK = HealthCheck(interval="10s", retries=3)
GOOD = HealthResult(is_good=True, at=100.0, status=200)
BAD = HealthResult(is_good=False, at=200.0, status=503, message="GET /health answered 503")


def after(*steps, check=CHECK):
    """`steps`: (result, seconds since the start of the run)."""
    health = Health(since=50.0)
    for result, ran_s in steps:
        health = health.after(result, check, ran_s)
    return health


def test_a_run_starts_and_one_good_answer_makes_it_healthy():
    assert Health().state is HealthState.STARTING

    health = after((GOOD, 0.1))

    assert (health.state, health.failures, health.since, health.last) == (HealthState.HEALTHY, 0, 100.0, GOOD)


def test_a_healthy_one_is_unhealthy_after_so_many_failures_in_a_row():
    well = after((GOOD, 1), (BAD, 11), (BAD, 21))
    lost = well.after(BAD, CHECK, 31)

    assert (well.state, well.failures, well.since) == (HealthState.HEALTHY, 2, 100.0)
    assert (lost.state, lost.failures, lost.since) == (HealthState.UNHEALTHY, 3, 200.0)


def test_a_good_answer_forgets_the_failures_and_makes_it_healthy_again():
    assert after((GOOD, 1), (BAD, 11), (BAD, 21), (GOOD, 31), (BAD, 41)).failures == 1
    assert after((GOOD, 1), (BAD, 11), (BAD, 21), (BAD, 31), (GOOD, 41)).state is HealthState.HEALTHY


def test_while_it_starts_one_failure_in_each_interval_counts():
    asked_often = [(BAD, ran_s / 10) for ran_s in range(300)]

    assert after(*asked_often).state is HealthState.STARTING
    assert after(*asked_often).failures == 2
    assert after(*asked_often, (BAD, 30.1)).state is HealthState.UNHEALTHY


def test_failures_in_the_start_period_do_not_count_and_a_good_answer_ends_it():
    check = HealthCheck(interval="10s", retries=1, start_period="60s")

    assert after(*((BAD, ran_s) for ran_s in range(0, 69)), check=check).failures == 0
    assert after((BAD, 71), check=check).state is HealthState.UNHEALTHY
    assert after((GOOD, 5), (BAD, 15), check=check).state is HealthState.UNHEALTHY


def test_what_stands_for_several_is_the_worst():
    none, starting, healthy, unhealthy = HealthState

    assert worst([healthy, unhealthy, starting]) is unhealthy
    assert worst([healthy, starting]) is starting
    assert worst([none, healthy]) is healthy
    assert worst([]) is none


@pytest.mark.parametrize(
    ("fields", "path"),
    [({}, "/health"), ({"endpoint": "/up?x=1"}, "/up?x=1"), ({"endpoint": "tcp"}, ""), ({"command": ("true",)}, "")],
)
def test_what_is_asked(fields, path):
    check = HealthCheck(**fields)
    check_health(check)

    assert check.path == path


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"endpoint": "health"}, "endpoint"),
        ({"endpoint": "/a b"}, "endpoint"),
        ({"endpoint": "/a\r\nX: y"}, "endpoint"),
        ({"endpoint": "/ü"}, "endpoint"),
        ({"endpoint": "http://10.0.0.1/"}, "endpoint"),
        ({"endpoint": "/x", "command": ("true",)}, "command"),
        ({"command": ("a\0b",)}, "command"),
        ({"interval": "0s"}, "interval"),
        ({"interval": "soon"}, "interval"),
        ({"timeout": "2h"}, "timeout"),
        ({"retries": 0}, "retries"),
        ({"start_period": "-1s"}, "start_period"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_field(fields, field):
    with pytest.raises(InvalidParameter) as failure:
        check_health(HealthCheck(**fields))

    assert failure.value.field == f"health_check.{field}"
