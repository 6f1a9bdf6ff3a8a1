"""What two readings of the kernel's counters make."""

import pytest

from agentainerd.model.metrics import Sample, Usage, sample, total


def usage(at, cpu_s=0.0, **counters):
    return Usage(at=at, cpu_s=cpu_s, **counters)


def test_rates_are_of_the_time_between_two_readings():
    before = usage(100.0, 5.0, rx_bytes=100, tx_bytes=100, read_bytes=0, write_bytes=50)
    now = usage(110.0, 20.0, rx_bytes=1100, tx_bytes=100, read_bytes=10, write_bytes=550)

    taken = sample(now, before, 50.0)

    assert (taken.cpu_percent, taken.rx_per_s, taken.tx_per_s) == (150.0, 100.0, 0.0)
    assert (taken.read_per_s, taken.write_per_s) == (1.0, 50.0)


def test_the_first_one_has_means_since_the_start():
    assert sample(usage(110.0, 5.0, rx_bytes=1000), None, 100.0).cpu_percent == 50.0
    assert sample(usage(110.0, 5.0, rx_bytes=1000), None, 100.0).rx_per_s == 100.0


@pytest.mark.parametrize("before", [usage(110.0, 5.0), usage(100.0, 50.0)])
def test_one_that_began_anew_is_not_compared(before):
    assert sample(usage(110.0, 5.0), before, 100.0).cpu_percent == 50.0


def test_a_start_in_the_future_has_no_rates():
    assert sample(usage(110.0, 5.0), None, 200.0).cpu_percent == 0.0


def test_a_counter_that_fell_has_no_rate():
    before = usage(100.0, 1.0, rx_bytes=1000)

    assert sample(usage(110.0, 2.0, rx_bytes=10), before, 50.0).rx_per_s == 0.0


def test_an_agents_sample_is_the_sum_of_its_containers():
    one = Sample(usage=usage(10.0, 1.0, memory_bytes=100, memory_limit_bytes=1000, pids=2), cpu_percent=20.0)
    two = Sample(
        usage=usage(11.0, 2.0, memory_bytes=300, memory_limit_bytes=1000, pids=3), cpu_percent=30.0, rx_per_s=1.0
    )

    whole = total([one, two], 12.0)

    assert (whole.containers, whole.cpu_percent, whole.rx_per_s) == (2, 50.0, 1.0)
    assert (whole.usage.at, whole.usage.cpu_s, whole.usage.pids) == (11.0, 3.0, 5)
    assert whole.memory_percent == 20.0


def test_of_none_it_is_nothing():
    whole = total([], 12.0)

    assert (whole.containers, whole.usage, whole.memory_percent) == (0, Usage(at=12.0), 0.0)
