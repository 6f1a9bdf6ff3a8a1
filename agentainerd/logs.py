"""The daemon's own log: on standard error as text for people or as JSON, and in a file always as JSON, one object a line.

Nothing here waits. A pipe, a terminal or journald gets a line at once where the other end takes it; where it does not (a full
pipe, a stopped terminal) the line waits in a bounded backlog. What goes to a disk is written by a thread (log_thread.py).
What does not fit is counted and said later. Fields given as `extra={"agent_id": ...}` are in both formats, those of
log_context.py in JSON. Callers never log secrets; what looks like a credential all the same is masked.
"""

import json
import logging
import os
import re
import select
import stat
import time
from collections import deque
from datetime import UTC, datetime

import gevent
from gevent import monkey

from agentainerd import log_context
from agentainerd.log_thread import ThreadHandler

MAX_BACKLOG_LINES = 2000
RETRY_S = 0.1
_PIECE_BYTES = 4096  # PIPE_BUF: a pipe that is writable takes this much without blocking
_STANDARD = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"))
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
CONSOLE_GRACE_S = 0.005
MAX_TEXT_CHARS = 16_384  # of a message, a field or a traceback in JSON
_SECRETS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"), r"\1 ***"),
    (re.compile(r"(://[^/\s:@\"']*):[^/\s@\"']+@"), r"\1:***@"),
    (re.compile(r"(?i)([?&;](?:t|token|key|api_?key|password|secret)=)[^&\s\"'\\]+"), r"\1***"),
)
"""What credentials look like in text: of HTTP, in a URL, in its query."""
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
        parts += [f"{name}={str(value).translate(_CONTROL)}" for name, value in _given(record).items()]
        line = " ".join(parts)
        if self._journald:
            line = f"<{_PRIORITIES.get(record.levelno, 6)}>{line}"
        else:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
            line = f"{stamp}.{int(record.msecs):03d} {record.levelname:<7} {line}"
        if record.exc_info and record.exc_info[0]:
            line += "\n    " + self.formatException(record.exc_info).replace("\n", "\n    ")
        return masked(line)


class JsonFormatter(logging.Formatter):
    """One object a line: time (RFC 3339, UTC, microseconds), level, component, message, the extra fields, traceback.

    The component is the module without "agentainerd.": "store.journal"; of a library its own name.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC)
        fields: dict[str, object] = {
            "time": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "level": record.levelname.lower(),
            "component": record.name.removeprefix("agentainerd."),
            "message": _cut(record.getMessage()),
        }
        for name, value in (*_given(record).items(), *log_context.current().items()):
            fields.setdefault(name, _cut(value) if isinstance(value, str) else value)
        if record.exc_info and record.exc_info[0]:
            fields["traceback"] = _cut(self.formatException(record.exc_info))
        return masked(json.dumps(fields, default=str, ensure_ascii=False, separators=(",", ":")))


def masked(text: str) -> str:
    """Return text without what looks like a credential."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class Logs:
    """All logging of this process, from its making to `close`: standard error, or `descriptor`, and a file once there is one."""

    def __init__(self, level: str, style: str, descriptor: int = 2) -> None:
        self.file = ThreadHandler()
        """For the file: keeps what is logged until it is started."""
        self.file.setFormatter(JsonFormatter())
        self._descriptor = descriptor
        self.console: LineHandler | ThreadHandler
        if stat.S_ISREG(os.fstat(descriptor).st_mode):  # a disk may be slow, and poll does not know
            self.console = ThreadHandler(grace_s=CONSOLE_GRACE_S)
            self.console.start(self._write_console)
        else:
            self.console = LineHandler(descriptor)
        logging.getLogger().handlers[:] = [self.console, self.file]
        logging.captureWarnings(True)
        self.configure(level, style)

    def configure(self, level: str, style: str) -> None:
        """Set level (debug, info, warning, error) and style (text, json); libraries are heard from warning on."""
        is_journal = isinstance(self.console, LineHandler) and self.console.is_journal
        self.console.setFormatter(JsonFormatter() if style == "json" else TextFormatter(journald=is_journal))
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("agentainerd").setLevel(level.upper())

    @property
    def warnings(self) -> list[str]:
        """Return what an administrator should know."""
        return [f"the log file can't be written: {self.file.trouble}"] if self.file.trouble else []

    def close(self) -> None:
        """Write what waits, for two seconds at most."""
        self.file.close()
        self.console.close()

    def _write_console(self, lines: bytes) -> None:
        left = memoryview(lines)
        while left:
            left = left[os.write(self._descriptor, left) :]


def _given(record: logging.LogRecord) -> dict[str, object]:
    """Return the fields that the caller added."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else text[:MAX_TEXT_CHARS] + "..."
