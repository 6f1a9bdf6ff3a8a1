"""The daemon's own log on standard error: text for people, or one JSON object a line.

A line is written at once where the other end takes it; where it does not (a full pipe, a stopped terminal) it waits in
a bounded backlog, and greenlets run on. What does not fit is counted and said later. Fields given as
`extra={"agent_id": ...}` are kept in both formats. Nothing here knows which values are secret: callers never log them.
"""

import json
import logging
import os
import select
import time
from collections import deque

import gevent
from gevent import monkey

MAX_BACKLOG_LINES = 2000
RETRY_S = 0.1
_PIECE_BYTES = 4096  # PIPE_BUF: a pipe that is writable takes this much without blocking
_STANDARD = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"))
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {10: "\\n", 13: "\\r", 9: "\\t"}


class LineHandler(logging.Handler):
    """Writes formatted records to a file descriptor without ever blocking the hub.

    Used by greenlets of the thread that made it; a record from another thread is written too, but not retried.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._backlog: deque[bytes] = deque()
        self._dropped = 0
        self._poll = monkey.get_original("select", "poll")()
        self._poll.register(descriptor, select.POLLOUT)
        self._home = monkey.get_original("_thread", "get_ident")()
        self._timer = gevent.get_hub().loop.timer(RETRY_S, RETRY_S, ref=False)

    @property
    def backlog(self) -> int:
        """Lines that wait."""
        return len(self._backlog)

    @property
    def is_journal(self) -> bool:
        """The other end is systemd's journal (systemd.exec(5), JOURNAL_STREAM)."""
        there = os.fstat(self._descriptor)
        return os.environ.get("JOURNAL_STREAM") == f"{there.st_dev}:{there.st_ino}"

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, behind those that wait."""
        try:
            line = self.format(record)
        except (TypeError, ValueError):  # %-arguments that do not fit: the line is a bug, and must not be lost
            self.handleError(record)
            return
        if len(self._backlog) >= MAX_BACKLOG_LINES:
            self._dropped += 1
        else:
            self._backlog.append(line.encode("utf-8", "backslashreplace") + b"\n")
        self._write()
        if self._backlog and not self._timer.active and monkey.get_original("_thread", "get_ident")() == self._home:
            self._timer.start(self._write)

    def flush(self, limit_s: float = 0.0) -> None:
        """Write what waits; blocks the whole process up to `limit_s` seconds, so it is for the very end."""
        end = time.monotonic() + limit_s
        self._write()
        while self._backlog and (left := end - time.monotonic()) > 0:
            self._poll.poll(left * 1000)
            self._write()

    def close(self) -> None:
        """Give the last lines half a second."""
        self.flush(0.5)
        self._timer.close()
        super().close()

    def _write(self) -> None:
        while self._backlog and self._is_writable():
            piece, rest = self._backlog[0][:_PIECE_BYTES], self._backlog[0][_PIECE_BYTES:]
            try:
                written = os.write(self._descriptor, piece)
            except BlockingIOError:
                break
            except OSError:  # nobody will ever read it
                self._backlog.clear()
                break
            rest = piece[written:] + rest
            if rest:
                self._backlog[0] = rest
                continue
            self._backlog.popleft()
            if self._dropped and len(self._backlog) < MAX_BACKLOG_LINES // 2:
                self._backlog.append(b"(%d lines of this log were dropped: nobody read it)\n" % self._dropped)
                self._dropped = 0
        if not self._backlog and self._timer.active:
            self._timer.stop()

    def _is_writable(self) -> bool:
        events = self._poll.poll(0)
        return bool(events) and bool(
            events[0][1] & (select.POLLOUT | select.POLLERR | select.POLLHUP | select.POLLNVAL)
        )


class TextFormatter(logging.Formatter):
    """`2026-11-20 22:03:42.123 INFO agent started agent_id=agent-1`; under journald its priority instead of the time."""

    def __init__(self, *, journald: bool = False) -> None:
        super().__init__()
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; control characters are escaped, a traceback follows indented."""
        parts = [record.getMessage().translate(_CONTROL)]
        parts += [f"{name}={str(value).translate(_CONTROL)}" for name, value in extras(record).items()]
        line = " ".join(parts)
        if self._journald:
            line = f"<{_PRIORITIES.get(record.levelno, 6)}>{line}"
        else:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
            line = f"{stamp}.{int(record.msecs):03d} {record.levelname:<7} {line}"
        if record.exc_info and record.exc_info[0]:
            line += "\n    " + self.formatException(record.exc_info).replace("\n", "\n    ")
        return line


class JsonFormatter(logging.Formatter):
    """One object a line: time (RFC 3339, UTC), level, logger, message, the extra fields, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **extras(record),
        }
        if record.exc_info and record.exc_info[0]:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str, ensure_ascii=False)


def extras(record: logging.LogRecord) -> dict[str, object]:
    """Return the fields that the caller added."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def start(level: str, style: str, descriptor: int = 2) -> LineHandler:
    """Send all logging to `descriptor` (default: standard error) and return the handler, to be closed at the end."""
    handler = LineHandler(descriptor)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    logging.captureWarnings(True)
    configure(handler, level, style)
    return handler


def configure(handler: LineHandler, level: str, style: str) -> None:
    """Set level (debug, info, warning, error) and style (text, json); libraries are heard from warning on."""
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter(journald=handler.is_journal))
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("agentainerd").setLevel(level.upper())
