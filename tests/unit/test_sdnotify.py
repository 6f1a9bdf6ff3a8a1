import os
import socket

import pytest

from agentainerd.sdnotify import Notifier, from_environment


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify.sock"))
        channel.settimeout(5)
        yield channel


def test_each_message_is_one_datagram(manager):
    notifier = Notifier(manager.getsockname())

    notifier.ready("serving on 127.0.0.1:8081")
    notifier.status("engine away")
    notifier.alive()
    notifier.stopping("draining")

    assert manager.recv(4096).decode() == f"READY=1\nSTATUS=serving on 127.0.0.1:8081\nMAINPID={os.getpid()}"
    assert manager.recv(4096) == b"STATUS=engine away"
    assert manager.recv(4096) == b"WATCHDOG=1"
    assert manager.recv(4096) == b"STOPPING=1\nSTATUS=draining"


def test_a_reload_carries_the_clock(manager):
    Notifier(manager.getsockname()).reloading()

    first, second = manager.recv(4096).decode().splitlines()
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")
    assert second.partition("=")[2].isdecimal()


def test_an_abstract_socket_is_understood():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(f"\0agentainer-test-{os.getpid()}")
        channel.settimeout(5)

        Notifier(f"@agentainer-test-{os.getpid()}").alive()

        assert channel.recv(4096) == b"WATCHDOG=1"


def test_nobody_listening_is_no_error(tmp_path):
    Notifier("").ready("x")
    Notifier(str(tmp_path / "gone.sock")).ready("x")


def test_the_environment_is_read_once_and_not_handed_on():
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid()), "PATH": "/bin"}

    notifier = from_environment(environment)

    assert notifier.watchdog_timeout_s == 20.0
    assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize("variables", [{}, {"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "x"}])
def test_a_watchdog_that_is_not_ours_is_not_fed(variables):
    assert from_environment(dict(variables)).watchdog_timeout_s == 0.0
