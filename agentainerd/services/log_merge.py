"""The output of all replicas of an agent as one: by time where it is read to its end, as it comes while it is followed."""

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from gevent.queue import Empty, Full, Queue

from agentainerd.engine.engine import Engine
from agentainerd.errors import AgentainerError
from agentainerd.model.agents import Agent
from agentainerd.model.containers import LogPiece
from agentainerd.services.fleet import Fleet
from agentainerd.services.logs import STAMP, LogOptions, LogReader, Notice

MAX_WAITING = 64  # pieces of all replicas that nobody has read yet
LOOK_S = 1.0  # so soon whoever waits at the queue notices that it was closed
_END = object()


@dataclass(frozen=True, slots=True)
class Told:
    """A piece of the output of one replica."""

    replica: int
    piece: LogPiece | Notice


class LogMerge:
    """As a LogReader, of several replicas. Whoever got it iterates over it once and calls `close`.

    A follow reads the replicas that there are when it begins; `spawn` starts a greenlet for each.
    """

    def __init__(
        self, fleet: Fleet, engine: Engine, agent: Agent, options: LogOptions, spawn: Callable[..., object]
    ) -> None:
        self._options = options
        self._spawn = spawn
        self._queue: Queue = Queue(MAX_WAITING)
        self._readers: dict[int, LogReader] = {}
        self._is_closed = False
        inner = options if options.follow else replace(options, timestamps=True)
        try:
            for each in agent.replicas:
                self._readers[each.number] = LogReader(fleet, engine, agent, inner, each.number)
        except AgentainerError:
            self.close()
            raise

    def __iter__(self) -> Iterator[Told]:
        """Return the pieces; raises as LogReader."""
        return self._followed() if self._options.follow else self._merged()

    def close(self) -> None:
        """End it, from any greenlet."""
        self._is_closed = True
        for reader in self._readers.values():
            reader.close()

    def _merged(self) -> Iterator[Told]:
        lines = [self._lines(number, reader) for number, reader in self._readers.items()]
        merged = heapq.merge(*lines, key=lambda entry: entry[:2])
        for stamp, number, stream, line in merged if self._options.tail is None else deque(merged, self._options.tail):
            text = stamp + b" " + line if self._options.timestamps and stamp else line
            yield Told(number, LogPiece(stream, text))

    def _lines(self, number: int, reader: LogReader) -> Iterator[tuple[bytes, int, str, bytes]]:
        for piece in reader:
            if isinstance(piece, LogPiece):
                for line in piece.data.splitlines(keepends=True):
                    stamp, _, text = line.partition(b" ") if STAMP.match(line) else (b"", b"", line)
                    yield stamp, number, piece.stream, text

    def _followed(self) -> Iterator[Told]:
        for number, reader in self._readers.items():
            self._spawn(f"log of replica {number}", self._follow, number, reader)
        ended = 0
        while ended < len(self._readers) and not self._is_closed:
            try:
                told = self._queue.get(timeout=LOOK_S)
            except Empty:
                continue
            if isinstance(told, Told):
                yield told
            else:
                ended += 1

    def _follow(self, number: int, reader: LogReader) -> None:
        try:
            for piece in reader:
                self._put(Told(number, piece))
        finally:
            self._put(_END)

    def _put(self, item: object) -> None:
        while not self._is_closed:
            with suppress(Full):
                self._queue.put(item, timeout=LOOK_S)
                return
