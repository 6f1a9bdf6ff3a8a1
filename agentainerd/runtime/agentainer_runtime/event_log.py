"""The events of one run, as a file of JSON lines: numbered from 1 by their place, appended, read by any number at a time.

What was written is there after the process was killed; after a loss of power, what came before the last `sync`. Where the
disk takes no more, events are kept in memory, so that readers get the end of the run all the same.
"""

import asyncio
import json
import os
import time
from array import array
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agentainer_runtime.agui import TERMINAL, Event

_TAIL_BYTES = 64 * 1024  # more than the last event of a run has


class EventLog:
    """One file, opened for appending by one process. Used from the event loop's thread only.

    Attributes:
        changed_at: when it was opened, or something was appended; seconds since the epoch.
    """

    def __init__(self, path: Path) -> None:
        """Open the log, or make it; the piece of a line that a crash left at its end is cut off."""
        self._path = path
        self._ends = array("Q")  # where the line of each event ends; event N is between N-2 and N-1 of it
        self._unsaved: list[bytes] = []
        self._changed = asyncio.Event()
        self._last: Event = {}
        self._readers = 0
        self._is_retired = False
        self.changed_at = time.time()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._scan()
        except BaseException:
            os.close(self._file)
            raise

    @property
    def count(self) -> int:
        """The number of the last event, 0 before the first."""
        return len(self._ends) + len(self._unsaved)

    @property
    def is_ended(self) -> bool:
        """The last event is one that ends a run."""
        return self._last.get("type") in TERMINAL

    @property
    def last(self) -> Event:
        """The last event; empty before the first."""
        return self._last

    @property
    def is_failing(self) -> bool:
        """The disk takes no more."""
        return bool(self._unsaved)

    def append(self, event: Event) -> int:
        """Write an event, wake its readers, and return its number. Nothing is added after the event that ends the run."""
        if self.is_ended:
            return self.count
        line = encode(event)
        if self._unsaved or not self._write(line + b"\n"):
            self._unsaved.append(line)
        self._last = event
        self.changed_at = time.time()
        self._changed.set()
        self._changed = asyncio.Event()
        return self.count

    async def sync(self) -> None:
        """Wait until what was written is on the disk."""
        with suppress(OSError):
            await asyncio.to_thread(os.fdatasync, self._file)

    async def follow(self, after: int = 0, *, heartbeat_s: float = 15.0) -> AsyncIterator[tuple[int, bytes] | None]:
        """Give (number, JSON) of every event after `after`, also those to come, up to the one that ends the run.

        None is given where nothing came for `heartbeat_s`. An `after` beyond the end of an ended run gives its last event
        again: a stream always ends with the end of the run.
        """
        number = max(0, after)
        if self.is_ended:
            number = min(number, self.count - 1)
        while True:
            changed = self._changed
            while number < self.count:
                number += 1
                yield number, self._read(number)
            if self.is_ended:
                return
            try:
                await asyncio.wait_for(changed.wait(), heartbeat_s)
            except TimeoutError:
                yield None

    def read(self) -> list[Event]:
        """Return all events up to now."""
        return [json.loads(self._read(number)) for number in range(1, self.count + 1)]

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep the file open for a reader."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            self._close_unused()

    def retire(self) -> None:
        """Nothing more is written: the file is closed when its last reader is done."""
        self._is_retired = True
        self._close_unused()

    def _close_unused(self) -> None:
        if self._is_retired and not self._readers and self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _read(self, number: int) -> bytes:
        if number > len(self._ends):
            return self._unsaved[number - len(self._ends) - 1]
        begin = self._ends[number - 2] if number > 1 else 0
        return os.pread(self._file, self._ends[number - 1] - begin - 1, begin)

    def _write(self, line: bytes) -> bool:
        end = self._ends[-1] if self._ends else 0
        try:
            written = os.write(self._file, line)
        except OSError:
            return False
        if written < len(line):
            with suppress(OSError):
                os.ftruncate(self._file, end)
            return False
        self._ends.append(end + len(line))
        return True

    def _scan(self) -> None:
        """Find where lines end, and cut off what of the last ones is no event: a crash leaves such only at the end."""
        end = 0
        with open(self._path, "rb") as lines:
            for line in lines:
                end += len(line)
                self._ends.append(end)
        while self._ends:
            begin = self._ends[-2] if len(self._ends) > 1 else 0
            last = decode(os.pread(self._file, self._ends[-1] - begin, begin))
            if last is not None:
                self._last = last
                break
            self._ends.pop()
        whole = self._ends[-1] if self._ends else 0
        if whole < end:  # else not: the time of the last change says which runs are the oldest
            os.ftruncate(self._file, whole)


def has_ended(path: Path) -> bool:
    """Whether the log at `path` has the event that ends a run, by a look at its end only.

    Raises:
        OSError: it can't be read.
    """
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        lines = file.read().split(b"\n")
    last = decode(lines[-2] + b"\n") if len(lines) > 1 and not lines[-1] else None
    return last is not None and last.get("type") in TERMINAL


def encode(value: dict[str, Any]) -> bytes:
    """Return JSON on one line; half a surrogate pair, which UTF-8 has no bytes for, becomes a question mark."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")


def decode(line: bytes) -> dict[str, Any] | None:
    """Return what a whole line of JSON says; None where it is not one."""
    if not line.endswith(b"\n"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
