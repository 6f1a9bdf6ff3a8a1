"""The embedded server: a Redis or Valkey child of the daemon, for the journal alone.

It listens on a Unix socket that only we can open, writes every batch through to the disk before it answers, throws nothing
away, and is started again when it dies (redis_process.py).
"""

import logging
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from agentainerd import defaults, offload
from agentainerd.errors import AgentainerError, Failed
from agentainerd.store import aof, disk, marks
from agentainerd.store.committer import Spawn
from agentainerd.store.connection import RedisClient, socket_url
from agentainerd.store.redis_process import STOP_TIMEOUT_S, Hooks, Place, RedisProcess, quoted

log = logging.getLogger(__name__)

REWRITE_AT_BYTES = 64 * 1024 * 1024  # the append-only file is rewritten where it is so much over twice its base
_COMPLAINT = re.compile(
    r"^(?!.* \* ).*(append[ -]only|append log|AOF|RDB|loading (the )?DB|end of file)", re.IGNORECASE
)
"""A line of its log that is more than a notice (marked by *), and is about the files."""

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
        self._maxmemory_bytes = maxmemory_bytes
        self._client = RedisClient(self.url)
        self._process = RedisProcess(
            binary,
            Place("redis", self._folder, self._log, runtime_dir / "redis.conf", Path(self.socket_path)),
            Hooks(self._prepare, self._explain, self._repair, self._rewrite_if_large, lambda: self.on_restart()),
            self._client,
            spawn,
        )
        self._had_room = True

    @property
    def pid(self) -> int | None:
        """Process id of the server that runs now."""
        return self._process.pid

    @property
    def up_s(self) -> float:
        """For how long the server that runs now has been ready, in seconds; 0.0 where none is."""
        return self._process.up_s

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
        self._process.start(timeout_s)
        disk.sync_folder(self._folder)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End the server: SIGTERM, and SIGKILL after `timeout_s`. What it answered is on the disk either way."""
        self._process.stop(timeout_s)

    # ----

    def _prepare(self) -> str:
        self._require_list()
        self._sync()
        return _CONFIGURATION.format(
            socket=quoted(self.socket_path),
            folder=quoted(self._folder),
            log=quoted(self._log),
            maxmemory=self._maxmemory_bytes,
        )

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

    def _repair(self, error: Failed) -> bool:
        return error.code == "JOURNAL_DAMAGED" and self._cut_torn_tail()

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

    def _explain(self, what: str, lines: list[str]) -> Failed:
        said = lines[-1] if lines else "it said nothing"
        if any(_COMPLAINT.search(line) for line in lines[-5:]):
            return marks.damaged(self._state_dir, f"redis {what}: {said}")
        return Failed(f"redis {what}: {said}", code="REDIS_START_FAILED", hint=f"see {self._log}")

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
