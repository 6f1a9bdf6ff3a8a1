"""Counters and histograms."""

import pytest

from agentainerd.model.tallies import Histogram, Tally


def test_a_value_is_in_the_first_bound_that_it_is_not_above():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        histogram.note(value)

    assert (histogram.counts, histogram.count, histogram.seconds) == ([2, 2, 1], 5, 14.0)


@pytest.mark.parametrize(("share", "value"), [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 2.0), (1.0, 3.0)])
def test_quantiles_lie_between_the_bounds(share, value):
    histogram = Histogram((1.0, 3.0))
    for _ in range(10):
        histogram.note(0.7)
        histogram.note(2.0)

    assert histogram.quantile(share) == pytest.approx(value)


def test_above_all_bounds_a_quantile_is_the_last_bound_and_of_nothing_0():
    histogram = Histogram((1.0,))
    assert histogram.quantile(0.5) == 0.0

    histogram.note(100.0)

    assert histogram.quantile(0.5) == 1.0


def test_every_end_is_a_request_and_some_are_errors():
    tally = Tally()
    tally.answered(200, 0.1)
    tally.answered(503, 0.3)
    tally.replied(401, reached=False)
    tally.replied(503, reached=False)
    tally.replied(502, reached=True)
    tally.queued = tally.left = tally.interrupted = tally.upgraded = tally.repeated = 1

    assert (tally.answers, tally.requests, tally.errors) == (2, 10, 4)
    assert (tally.refused, tally.unavailable, tally.unknown) == (1, 1, 1)
    assert tally.latency.seconds == pytest.approx(0.4)


def test_a_strange_status_breaks_nothing():
    Tally().answered(999, 0.1)
