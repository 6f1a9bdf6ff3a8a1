"""Commands in containers that run: for health checks, started and asked for until they end; and for runs, spoken with."""

import contextlib
import time
from collections.abc import Mapping, Sequence

from agentainerd.engine.connection import Connection
from agentainerd.engine.logs import Demultiplexer
from agentainerd.engine.streams import Duplex
from agentainerd.errors import AgentainerError, DeadlineExceeded, Unavailable
from agentainerd.model.containers import LogPiece

FIRST_LOOK_S = 0.02  # doubling
MAX_LOOK_S = 0.5
KILL_TIMEOUT_S = 5.0
_NUMBERED = 'echo "$$"; exec "$0" "$@"'
"""Tells the number of its process in the container, which is that of its group too, and becomes the command."""


class AttachedCommand:
    """One command under way. One greenlet reads; any may send, signal or abort. See Engine.attach."""

    def __init__(self, commands: "Commands", container_id: str, started: str, duplex: Duplex) -> None:
        self._commands = commands
        self._container_id = container_id
        self._started = started
        self._duplex = duplex
        self._frames = Demultiplexer()
        self._group = b""
        self._is_numbered = False

    def read(self, timeout_s: float) -> list[LogPiece]:
        """Return what it wrote since, [] at its end."""
        while True:
            data = self._received(timeout_s)
            if not data:
                return []
            if pieces := [piece for frame in self._frames.feed(data) if (piece := self._without_number(frame)).data]:
                return pieces

    def send(self, data: bytes) -> None:
        """Write to its input."""
        try:
            self._duplex.send(data)
        except OSError as error:
            raise Unavailable(f"the command takes no more input: {error.strerror or error}") from error

    def end_input(self) -> None:
        """Close its input."""
        self._duplex.end_input()

    def exit_code(self) -> int | None:
        """Return how it ended; None: it has not."""
        return self._commands.exit_code(self._container_id, self._started)

    def signal(self, name: str) -> None:
        """Send a signal ("TERM", "KILL") to its whole process group. Raises nothing: what is gone needs none."""
        if not self._is_numbered:
            return
        kill = ["/bin/sh", "-c", f"kill -{name} -{int(self._group)}"]
        with contextlib.suppress(AgentainerError):
            self._commands.run_once(self._container_id, kill, KILL_TIMEOUT_S)

    def abort(self) -> None:
        """Hear nothing more of it."""
        self._duplex.abort()

    def close(self) -> None:
        """Let go of it; it goes on. For the greenlet that reads."""
        self._duplex.close()

    def _received(self, timeout_s: float) -> bytes:
        try:
            return self._duplex.read(timeout_s)
        except TimeoutError:
            raise DeadlineExceeded(f"the command wrote nothing for {timeout_s:g} s") from None
        except (OSError, ValueError):
            return b""

    def _without_number(self, piece: LogPiece) -> LogPiece:
        if self._is_numbered or piece.stream != "stdout":
            return piece
        group, end, rest = (self._group + piece.data).partition(b"\n")
        self._group = group
        self._is_numbered = bool(end) and group.isdigit()
        return LogPiece(piece.stream, rest)


class Commands:
    """The commands of one engine. Safe from any greenlet, where one at a time asks for a container."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._overdue: dict[str, str] = {}  # container: the command in it that did not end in time

    def run(self, container_id: str, command: Sequence[str], timeout_s: float) -> int:
        """See Engine.execute."""
        before = self._overdue.get(container_id)
        if before and self.exit_code(container_id, before) is None:
            raise DeadlineExceeded("the command before it still runs")
        self._overdue.pop(container_id, None)
        code, started = self.run_once(container_id, command, timeout_s)
        if code is None:
            self._overdue[container_id] = started
            raise DeadlineExceeded(f"the command did not end within {timeout_s:g} s")
        return code

    def run_once(self, container_id: str, command: Sequence[str], timeout_s: float) -> tuple[int | None, str]:
        """Run a command, whatever else runs there; return its exit code, None if it has not ended in time, and its name."""
        end = time.monotonic() + timeout_s
        with self._connection.calling("run a command in", "container", container_id) as client:
            started: str = client.exec_create(container_id, list(command), stdout=False, stderr=False)["Id"]
            client.exec_start(started, detach=True)
        look_s = FIRST_LOOK_S
        while (code := self.exit_code(container_id, started)) is None and time.monotonic() < end:
            time.sleep(look_s)
            look_s = min(look_s * 2, MAX_LOOK_S)
        return code, started

    def attach(self, container_id: str, command: Sequence[str], environment: Mapping[str, str]) -> AttachedCommand:
        """See Engine.attach."""
        numbered = ["/bin/sh", "-c", _NUMBERED, *command]
        with self._connection.calling("run a command in", "container", container_id):
            started, duplex = self._connection.attach(container_id, numbered, environment)
        return AttachedCommand(self, container_id, started, duplex)

    def exit_code(self, container_id: str, started: str) -> int | None:
        """Return how a command ended; None: it has not."""
        with self._connection.calling("run a command in", "container", container_id) as client:
            found = client.exec_inspect(started)
        return None if found["Running"] else int(found["ExitCode"] or 0)
