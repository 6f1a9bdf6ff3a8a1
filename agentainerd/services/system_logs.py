"""The daemon's own log for whoever reads it: what is in the files, what comes, and the same on a channel of Redis."""

from collections import deque
from collections.abc import Callable, Generator, Iterator

import msgspec
from gevent.event import Event as Signal

from agentainerd import defaults, offload
from agentainerd.errors import Unavailable
from agentainerd.model.system_logs import Entry, LogFilter
from agentainerd.store.system_logs import LogChannel, LogFiles, Position

MAX_UNPUBLISHED = 1000  # lines
BATCH = 100

Spawn = Callable[..., object]
_read = msgspec.json.Decoder(Entry).decode


class SystemLogService:
    """Every method may be called from any greenlet. An entry is a dictionary: time, level, component, message, and more."""

    def __init__(self, files: LogFiles, channel: LogChannel, spawn: Spawn) -> None:
        self._files = files
        self._channel = channel
        self._spawn = spawn
        self._unpublished: deque[bytes] = deque(maxlen=MAX_UNPUBLISHED)
        self._is_publishing = False
        self._written = Signal()

    def written(self, lines: list[bytes]) -> None:
        """Lines were added to the files: tell those who follow, and Redis. Does not block."""
        self._written, written = Signal(), self._written
        written.set()
        self._unpublished.extend(line.rstrip(b"\n") for line in lines)
        if not self._is_publishing:
            self._is_publishing = True
            self._spawn("log channel", self._publish)

    def last(self, limit: int, wanted: LogFilter) -> list[dict[str, object]]:
        """Return the last `limit` entries that are asked for, oldest first."""
        return self._last(limit, wanted)[0]

    def read(self, wanted: LogFilter) -> Generator[dict[str, object], None, None]:
        """Return the entries that are asked for, oldest first."""
        position = offload.run(self._files.begin, wanted.since)
        while True:
            lines, position = offload.run(self._files.read, position)
            if not lines:
                return
            yield from _entries(lines, wanted)

    def follow(self, limit: int | None, wanted: LogFilter) -> Generator[dict[str, object] | None, None, None]:
        """Return the last `limit` entries that are asked for (None: all), and those that come; None is "still here"."""
        if limit is None:
            position = offload.run(self._files.begin, wanted.since)
        else:
            entries, position = self._last(limit, wanted)
            yield from entries
        yield None  # whoever waits for the beginning knows that from here on nothing is missed
        while True:
            written = self._written
            lines, position = offload.run(self._files.read, position)
            yield from _entries(lines, wanted)
            if not lines and not written.wait(defaults.LOG_HEARTBEAT_S):
                yield None

    def _last(self, limit: int, wanted: LogFilter) -> tuple[list[dict[str, object]], Position]:
        """Return the last entries, and the place after all that was read."""
        end: Position | None = None
        found: list[dict[str, object]] = []
        for start in offload.run(self._files.starts):
            kept: deque[dict[str, object]] = deque(maxlen=limit - len(found))
            position = start
            while True:
                lines, after = offload.run(self._files.read, position)
                if not lines or (end is not None and after.head != start.head):
                    break
                position = after
                kept.extend(_entries(lines, wanted))
            end = end or position
            found = [*kept, *found]
            if len(found) >= limit:
                break
        return found, end or Position()

    def _publish(self) -> None:
        """Tell Redis what waits, then end; what it does not take is gone, as with all that is told on a channel."""
        try:
            while self._unpublished:
                lines = [self._unpublished.popleft() for _ in range(min(BATCH, len(self._unpublished)))]
                self._channel.publish(lines)
        except Unavailable:
            self._unpublished.clear()
        finally:
            self._is_publishing = False


def _entries(lines: list[bytes], wanted: LogFilter) -> Iterator[dict[str, object]]:
    """Return what is asked for; a line that broke off when the machine went down is none."""
    for line in lines:
        try:
            if wanted.matches(_read(line)):
                yield msgspec.json.decode(line)
        except msgspec.DecodeError:
            continue
