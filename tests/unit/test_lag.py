"""The event loop's lag: what does not yield is seen."""

import time

import gevent

from agentainerd.lag import LONG_S, SAMPLE_S, WINDOW_S, Lag


def test_what_does_not_yield_is_measured(eventually):
    lag = Lag()
    measuring = gevent.spawn(lag.run)
    gevent.sleep(SAMPLE_S / 2)

    end = time.monotonic() + 3 * SAMPLE_S
    while time.monotonic() < end:
        pass  # whoever does so keeps all others waiting

    eventually(lambda: lag.facts()["largest_of_last_minute_ms"] >= 1000 * SAMPLE_S)
    measuring.kill()


def test_the_largest_of_the_last_minute_is_kept():
    lag = Lag()
    for at, lag_s in enumerate([0.001, 0.2, 0.05, 0.1, 0.002]):
        lag.note(lag_s, float(at))
    assert lag.facts() == {"last_ms": 2.0, "largest_of_last_minute_ms": 200.0}

    lag.note(0.003, 1.5 + WINDOW_S)
    assert lag.facts() == {"last_ms": 3.0, "largest_of_last_minute_ms": 100.0}


def test_a_long_one_is_logged_once_a_minute(caplog):
    lag = Lag()
    for at in (0.0, 1.0, 59.0, 61.0):
        lag.note(LONG_S, at)

    assert caplog.text.count("stood still for 0.5 s") == 2
