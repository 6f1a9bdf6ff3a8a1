"""The embedded server: a Redis or Valkey child of the daemon, for the journal alone.

It listens on a Unix socket that only we can open, writes every batch through to the disk before it answers, throws nothing
away, and is started again when it dies. At most one server ever runs on a folder: each holds a lock that only its own end
gives back, and one that outlived a killed daemon is stopped first.
"""

import ctypes
import fcntl
import logging
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import gevent
import psutil

from agentainerd import defaults, offload
from agentainerd.errors import AgentainerError, Failed
from agentainerd.store import aof, disk, marks
from agentainerd.store.committer import Spawn
from agentainerd.store.connection import RedisClient, socket_url

log = logging.getLogger(__name__)

MIN_RESTART_S = 0.1
MAX_RESTART_S = 1.0
STEADY_S = 5.0  # a server that ran for so long is restarted at once when it dies
CHECK_INTERVAL_S = 10.0
STOP_TIMEOUT_S = 10.0
REWRITE_AT_BYTES = 64 * 1024 * 1024  # the append-only file is rewritten where it is so much over twice its base
MAX_LOG_BYTES = 10 * 1024 * 1024
_PING_S = 0.01
_LOCK_S = 0.1
_LOG_LINES = 20
_PR_SET_PDEATHSIG = 1
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_COMPLAINT = re.compile(
    r"^(?!.* \* ).*(append[ -]only|append log|AOF|RDB|loading (the )?DB|end of file)", re.IGNORECASE
)
"""A line of its log that is more than a notice (marked by *), and is about the files."""

_libc = ctypes.CDLL(None, use_errno=True)

_CONFIGURATION = """\
# Written by agentainerd at every start.
port 0
unixsocket {socket}
unixsocketperm 600
dir {folder}
logfile {log}
daemonize no
supervised no
databases 1
maxclients 512
io-threads 1
save ""
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
auto-aof-rewrite-percentage 0
aof-load-truncated no
aof-use-rdb-preamble yes
maxmemory {maxmemory}
maxmemory-policy noeviction
lazyfree-lazy-user-del yes
latency-monitor-threshold 10
"""


class RedisServer:
    """One server program on `<state_dir>/journal`, its socket in `runtime_dir`, its log at `<state_dir>/redis.log`.

    `start` and `stop` are for the main thread: the child ends with the thread that started it. `on_restart` is called
    after it was started again, and answers.
    """

    def __init__(
        self,
        binary: str,
        *,
        state_dir: Path,
        runtime_dir: Path,
        maxmemory_bytes: int,
        spawn: Spawn,
        on_restart: Callable[[], None] = lambda: None,
    ) -> None:
        self.on_restart = on_restart
        self.socket_path = str(runtime_dir / defaults.REDIS_SOCKET)
        self.url = socket_url(self.socket_path)
        self._binary = binary
        self._state_dir = state_dir
        self._folder = state_dir / "journal"
        self._aside = state_dir / aof.ASIDE
        self._log = state_dir / "redis.log"
        self._configuration = runtime_dir / "redis.conf"
        self._maxmemory_bytes = maxmemory_bytes
        self._spawn = spawn
        self._client = RedisClient(self.url)
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._ready_at = 0.0
        self._stopping = False
        self._had_room = True

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
        """Start the server and return when it has read its journal and answers; from now on it is kept running.

        Raises:
            Failed: the journal is not there any more or can't be read (codes JOURNAL_LOST and JOURNAL_DAMAGED: exit 4), or
                the server doesn't start (REDIS_START_FAILED); nothing runs then. `details["log"]` has the last lines of its
                log.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if marks.read(self._state_dir) and not aof.has_files(self._folder):
            raise marks.lost(self._state_dir, f"there are no files in {aof.folder(self._folder)}")
        self._launch(timeout_s)
        disk.sync_folder(self._folder)
        self._spawn("redis", self._supervise)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End the server: SIGTERM, and SIGKILL after `timeout_s`. What it answered is on the disk either way."""
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
                    self._rewrite_if_large()
                    continue
            if self._stopping:
                return
            if process is not None:
                log.error("redis (pid %d) ended with %s and is started again", process.pid, _how(process.returncode))
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
            log.error("redis was not started: %s", exc)
            return
        if self._stopping:
            self._end(STOP_TIMEOUT_S)
            return
        log.info("redis runs again (pid %d)", self.pid)
        self.on_restart()

    def _launch(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        self._process = None
        self._ready_at = 0.0
        lock = self._take_folder(deadline)
        try:
            self._require_list()
            self._sync()
            self._prepare()
            try:
                self._run(lock, deadline)
            except Failed as error:
                if error.code != "JOURNAL_DAMAGED" or not self._cut_torn_tail():
                    raise
                self._run(lock, deadline)
        finally:
            os.close(lock)

    def _sync(self) -> None:
        """Make durable what the server is about to read: of one that was killed, the last writes may be in memory only.

        A rewrite begins a new file, and what the server answers then says nothing of the end of the old one.
        """
        if aof.has_files(self._folder):
            try:
                offload.run(disk.sync_files, aof.folder(self._folder))
            except OSError as exc:
                raise Failed(
                    f"{aof.folder(self._folder)} cannot be made durable: {exc}",
                    code="REDIS_START_FAILED",
                    hint="look at the disk: dmesg",
                ) from exc

    def _require_list(self) -> None:
        """Without the list of its files the server would start empty. Before the first journal there is nothing to lose."""
        if not aof.has_files(self._folder) or aof.manifest(self._folder).exists():
            return
        if marks.read(self._state_dir):
            raise marks.damaged(self._state_dir, f"{aof.manifest(self._folder)}, the list of its files, is missing")
        aside = aof.set_aside(self._folder, self._aside)
        log.warning("the first start of the journal was cut off; its files are in %s", aside)

    def _run(self, lock: int, deadline: float) -> None:
        """Start the program, and return when it answers."""
        begin = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                [self._binary, str(self._configuration)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self._folder,
                env=_environment(),
                pass_fds=(lock,),
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self._started_at = time.monotonic()
        self._wait_until_ready(self._process, deadline, begin)
        self._ready_at = time.monotonic()

    def _cut_torn_tail(self) -> bool:
        """Repair what a loss of power leaves at the end of the last file; False: that is not what is wrong."""
        try:
            tail = aof.examine(self._folder, self._binary)
            if tail is None or not tail.is_torn:
                return False
            return aof.cut(tail, self._binary, self._aside) > 0
        except (OSError, subprocess.SubprocessError) as exc:
            log.error("the end of the journal could not be repaired: %s", exc)
            return False

    def _prepare(self) -> None:
        Path(self.socket_path).unlink(missing_ok=True)
        if self._log.exists() and self._log.stat().st_size > MAX_LOG_BYTES:
            self._log.rename(self._log.with_suffix(".log.1"))
        text = _CONFIGURATION.format(
            socket=_quoted(self.socket_path),
            folder=_quoted(self._folder),
            log=_quoted(self._log),
            maxmemory=self._maxmemory_bytes,
        )
        self._configuration.write_text(text)
        self._configuration.chmod(0o600)

    def _take_folder(self, deadline: float) -> int:
        """Return the lock of the folder, which the server inherits; stop whoever has it.

        Raises:
            Failed: it was not given back in time.
        """
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                survivors = self._survivors()
                if time.monotonic() > deadline:
                    os.close(lock)
                    raise Failed(
                        f"{self._folder} is used by another server ({[one.pid for one in survivors] or 'not found'})",
                        code="REDIS_START_FAILED",
                    ) from None
                _stop_all(survivors)
                gevent.sleep(_LOCK_S)

    def _survivors(self) -> list[psutil.Process]:
        """Return the servers that work in our folder: of a daemon that was killed, or one that is rewriting its file."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.cwd() == str(self._folder.resolve()) and process.exe().rpartition("/")[2].startswith(
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
        with self._log.open("rb") as file:
            file.seek(log_from)
            lines = file.read().decode("utf-8", "replace").splitlines()[-_LOG_LINES:]
        said = lines[-1] if lines else "it said nothing"
        if any(_COMPLAINT.search(line) for line in lines[-5:]):
            error = marks.damaged(self._state_dir, f"redis {what}: {said}")
        else:
            error = Failed(f"redis {what}: {said}", code="REDIS_START_FAILED", hint=f"see {self._log}")
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
                log.warning("redis (pid %d) did not end within %g s and is killed", process.pid, timeout_s)
        process.kill()
        process.wait()

    def _rewrite_if_large(self) -> None:
        """Let the server write a short file instead of a long one, where there is room for both."""
        try:
            state = self._client.info("persistence")
            size, base = int(state.get("aof_current_size", 0)), int(state.get("aof_base_size", 0))
            if size <= 2 * base + REWRITE_AT_BYTES or state.get("aof_rewrite_in_progress") == "1":
                return
            found = os.statvfs(self._folder)
            has_room = found.f_bavail * found.f_frsize >= 2 * size
            if not has_room and self._had_room:
                log.warning("%s has no room to rewrite the journal of %d bytes", self._folder, size)
            self._had_room = has_room
            if not has_room:
                return
            if state.get("aof_last_bgrewrite_status") != "ok":
                log.warning("the last rewrite of the journal failed; see %s", self._log)
            self._client.call("BGREWRITEAOF")
        except AgentainerError as exc:
            log.warning("the journal was not rewritten: %s", exc)


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


def _quoted(path: object) -> str:
    """Return a path as a word of the configuration file."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit {code}"
