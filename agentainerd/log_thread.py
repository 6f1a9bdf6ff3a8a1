"""A handler for logs that go to a disk: lines are handed to a thread of its own, which may wait for the disk as long as it likes.

The thread and what it waits on are the system's own, not gevent's: neither emitting a record nor writing one ever blocks
the event loop.
"""

import _queue
import logging
from collections import deque
from collections.abc import Callable

import gevent
from gevent import monkey

MAX_WAITING = 5000  # lines
BATCH = 500
_start_thread = monkey.get_original("_thread", "start_new_thread")
_monotonic = monkey.get_original("time", "monotonic")
_allocate_lock = monkey.get_original("_thread", "allocate_lock")

Write = Callable[[bytes], None]


class ThreadHandler(logging.Handler):
    """Formats a record where it is emitted, in any thread, and has it written in its own, in order.

    `write` gets whole lines and may raise OSError: they are lost then, which is counted and logged. Records are kept until
    `start`. `on_written` is called in the event loop of the thread that made the handler, with the lines that were written.

    With `grace_s` a line is given so long to be written before `emit` returns, so that what was logged is there for whoever
    looks; not while others wait, nor after a write that took longer: a slow disk is waited for once.
    """

    def __init__(self, on_written: Callable[[list[bytes]], None] | None = None, *, grace_s: float = 0.0) -> None:
        super().__init__()
        self.on_written = on_written
        self._grace_s = grace_s
        self._is_prompt = True
        self._was_written = _allocate_lock()  # held, but for the moment after a write
        self._was_written.acquire()
        self.trouble = ""
        """Why lines can't be written, "" where they can."""
        self._queue: _queue.SimpleQueue[bytes | None] = _queue.SimpleQueue()
        self._write: Write = _nowhere
        self._dropped = 0
        self._written: deque[list[bytes]] = deque(maxlen=MAX_WAITING // BATCH)
        self._wake = gevent.get_hub().loop.async_(ref=False)
        self._wake.start(self._tell)
        self._is_over = _allocate_lock()

    @property
    def waiting(self) -> int:
        """Lines that wait for the disk."""
        return self._queue.qsize()

    def start(self, write: Write) -> None:
        """Write what was emitted, and what will be."""
        self._write = write
        self._is_over.acquire()
        _start_thread(self._run, ())

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record over. Blocks for `grace_s` at most; beyond MAX_WAITING lines it is dropped, and counted."""
        try:
            line = self.format(record)
        except (TypeError, ValueError):  # %-arguments that do not fit: the line is a bug, and must not be lost
            self.handleError(record)
            return
        if self._queue.qsize() >= MAX_WAITING:
            self._dropped += 1
            return
        waits = self._grace_s > 0 and self._is_prompt and self._write is not _nowhere and self._queue.empty()
        if waits:
            self._was_written.acquire(False)
        self._queue.put(line.encode("utf-8", "backslashreplace") + b"\n")
        if waits and not self._was_written.acquire(timeout=self._grace_s):
            self._is_prompt = False

    def close(self, limit_s: float = 2.0) -> None:
        """Let the thread write what waits and end; blocks the whole process, for `limit_s` at most."""
        if self._write is not _nowhere:
            self._queue.put(None)
            self._is_over.acquire(timeout=limit_s)
            self._write = _nowhere
        self._wake.close()
        super().close()

    def _run(self) -> None:
        """In the thread."""
        while True:
            lines, is_last = self._take()
            if lines:
                began = _monotonic()
                self._try_write(lines)
                self._is_prompt = _monotonic() - began < self._grace_s
                if self._was_written.locked():
                    self._was_written.release()
            if is_last:
                break
        self._is_over.release()

    def _take(self) -> tuple[list[bytes], bool]:
        """Return the lines that wait, at least one, and whether they are the last."""
        lines = []
        line = self._queue.get()
        while line is not None:
            lines.append(line)
            if len(lines) >= BATCH or self._queue.empty():
                return lines, False
            line = self._queue.get()
        return lines, True

    def _try_write(self, lines: list[bytes]) -> None:
        try:
            self._write(b"".join(lines))
        except OSError as exc:
            self._dropped += len(lines)
            if not self.trouble:
                self.trouble = str(exc)
                self._complain(f"the log file can't be written: {exc}")
            return
        self._written.append(lines)
        if self.on_written is not None:
            self._wake.send()
        self.trouble = ""
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._complain(f"{dropped} lines of this log were dropped: the disk was full or slow")

    def _complain(self, text: str) -> None:
        """Log it in every log, as the daemon's own."""
        logging.getLogger(__name__).warning("%s", text)

    def _tell(self) -> None:
        """In the event loop."""
        while self._written:
            lines = self._written.popleft()
            if self.on_written is not None:
                self.on_written(lines)


def _nowhere(lines: bytes) -> None:
    return None
