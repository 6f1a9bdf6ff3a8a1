import threading
import time

import gevent
import pytest

from agentainerd import offload


def test_the_value_comes_back_from_another_thread():
    here = threading.get_native_id()

    there = offload.run(threading.get_native_id)

    assert there != here


def test_other_greenlets_run_meanwhile():
    turns = 0

    def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    other = gevent.spawn(turn)  # noqa: TID251

    offload.run(sum, range(3_000_000))
    other.kill()

    assert turns > 2


def test_an_error_is_raised_here_and_printed_nowhere(capfd):
    def fail(what: str) -> None:
        raise ValueError(what)

    with pytest.raises(ValueError, match="on purpose"):
        offload.run(fail, "on purpose")

    assert capfd.readouterr().err == ""


def test_many_at_once_all_come_back():
    jobs = [gevent.spawn(offload.run, pow, number, 2) for number in range(100)]  # noqa: TID251
    gevent.joinall(jobs, timeout=10)

    assert [job.value for job in jobs] == [number * number for number in range(100)]


def test_a_killed_caller_leaves_at_once():
    caller = gevent.spawn(offload.run, time.sleep, 2)  # noqa: TID251
    gevent.sleep(0)

    started = time.monotonic()
    caller.kill()

    assert time.monotonic() - started < 1


def test_a_pause_in_a_thread_holds_nobody_up():
    began = time.monotonic()
    others = gevent.spawn(lambda: [gevent.sleep(0.01) for _ in range(5)] and time.monotonic())

    offload.run(offload.pause, 1)

    assert time.monotonic() - began >= 1
    assert others.get(timeout=5) - began < 0.9
