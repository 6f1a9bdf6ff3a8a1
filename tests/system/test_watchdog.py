"""A daemon that exists and does not do its work is started anew: wedged in each way, with a service manager as systemd is one."""

import os
import re
import resource
import signal
import socket
import time

import gevent
import psutil
import pytest

from tests.fakes.daemons import DaemonProcess

pytestmark = pytest.mark.redis
TIMEOUT_S = 2.0
ENVIRONMENT = {"WATCHDOG_USEC": str(int(TIMEOUT_S * 1e6))}
ABORT_LIMIT_S = 1.0


def redis_of(daemon: DaemonProcess) -> psutil.Process:
    found = [one for one in psutil.Process(daemon.pid).children() if "redis" in one.name() or "valkey" in one.name()]
    assert len(found) == 1
    return found[0]


@pytest.fixture
def manager(start_daemon):
    """`manager(daemon)`: wait until it starves, end all of it as KillMode=mixed does, start it again."""

    def manage(daemon: DaemonProcess, limit_s: float) -> DaemonProcess:
        end = time.monotonic() + limit_s
        while daemon.is_fed(TIMEOUT_S):
            assert time.monotonic() < end, "it is fed, and does nothing"
        children = psutil.Process(daemon.pid).children()
        daemon.signal(signal.SIGABRT)
        try:
            daemon.process.wait(ABORT_LIMIT_S)
        except Exception:
            daemon.signal(signal.SIGKILL)
        for child in children:
            child.kill()
        return start_daemon(like=daemon, engine=False, environment=ENVIRONMENT)

    return manage


def works(daemon: DaemonProcess) -> bool:
    assert daemon.http("GET", "/livez")[0] == 200
    return daemon.control("GET", "/agents")[0] == 200


def test_an_idle_daemon_is_fed(start_daemon):
    daemon = start_daemon(engine=False, environment=ENVIRONMENT)

    assert all(daemon.is_fed(TIMEOUT_S) for _ in range(6))
    assert "watchdog" not in daemon.log


def test_a_loop_that_stands_still_is_ended(start_daemon, manager):
    daemon = start_daemon(engine=False, environment=ENVIRONMENT)
    daemon.signal(signal.SIGSTOP)

    assert works(manager(daemon, 10))


def test_a_loop_that_spins_is_ended_and_the_abort_says_where_it_stood_and_writes_no_core(start_daemon, eventually):
    """Nothing of the daemon's own spins for ever: what does is of tests/fakes/inside."""
    daemon = start_daemon(engine=False, environment=ENVIRONMENT)
    daemon.signal(signal.SIGVTALRM)
    eventually(lambda: not daemon.is_fed(TIMEOUT_S), limit_s=30)

    daemon.signal(signal.SIGABRT)

    assert daemon.wait_exit() == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in daemon.log
    assert re.search(r"Current thread .*\n  File .*sitecustomize.py\", line \d+ in _spin_for_ever", daemon.log)
    assert [path for path in daemon.folder.rglob("core*") if path.is_file()] == []


def test_a_journal_that_does_not_commit_is_ended_and_what_is_wrong_is_told(start_daemon, manager):
    daemon = start_daemon(engine=False, environment=ENVIRONMENT)
    redis_of(daemon).suspend()

    again = manager(daemon, 30)

    assert works(again)
    assert "the watchdog is not fed while this lasts: journal: a batch has waited for 5 s" in daemon.log
    assert any("STATUS=wedged: journal" in told for told in daemon.told)


def test_an_accept_loop_that_does_not_accept_is_ended(start_daemon, manager):
    daemon = start_daemon(engine=False, environment=ENVIRONMENT)
    open_files = psutil.Process(daemon.pid).num_fds()
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (open_files, open_files))
    held = []
    for _ in range(3):  # what the kernel takes for it waits in the backlog
        held.append(socket.create_connection(("127.0.0.1", daemon.port), 5))

    again = manager(daemon, 30)

    assert works(again)
    assert "the watchdog is not fed while this lasts: accept loop" in daemon.log
    for connection in held:
        connection.close()


def test_a_redis_that_is_gone_for_long_is_no_reason_to_break_off_what_works(start_daemon):
    """It is started again by the daemon itself; agents that are ready answer meanwhile."""
    daemon = start_daemon(engine=False, environment=ENVIRONMENT)
    end = time.monotonic() + 6.5
    while time.monotonic() < end:
        for child in psutil.Process(daemon.pid).children():
            os.kill(child.pid, signal.SIGKILL)
        assert daemon.is_fed(TIMEOUT_S)
        gevent.sleep(0.1)

    assert "not fed" not in daemon.log
