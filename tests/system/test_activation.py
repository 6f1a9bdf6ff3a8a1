"""Socket activation: the sockets belong to whoever starts the daemon, so that its death refuses no connection.

`ACTIVATION_KILLS` sets how often it is killed under load (5; `make soak` 100).
"""

import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import gevent
import pytest
from gevent import socket
from gevent.event import Event

from tests.fakes.agents import receive_all
from tests.fakes.daemons import NO_ENGINE, find_program, free_port

pytestmark = pytest.mark.redis
KILLS = int(os.environ.get("ACTIVATION_KILLS", "5"))
CLIENTS = 12
PAUSE_S = 0.05
READY_LIMIT_S = 2.0 if KILLS > 5 else 5.0  # the longer one for a machine that does other things too
ASK = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Activated:
    """A daemon whose sockets this process holds, as systemd does, and starts again whenever it ends."""

    def __init__(self, start_daemon, sockets: ExitStack):
        self._start = start_daemon
        self.tcp = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
        self.daemon = start_daemon(engine=False)
        assert self.daemon.stop() == 0
        self.control = sockets.enter_context(socket.socket(socket.AF_UNIX))
        self.control.bind(str(self.daemon.control_socket))
        self.control.listen(4096)
        self.ready_after_s: list[float] = []
        self.launch()

    @property
    def addresses(self):
        return [(socket.AF_INET, self.tcp.getsockname()), (socket.AF_UNIX, str(self.daemon.control_socket))]

    def launch(self) -> None:
        began = time.monotonic()
        self.daemon = self._start(
            engine=False, like=self.daemon, wait=False, environment={"LISTEN_FDS": "2"},
            activated_by=(self.tcp, self.control),
        )  # fmt: skip
        self.daemon.port = self.tcp.getsockname()[1]
        self.daemon.wait_ready()
        self.ready_after_s.append(time.monotonic() - began)


@pytest.fixture
def activated(start_daemon):
    with ExitStack() as sockets:
        yield Activated(start_daemon, sockets)


class Client:
    """Asks over and over on connections of its own, and keeps count of what became of each."""

    def __init__(self, family, address):
        self.family, self.address = family, address
        self.connected = self.answered = self.cut = 0
        self.refused: list[OSError] = []

    def run(self, stop: Event) -> None:
        while not stop.is_set():
            with socket.socket(self.family) as connection:
                connection.settimeout(30)
                try:
                    connection.connect(self.address)
                except OSError as error:
                    self.refused.append(error)
                    continue
                self.connected += 1
                with suppress(OSError):
                    connection.sendall(ASK)
                    if receive_all(connection, 30).startswith(b"HTTP/1.1 200"):
                        self.answered += 1
                        gevent.sleep(PAUSE_S)
                        continue
                self.cut += 1  # it had been accepted by the daemon that died


@pytest.mark.timeout(max(120, KILLS * 10))
def test_a_kill_under_load_refuses_no_connection(activated, record_property):
    stop = Event()
    clients = [Client(*activated.addresses[number % 2]) for number in range(CLIENTS)]
    running = [gevent.spawn(client.run, stop) for client in clients]  # noqa: TID251
    for _ in range(KILLS):
        before = sum(client.answered for client in clients)
        while sum(client.answered for client in clients) < before + 3 * CLIENTS:
            gevent.sleep(0.01)
        activated.daemon.kill()
        activated.launch()
    stop.set()
    gevent.joinall(running, raise_error=True)

    assert [error for client in clients for error in client.refused] == []
    connected, cut = sum(client.connected for client in clients), sum(client.cut for client in clients)
    assert sum(client.answered for client in clients) == connected - cut
    assert cut <= KILLS * CLIENTS
    record_property("ready_after_s", activated.ready_after_s)
    print(f"{connected} connections, {cut} cut by {KILLS} kills, ready after {sorted(activated.ready_after_s)} s")
    assert statistics.median(activated.ready_after_s) < READY_LIMIT_S


def test_what_waits_in_the_kernel_is_served_by_the_next_daemon(activated):
    activated.daemon.signal(signal.SIGSTOP)  # from here on the kernel accepts, and nobody reads
    with ExitStack() as opened:
        waiting = []
        for number in range(60):
            family, address = activated.addresses[number % 2]
            connection = opened.enter_context(socket.socket(family))
            connection.settimeout(30)
            connection.connect(address)
            connection.sendall(ASK)
            waiting.append(connection)

        activated.daemon.kill()
        activated.launch()

        answers = [receive_all(connection, 30) for connection in waiting]
    assert [answer[:15] for answer in answers] == [b"HTTP/1.1 200 OK"] * len(answers)


def test_what_comes_while_nothing_runs_waits_for_the_next_start(activated):
    activated.daemon.kill()
    with ExitStack() as opened:
        waiting = []
        for family, address in activated.addresses:
            connection = opened.enter_context(socket.socket(family))
            connection.settimeout(30)
            connection.connect(address)
            connection.sendall(ASK)
            waiting.append(connection)
        assert [len(connection.recv(1)) for connection in waiting if ready(connection)] == []

        activated.launch()

        assert all(receive_all(connection, 30).startswith(b"HTTP/1.1 200") for connection in waiting)


def ready(connection) -> bool:
    return bool(gevent.select.select([connection], [], [], 0)[0])


def test_a_graceful_stop_refuses_nobody_either(activated):
    assert activated.daemon.stop() == 0
    family, address = activated.addresses[0]
    with socket.socket(family) as connection:
        connection.settimeout(30)
        connection.connect(address)
        connection.sendall(ASK)
        activated.launch()

        assert receive_all(connection, 30).startswith(b"HTTP/1.1 200")
    assert os.path.exists(activated.daemon.control_socket)


def test_systemds_own_activation_is_understood(tmp_path):
    program = find_program("systemd-socket-activate")
    port, path = free_port(), Path(f"/tmp/agd-{os.getpid()}.sock")
    command = [
        program, "-l", f"127.0.0.1:{port}", "-l", str(path), *(f"-E{name}" for name in ("PATH", "AGENTAINER_DOCKER_HOST")),
        sys.executable, "-m", "agentainerd", "--state-dir", str(tmp_path / "state"),
        "--runtime-dir", f"/tmp/agd-{os.getpid()}", "--listen", f"127.0.0.1:{port}",
    ]  # fmt: skip
    log = (tmp_path / "log").open("wb")
    environment = {"PATH": os.environ["PATH"], "AGENTAINER_DOCKER_HOST": NO_ENGINE}
    with subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=Path(__file__).parents[2]) as running:
        try:
            answers = [ask_when_there(family, address) for family, address in ((socket.AF_INET, ("127.0.0.1", port)), (socket.AF_UNIX, str(path)))]  # fmt: skip
        finally:
            running.terminate()
            running.wait(30)
            log.close()
            shutil.rmtree(f"/tmp/agd-{os.getpid()}", ignore_errors=True)
            path.unlink(missing_ok=True)
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers), (tmp_path / "log").read_text()


def ask_when_there(family, address) -> bytes:
    end = time.monotonic() + 20
    while True:
        with socket.socket(family) as connection:
            connection.settimeout(30)
            if connection.connect_ex(address) == 0:
                connection.sendall(ASK)
                return receive_all(connection, 30)
        assert time.monotonic() < end
        gevent.sleep(0.02)
