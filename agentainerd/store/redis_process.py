"""A server program of Redis or Valkey as a child of the daemon: started, waited for, started again when it dies, ended.

At most one server ever runs on a folder: each holds a lock that only its own end gives back, and one that outlived a killed
daemon is stopped first. What is kept there, and how, is the matter of whoever has the process (redis_server.py,
shared_redis.py).
"""

import ctypes
import fcntl
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import gevent
import psutil

from agentainerd import defaults
from agentainerd.errors import AgentainerError, Failed
from agentainerd.store.committer import Spawn
from agentainerd.store.connection import RedisClient

log = logging.getLogger(__name__)

MIN_RESTART_S = 0.1
MAX_RESTART_S = 1.0
STEADY_S = 5.0  # a server that ran for so long is restarted at once when it dies
CHECK_INTERVAL_S = 10.0
STOP_TIMEOUT_S = 10.0
MAX_LOG_BYTES = 10 * 1024 * 1024
_PING_S = 0.01
_LOCK_S = 0.1
_LOG_LINES = 20
_PR_SET_PDEATHSIG = 1
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is: its data, which is its working folder, its log, its configuration and its socket.

    `name` is what the log of the daemon calls it.
    """

    name: str
    folder: Path
    log: Path
    configuration: Path
    socket: Path


@dataclass(frozen=True, slots=True)
class Hooks:
    """What is particular to a server. `prepare` returns its configuration before each start, or raises Failed; `explain` makes
    an error of how a start ended and the last lines of its log; after an error `repair` says whether to try once more; `look` is
    called every CHECK_INTERVAL_S while it runs, `on_restart` when it was started again, and answers.
    """

    prepare: Callable[[], str]
    explain: Callable[[str, list[str]], Failed]
    repair: Callable[[Failed], bool] = lambda error: False
    look: Callable[[], None] = lambda: None
    on_restart: Callable[[], None] = lambda: None


class RedisProcess:
    """One server program on a folder. `client` is a connection to its socket that may do everything.

    `start` and `stop` are for the main thread: the child ends with the thread that started it.
    """

    def __init__(self, binary: str, place: Place, hooks: Hooks, client: RedisClient, spawn: Spawn) -> None:
        self._binary = binary
        self._place = place
        self._hooks = hooks
        self._client = client
        self._spawn = spawn
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._ready_at = 0.0
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """Process id of the server that runs now."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def up_s(self) -> float:
        """For how long the server that runs now has been ready, in seconds; 0.0 where none is."""
        return time.monotonic() - self._ready_at if self.pid is not None and self._ready_at else 0.0

    def start(self, timeout_s: float = defaults.REDIS_START_TIMEOUT_S) -> None:
        """Start the server and return when it has read its data and answers; from now on it is kept running.

        Raises:
            Failed: it doesn't start, as Hooks.explain has it; `details["log"]` has the last lines of its log. Nothing runs then.
        """
        self._stopping = False
        self._launch(timeout_s)
        self._spawn(self._place.name, self._supervise)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End the server: SIGTERM, and SIGKILL after `timeout_s`."""
        self._stopping = True
        self._client.close()
        self._end(timeout_s)

    # ----

    def _supervise(self) -> None:
        pause_s = MIN_RESTART_S
        while True:
            process = self._process
            if process is not None:
                try:
                    process.wait(CHECK_INTERVAL_S)
                except subprocess.TimeoutExpired:
                    self._hooks.look()
                    continue
            if self._stopping:
                return
            if process is not None:
                log.error(
                    "%s (pid %d) ended with %s and is started again",
                    self._place.name, process.pid, _how(process.returncode),
                )  # fmt: skip
            if time.monotonic() - self._started_at > STEADY_S:
                pause_s = MIN_RESTART_S
            gevent.sleep(pause_s)
            pause_s = min(pause_s * 2, MAX_RESTART_S)
            self._restart()

    def _restart(self) -> None:
        if self._stopping:
            return
        try:
            self._launch(defaults.REDIS_START_TIMEOUT_S)
        except (AgentainerError, OSError) as exc:
            log.error("%s was not started: %s", self._place.name, exc)
            return
        if self._stopping:
            self._end(STOP_TIMEOUT_S)
            return
        log.info("%s runs again (pid %d)", self._place.name, self.pid)
        self._hooks.on_restart()

    def _launch(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        self._process = None
        self._ready_at = 0.0
        lock = self._take_folder(deadline)
        try:
            self._write_configuration(self._hooks.prepare())
            try:
                self._run(lock, deadline)
            except Failed as error:
                if not self._hooks.repair(error):
                    raise
                self._run(lock, deadline)
        finally:
            os.close(lock)

    def _run(self, lock: int, deadline: float) -> None:
        """Start the program, and return when it answers."""
        begin = self._place.log.stat().st_size if self._place.log.exists() else 0
        with self._place.log.open("ab") as out:
            self._process = subprocess.Popen(
                [self._binary, str(self._place.configuration)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self._place.folder,
                env=_environment(),
                pass_fds=(lock,),
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self._started_at = time.monotonic()
        self._wait_until_ready(self._process, deadline, begin)
        self._ready_at = time.monotonic()

    def _write_configuration(self, text: str) -> None:
        self._place.socket.unlink(missing_ok=True)
        if self._place.log.exists() and self._place.log.stat().st_size > MAX_LOG_BYTES:
            self._place.log.rename(self._place.log.with_suffix(".log.1"))
        self._place.configuration.write_text(text)
        self._place.configuration.chmod(0o600)

    def _take_folder(self, deadline: float) -> int:
        """Return the lock of the folder, which the server inherits; stop whoever has it.

        Raises:
            Failed: it was not given back in time.
        """
        lock = os.open(self._place.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                survivors = self._survivors()
                if time.monotonic() > deadline:
                    os.close(lock)
                    raise Failed(
                        f"{self._place.folder} is used by another server ({[one.pid for one in survivors] or 'not found'})",
                        code="REDIS_START_FAILED",
                    ) from None
                _stop_all(survivors)
                gevent.sleep(_LOCK_S)

    def _survivors(self) -> list[psutil.Process]:
        """Return the servers that work in our folder: of a daemon that was killed, or one that is rewriting its file."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.cwd() == str(self._place.folder.resolve()) and process.exe().rpartition("/")[2].startswith(
                    ("redis", "valkey")
                ):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def _wait_until_ready(self, process: "subprocess.Popen[bytes]", deadline: float, log_from: int) -> None:
        while not self._answers():
            code = process.poll()
            if code is None and time.monotonic() < deadline:
                gevent.sleep(_PING_S)
                continue
            what = f"ended with {_how(code)}" if code is not None else "did not answer in time"
            self._end(0.0)
            raise self._start_error(what, log_from)

    def _answers(self) -> bool:
        try:
            return bool(self._client.call("PING") == b"PONG")
        except AgentainerError:
            return False

    def _start_error(self, what: str, log_from: int) -> Failed:
        with self._place.log.open("rb") as file:
            file.seek(log_from)
            lines = file.read().decode("utf-8", "replace").splitlines()[-_LOG_LINES:]
        error = self._hooks.explain(what, lines)
        error.details["log"] = lines
        return error

    def _end(self, timeout_s: float) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        if timeout_s > 0:
            process.terminate()
            try:
                process.wait(timeout_s)
                return
            except subprocess.TimeoutExpired:
                log.warning(
                    "%s (pid %d) did not end within %g s and is killed", self._place.name, process.pid, timeout_s
                )
        process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    """Return what the server may know of ours: not the variables of the daemon, which may hold its token."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AGENTAINER_")}


def _die_with_parent() -> None:
    """In the child: end cleanly when the daemon does, however that ends, and keep none of the capabilities of its unit."""
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _stop_all(processes: list[psutil.Process]) -> None:
    for process in processes:
        log.warning("stopping the server that an earlier run left (pid %d)", process.pid)
        with suppress(psutil.Error):
            process.terminate()
    end = time.monotonic() + STOP_TIMEOUT_S
    while any(map(_runs, processes)) and time.monotonic() < end:
        gevent.sleep(_PING_S)
    for process in filter(_runs, processes):
        with suppress(psutil.Error):
            process.kill()


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def quoted(path: object) -> str:
    """Return a path as a word of the configuration file."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit {code}"
