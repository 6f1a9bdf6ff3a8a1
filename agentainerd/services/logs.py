"""Reading what an agent writes. A follow goes on across restarts of the agent and of the engine, until the agent is removed.

While following, every line is asked for with its time: that of the last line says where to go on, so that no line comes
twice and none is left out.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from agentainerd.engine.engine import Engine, Stream
from agentainerd.errors import NotFound, Unavailable
from agentainerd.model.agents import Agent
from agentainerd.model.containers import Container, ContainerState, LogPiece
from agentainerd.services.fleet import Fleet

PAUSE_S = 1.0
STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ?")


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What to read. `tail`: the last lines only; `since`: epoch seconds; `stream`: "stdout", "stderr" or "" for both.

    `replica`: of which one; 0: of all.
    """

    follow: bool = False
    tail: int | None = None
    since: float = 0.0
    timestamps: bool = False
    stream: str = ""
    replica: int = 0


@dataclass(frozen=True, slots=True)
class Notice:
    """A word of ours between the agent's lines."""

    text: str


class LogReader:
    """A replica's output, piece by piece. Whoever got it iterates over it once and calls `close`.

    Raises:
        Unavailable: the engine does not answer, at once; later on, a follow waits for it.
    """

    def __init__(self, fleet: Fleet, engine: Engine, agent: Agent, options: LogOptions, number: int = 1) -> None:
        self._fleet = fleet
        self._engine = engine
        self._agent = agent
        self._number = number
        self._options = options
        self._position = _Position(options)
        self._is_closed = False
        self._run: tuple[str, float] = ("", 0.0)
        self._stream: Stream[LogPiece] | None = None
        if container_id := agent.replica(number).container_id:
            self._open(container_id, tail=options.tail, since=options.since)

    def __iter__(self) -> Iterator[LogPiece | Notice]:
        """Return the pieces as they come.

        Raises:
            Unavailable: the engine went away; never of a follow.
        """
        while True:
            yield from self._read()
            if not self._options.follow:
                return
            notice = self._wait_for_more()
            if notice is None:
                return
            if notice.text:
                yield notice

    def close(self) -> None:
        """End it, from any greenlet."""
        self._is_closed = True
        if self._stream is not None:
            self._stream.close()

    def _open(self, container_id: str, *, tail: int | None, since: float) -> None:
        options = self._options
        try:
            container = self._engine.inspect(container_id)
            stream = self._engine.logs(
                container_id,
                follow=options.follow,
                tail=tail,
                since=since,
                timestamps=options.timestamps or options.follow,
            )
        except NotFound:
            return  # removed from outside; a follow waits for the next one
        self._run = _run_of(container)
        self._stream = stream
        if self._is_closed:
            stream.close()

    def _read(self) -> Iterator[LogPiece]:
        stream = self._stream
        if stream is None:
            return
        try:
            for piece in stream:
                if self._options.stream and piece.stream != self._options.stream:
                    continue
                data = self._position.take(piece.data) if self._options.follow else piece.data
                if data:
                    yield LogPiece(piece.stream, data)
        except Unavailable:
            if not self._options.follow:
                raise
        finally:
            stream.close()
            self._stream = None

    def _wait_for_more(self) -> Notice | None:
        """Block until there can be more to read, and open it; None: there never will be."""
        while not self._is_closed:
            try:
                replica = self._fleet.store.get(self._agent.id).replica(self._number)
                container = self._engine.inspect(replica.container_id) if replica.container_id else None
            except NotFound as error:
                if error.noun in ("agent", "replica"):
                    return None
                container = None
            except Unavailable:
                container = None
            if container is not None and container.state in (ContainerState.RUNNING, ContainerState.PAUSED):
                is_new = _run_of(container) != self._run
                if container.id != self._run[0]:
                    self._position.begin_anew()
                if not is_new:
                    self._fleet.wait_for_change(self._agent.id, PAUSE_S)  # the stream broke, not the run
                try:
                    self._open(container.id, tail=None, since=self._position.since())
                except Unavailable:
                    continue
                return Notice("the agent was started again") if is_new else Notice("")
            self._fleet.wait_for_change(self._agent.id, PAUSE_S)
        return None


class _Position:
    """How far a follow has come: drops lines that come a second time, and the times that nobody asked for."""

    def __init__(self, options: LogOptions) -> None:
        self._shows_times = options.timestamps
        self._last = b""
        self._since = options.since
        self._start = options.since if options.tail is None else max(options.since, time.time())
        self._is_reopened = False

    def begin_anew(self) -> None:
        """What follows is of another container, which may have begun to write while the one before still did."""
        self._last = b""
        self._start = self._since

    def since(self) -> float:
        """Return where to open the next stream, in epoch seconds; what comes before its end is dropped by `take`."""
        self._is_reopened = True
        if not self._last:
            return self._start
        return datetime.fromisoformat(self._last.decode()[:19] + "+00:00").timestamp()

    def take(self, data: bytes) -> bytes:
        """Return what of a piece is new."""
        kept = []
        for line in data.splitlines(keepends=True):
            match = STAMP.match(line)
            if not match:
                kept.append(line)
                continue
            stamp = match.group(1) + b"." + (match.group(2) or b"").ljust(9, b"0")
            if self._is_reopened and stamp <= self._last:
                continue
            self._last = max(stamp, self._last)
            kept.append(line if self._shows_times else line[match.end() :])
        return b"".join(kept)


def _run_of(container: Container) -> tuple[str, float]:
    return container.id, container.started_at
