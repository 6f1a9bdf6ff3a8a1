"""The real daemon as a process of its own, for system tests: `agentainerd -m`, waited for by its own READY=1.

    start_daemon(**options)   start one and wait until it serves; stopped, or killed, after the test. Options:
                              engine=False     no Docker Engine (an address where nobody listens)
                              sandbox=...      networks of a Sandbox of tests/fakes/docker.py
                              flags=[...], environment={...}, config="yaml"   as a person would give them
                              folder=...       of an earlier one: the same state, sockets and port
                              inside=[...]     words to put before its command
                              wait=False       do not wait for READY=1

A test that fails shows the last lines of the log of each daemon it started.
"""

import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import docker.errors
import pytest

from tests.fakes.docker import LAYERS, Sandbox, docker_api, only_user_of

ROOT = Path(__file__).parents[2]
INSIDE = Path(__file__).parent / "inside"  # what every daemon here imports first
READY_LIMIT_S = 60.0
LOG_LINES = 60
ACTIVATE = """
import fcntl, os, sys
given = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[1].split(",")]
for place, number in enumerate(given, 3):
    os.dup2(number, place)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "agentainerd", *sys.argv[2:]])
"""
PORTS = (15000, int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]))
NO_ENGINE = "unix:///nonexistent/docker.sock"


class DaemonProcess:
    """One agentainerd. `folder` has its state, its log and its configuration; `runtime_dir` its sockets. `wrapper` is put
    before its command.
    """

    def __init__(self, folder: Path, runtime_dir: Path, port: int) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.runtime_dir = runtime_dir
        self.log_path = folder / "agentainerd.log"
        self.control_socket = runtime_dir / "agentainer.sock"
        self.port = port
        self.command: list[str] = []
        self.wrapper: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.engine = ""
        self._notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notifications.bind(str(runtime_dir / f"notify-{time.monotonic_ns()}"))
        self.told: list[str] = []

    def __repr__(self) -> str:
        return f"<daemon {self.pid} in {self.folder}>"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def token(self) -> str:
        return (self.state_dir / "token").read_text().strip()

    def start(
        self, flags: list[str], environment: Mapping[str, str], *, activated_by: tuple[socket.socket, ...] = ()
    ) -> None:
        """Start the process; `activated_by` are the sockets that it inherits, as from systemd."""
        passed = [str(listener.fileno()) for listener in activated_by]
        self.command = [
            *self.wrapper, sys.executable, *(["-c", ACTIVATE, ",".join(passed)] if passed else ["-m", "agentainerd"]),
            "--state-dir", str(self.state_dir), "--runtime-dir", str(self.runtime_dir),
            "--listen", f"127.0.0.1:{self.port}", *flags,
        ]  # fmt: skip
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTAINER_", "LISTEN_"))}
        given = {**clean, "HOME": str(self.folder), "NOTIFY_SOCKET": self._notifications.getsockname(), **environment}
        given["PYTHONPATH"] = ":".join(filter(None, (given.get("PYTHONPATH"), str(INSIDE))))
        given["TEST_GREENLETS_FILE"] = str(self.folder / "greenlets")
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=given, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, pass_fds=[listener.fileno() for listener in activated_by],
            )  # fmt: skip

    def wait_ready(self, limit_s: float = READY_LIMIT_S) -> "DaemonProcess":
        """Wait for READY=1; fail the test if the process ends before, or does not say it in time."""
        self.wait_told("READY=1", limit_s)
        return self

    def wait_told(self, what: str, limit_s: float = READY_LIMIT_S) -> str:
        """Wait for a message to the service manager that has this line; return it whole."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            self._notifications.settimeout(0.1)
            with suppress(TimeoutError):
                self.told.append(self._notifications.recv(65536).decode())
                if what in self.told[-1].splitlines():
                    return self.told[-1]
            if self.process is not None and self.process.poll() is not None:
                pytest.fail(f"the daemon ended with {self.process.returncode} before it said {what}:\n{self.tail()}")
        pytest.fail(f"the daemon did not say {what} within {limit_s:g} s:\n{self.tail()}")

    def wait_logged(self, text: str, limit_s: float = 20.0) -> None:
        """Wait for a text in its log: where the disk was slow a moment ago, a line comes after what it is about."""
        end = time.monotonic() + limit_s
        while text not in self.log:
            if time.monotonic() > end:
                pytest.fail(f"the daemon did not log {text!r} within {limit_s:g} s:\n{self.tail()}")
            time.sleep(0.02)

    def is_fed(self, timeout_s: float) -> bool:
        """Wait for the next WATCHDOG=1, as systemd does; False: it did not come in time."""
        end = time.monotonic() + timeout_s
        while (left_s := end - time.monotonic()) > 0:
            self._notifications.settimeout(left_s)
            with suppress(TimeoutError):
                self.told.append(self._notifications.recv(65536).decode())
                if "WATCHDOG=1" in self.told[-1].splitlines():
                    return True
        return False

    def wait_exit(self, limit_s: float = 30.0) -> int:
        """Wait for its end and return the exit code."""
        assert self.process is not None
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the daemon did not end within {limit_s:g} s:\n{self.tail()}")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def stop(self, limit_s: float = 45.0) -> int:
        """SIGTERM, and wait; return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait_exit(limit_s)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.signal(signal.SIGKILL)
        self.wait_exit()

    def control(self, method: str, path: str, body: object = None, timeout_s: float = 60.0) -> tuple[int, dict]:
        """Ask the API on the control socket; return status and envelope."""
        return _ask(UnixConnection(str(self.control_socket), timeout_s), method, path, body, {})

    def http(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> tuple[int, dict, dict[str, str]]:
        """Ask over TCP, API or proxy; return status, JSON (or {"raw": text}) and the header fields in lower case."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            data = body if isinstance(body, bytes | str | None) else json.dumps(body)
            connection.request(method, path, data, dict(headers or {}))
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
            fields = {name.lower(): value for name, value in response.getheaders()}
        finally:
            connection.close()
        try:
            content = json.loads(text) if text else {}
        except ValueError:
            content = {"raw": text}
        return response.status, content if isinstance(content, dict) else {"list": content}, fields

    def greenlets(self, limit_s: float = 10.0) -> str:
        """Return the stack of each of its greenlets: what it does that never ends."""
        file = self.folder / "greenlets"
        file.unlink(missing_ok=True)
        self.signal(signal.SIGUSR2)
        end = time.monotonic() + limit_s
        while not file.exists() and time.monotonic() < end:
            time.sleep(0.05)
        return file.read_text() if file.exists() else "it does not answer"

    def tail(self, lines: int = LOG_LINES) -> str:
        return "\n".join(self.log.splitlines()[-lines:])

    def built_images(self) -> set[str]:
        """Return the names of the images that it was asked to build, as its audit log has them."""
        path = self.state_dir / "audit.log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else ()
        return {json.loads(line)["resource"] for line in lines if '"action":"build_image"' in line}

    def clean_up(self) -> None:
        """End it whatever it takes, its children too, and show its log."""
        if self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                self.signal(signal.SIGTERM)
                self.signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
                self.process.wait(10)
        self._notifications.close()
        print(f"--- last lines of {self.log_path}\n{self.tail()}")


class UnixConnection(http.client.HTTPConnection):
    """HTTP to a Unix socket."""

    def __init__(self, path: str, timeout_s: float = 60.0) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: object, headers: dict[str, str]
) -> tuple[int, dict]:
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"{}")
    finally:
        connection.close()


def find_program(name: str) -> str:
    """Return the path of a program that scripts/setup testing installs; fail without it, and skip where there is no apt."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None and shutil.which("apt-get") is None:
        pytest.skip(f"there is no {name} on this machine, and no apt to install it")
    if found is None:
        pytest.fail(f"this test needs {name}: scripts/setup testing")
    return found


def free_port(address: str = "127.0.0.1") -> int:
    """A port of an address, "" for all of them, that nobody has now, and that the kernel gives to no connection that goes out:
    those would take it before a server does.
    """
    while True:
        port = random.randrange(*PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((address, port))
            return port


@pytest.fixture(scope="session")
def built_images() -> Iterator[set[tuple[str, str]]]:
    """(engine, name) of the images that daemons built; they are removed in the end, so that later tests have their layers."""
    built: set[tuple[str, str]] = set()
    yield built
    for host, name in built:
        with only_user_of(LAYERS), docker_api(host) as client, suppress(docker.errors.APIError):
            client.remove_image(name)


@pytest.fixture
def start_daemon(tmp_path: Path, built_images: set[tuple[str, str]]) -> Iterator:
    started: list[DaemonProcess] = []
    with tempfile.TemporaryDirectory(prefix="agd-") as sockets:  # short: the names of sockets are

        def start(
            *,
            engine: bool = True,
            sandbox: Sandbox | None = None,
            flags: list[str] | None = None,
            environment: Mapping[str, str] | None = None,
            config: str = "",
            like: DaemonProcess | None = None,
            wait: bool = True,
            activated_by: tuple[socket.socket, ...] = (),
            inside: list[str] | None = None,
        ) -> DaemonProcess:
            number = len(started)
            if like is not None:
                daemon = DaemonProcess(like.folder, like.runtime_dir, like.port)
            else:
                folder, runtime_dir = tmp_path / f"daemon-{number}", Path(sockets) / str(number)
                folder.mkdir(exist_ok=True)
                runtime_dir.mkdir(mode=0o755)
                daemon = DaemonProcess(folder, runtime_dir, free_port())
            started.append(daemon)
            given = dict(environment or {})
            if not engine:
                given.setdefault("AGENTAINER_DOCKER_HOST", NO_ENGINE)
            if sandbox is not None:
                daemon.engine = sandbox.host
                given |= {
                    "AGENTAINER_DOCKER_HOST": sandbox.host,
                    "AGENTAINER_DOCKER_NETWORK": sandbox.network,
                    "AGENTAINER_DOCKER_ISOLATED_NETWORK": sandbox.isolated_network,
                }
            if config:
                (daemon.folder / "config.yaml").write_text(config)
            daemon.wrapper = inside or daemon.wrapper
            daemon.start(list(flags or []), given, activated_by=activated_by)
            return daemon.wait_ready() if wait else daemon

        yield start
        for daemon in reversed(started):
            daemon.clean_up()
            if daemon.engine:
                built_images |= {(daemon.engine, name) for name in daemon.built_images()}
