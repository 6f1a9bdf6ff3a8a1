import logging

import gevent
import pytest
from gevent.event import Event

from agentainerd.errors import Unavailable
from agentainerd.supervisor import Supervisor


@pytest.fixture
def supervisor():
    supervisor = Supervisor()
    yield supervisor
    assert supervisor.stop(5) == 0


def test_a_loop_runs_at_once_and_again_after_its_interval(supervisor, eventually):
    times = []

    supervisor.loop("tick", lambda now: times.append(now) or 0, 0.01)

    eventually(lambda: len(times) >= 3)
    assert times == sorted(times)


def test_a_woken_loop_does_not_wait_for_its_interval(supervisor, eventually):
    runs = []
    supervisor.loop("slow", lambda now: runs.append(now) or 0, 3600)
    eventually(lambda: len(runs) == 1)

    supervisor.wake("slow")

    eventually(lambda: len(runs) == 2)


def test_a_wake_up_during_a_run_makes_one_more_run(supervisor, eventually):
    runs = []
    go_on = Event()

    def run(now: float) -> int:
        runs.append(now)
        if len(runs) == 1:
            go_on.wait()
        return 0

    supervisor.loop("busy", run, 3600)
    eventually(lambda: runs)

    for _ in range(5):
        supervisor.wake("busy")
    go_on.set()

    eventually(lambda: len(runs) == 2)
    gevent.sleep(0)
    assert len(runs) == 2


def test_waking_an_unknown_loop_does_nothing(supervisor):
    supervisor.wake("nobody")

    assert supervisor.status() == []


def test_two_loops_of_one_name_are_a_bug(supervisor):
    supervisor.loop("same", lambda now: 0, 60)

    with pytest.raises(ValueError, match="same"):
        supervisor.loop("same", lambda now: 0, 60)


def test_a_failing_loop_goes_on_and_says_so_once(supervisor, eventually, caplog):
    healthy = Event()

    def run(now: float) -> int:
        if not healthy.is_set():
            raise Unavailable("cannot reach the engine")
        return 1

    with caplog.at_level(logging.INFO, "agentainerd.supervisor"):
        supervisor.loop("sync", run, 0.01)
        eventually(lambda: supervisor.wake("sync") or supervisor.status()[0].failures >= 2)
        failing = supervisor.status()[0]
        healthy.set()
        eventually(lambda: supervisor.wake("sync") or supervisor.status()[0].last_success_at > 0)

    assert failing.last_error == "cannot reach the engine"
    assert supervisor.status()[0].failures == 0
    assert supervisor.status()[0].last_error == ""
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_an_unexpected_error_of_a_loop_is_logged_with_its_traceback(supervisor, eventually, caplog):
    def run(now: float) -> int:
        raise ZeroDivisionError("a bug")

    supervisor.loop("buggy", run, 60)

    eventually(lambda: supervisor.status()[0].failures == 1)
    assert supervisor.status()[0].last_error == "ZeroDivisionError: a bug"
    assert caplog.records[0].exc_info


def test_a_failing_loop_that_is_woken_all_the_time_does_not_spin(supervisor, eventually):
    runs = []

    def run(now: float) -> int:
        runs.append(now)
        supervisor.wake("angry")
        raise Unavailable("no")

    supervisor.loop("angry", run, 0.001)

    eventually(lambda: len(runs) == 2)
    assert runs[1] - runs[0] >= 0.4


def test_a_spawned_function_gives_its_value(supervisor):
    greenlet = supervisor.spawn("sum", sum, (1, 2, 3))

    assert greenlet.get(timeout=5) == 6


def test_an_error_in_a_spawned_function_is_logged(supervisor, caplog):
    def fail() -> None:
        raise ValueError("on purpose")

    supervisor.spawn("the failing one", fail).join(5)

    assert "the failing one failed" in caplog.text
    assert "on purpose" in caplog.text


def test_stop_ends_everything_and_says_what_did_not_end():
    supervisor = Supervisor()
    release = Event()

    def stubborn() -> None:
        while not release.is_set():
            try:
                release.wait()
            except gevent.GreenletExit:
                continue

    supervisor.spawn("stubborn", stubborn)
    quick = supervisor.spawn("quick", gevent.sleep, 3600)
    gevent.sleep(0)

    assert supervisor.stop(0.05) == 1
    assert quick.dead

    release.set()
    assert supervisor.stop(5) == 0


def test_nothing_runs_after_stop():
    supervisor = Supervisor()
    supervisor.stop(1)
    ran = []

    late = supervisor.spawn("late", ran.append, 1)
    late.join(5)

    assert late.ready()
    assert ran == []


def test_a_task_may_stop_its_own_supervisor(eventually):
    supervisor = Supervisor()
    left = []

    task = supervisor.spawn("stopper", lambda: left.append(supervisor.stop(5)))

    task.join(5)
    assert left == [0]
