"""Points of the history, and what several of them are together."""

import pytest

from agentainerd.model.metrics import Sample, Traffic, Usage
from agentainerd.model.metrics_history import Point, in_steps, merged, point


def traffic(at, requests=0, errors=0, answers=0, seconds=0.0, **now):
    return Traffic(at=at, requests=requests, errors=errors, answers=answers, seconds=seconds, **now)


def test_a_point_has_what_was_measured_and_the_requests_since_the_one_before():
    sample = Sample(usage=Usage(at=20.0, cpu_s=3.0, memory_bytes=5, rx_bytes=7, pids=2), cpu_percent=12.0, rx_per_s=1.5)

    made = point(20.0, sample, traffic(20.0, 30, 2, 25, 50.0, in_flight=3, pending=4), traffic(10.0, 10, 1, 5, 10.0))

    assert (made.cpu_percent, made.memory_bytes, made.rx_per_s, made.pids, made.containers) == (12.0, 5, 1.5, 2, 1)
    assert (made.cpu_s, made.rx_bytes) == (3.0, 7)
    assert (made.requests_per_s, made.errors_per_s, made.latency_s) == (2.0, 0.1, 2.0)
    assert (made.in_flight, made.pending) == (3, 4)


@pytest.mark.parametrize("before", [None, traffic(20.0), traffic(10.0, 99)])
def test_requests_that_can_not_be_compared_are_none(before):
    made = point(20.0, Sample(usage=Usage(at=20.0)), traffic(20.0, 30, 2, 25, 50.0), before)

    assert (made.requests_per_s, made.errors_per_s, made.latency_s) == (0.0, 0.0, 0.0)


def test_several_points_are_their_means_and_the_last_of_their_counters():
    both = merged(
        [
            Point(at=0.0, cpu_percent=10, memory_bytes=100, rx_bytes=5, cpu_s=1, requests_per_s=1, latency_s=4.0),
            Point(at=10.0, cpu_percent=30, memory_bytes=300, rx_bytes=9, cpu_s=2, requests_per_s=3, latency_s=8.0),
        ],
        60.0,
    )

    assert (both.at, both.cpu_percent, both.memory_bytes, both.requests_per_s) == (60.0, 20.0, 200.0, 2.0)
    assert (both.rx_bytes, both.cpu_s) == (9, 2)
    assert both.latency_s == 7.0


def test_steps_are_counted_from_the_epoch_and_empty_ones_left_out():
    points = [Point(at=at, cpu_percent=at) for at in (61.0, 119.0, 120.0, 301.0)]

    assert [(each.at, each.cpu_percent) for each in in_steps(points, 60.0)] == [
        (60.0, 90.0),
        (120.0, 120.0),
        (300.0, 301.0),
    ]
