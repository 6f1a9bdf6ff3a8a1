"""The audit log: who changed what, when, from where, and how it ended. One JSON object a line, appended, mode 0600.

Every mutation is written here, in services, once; failed logins too, the first at once and then one summary a minute for
each source. Never a token, a value of a variable or a body. A line that cannot be written does not undo what it tells of:
the log says so, and `trouble` does until a line gets through.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from agentainerd.errors import AgentainerError

log = logging.getLogger(__name__)

SUMMARY_S = 60.0
MAX_SOURCES = 1000
MAX_TEXT_CHARS = 256


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something: `name` such as "unix:0(root)/pid 123", "token" or "daemon"; `source` an address or a socket."""

    name: str
    source: str = ""


DAEMON = Actor("daemon", "internal")


class Entry:
    """A mutation under way; its `target` may be made more exact until it ends."""

    __slots__ = ("target",)

    def __init__(self, target: str) -> None:
        self.target = target


@dataclass(slots=True)
class _Refusals:
    """Refusals of one kind from one source since the last line about them."""

    since: float
    count: int


class AuditService:
    """Appends to `path`. Every method may be called from any greenlet; a write is one small system call."""

    def __init__(self, path: str) -> None:
        self.trouble = ""
        """Why the last line could not be written; "" where it was."""
        self._path = path
        self._file = -1
        self._lock = threading.Lock()
        self._refusals: dict[tuple[str, str], _Refusals] = {}

    def record(self, actor: Actor, action: str, target: str, result: str = "ok") -> None:
        """Append a line. `action` such as "start_agent"; `result` is "ok" or an error's code."""
        self._append(
            {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "actor": actor.name[:MAX_TEXT_CHARS],
                "source": actor.source[:MAX_TEXT_CHARS],
                "action": action,
                "target": target[:MAX_TEXT_CHARS],
                "result": result,
            }
        )

    @contextmanager
    def mutation(self, actor: Actor, action: str, target: str) -> Iterator[Entry]:
        """Append one line when the block ends: "ok", or the code of the error that it raises."""
        entry = Entry(target)
        try:
            yield entry
        except AgentainerError as error:
            self.record(actor, action, entry.target, error.code)
            raise
        except Exception:
            self.record(actor, action, entry.target, "INTERNAL")
            raise
        self.record(actor, action, entry.target)

    def refuse(self, actor: Actor, action: str, target: str = "", *, now: float | None = None) -> None:
        """Note a refused access: a line for the first one of a source, then a count that `flush` writes."""
        moment = time.time() if now is None else now
        key = (actor.source, action)
        seen = self._refusals.get(key)
        if seen is None and len(self._refusals) >= MAX_SOURCES:
            key = ("others", action)
            seen = self._refusals.get(key)
        if seen is not None:
            seen.count += 1
            return
        self._refusals[key] = _Refusals(moment, 0)
        self.record(actor, action, target, "refused")

    def flush(self, now: float) -> int:
        """Write the summaries that are due; return how many. `now`: epoch seconds."""
        written = 0
        for key, seen in list(self._refusals.items()):
            if now - seen.since < SUMMARY_S:
                continue
            del self._refusals[key]
            if seen.count:
                source, action = key
                self.record(Actor("anonymous", source), action, f"{seen.count} more", "refused")
                self._refusals[key] = _Refusals(now, 0)
                written += 1
        return written

    def close(self) -> None:
        """Close the file; a later line opens it again."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _append(self, fields: dict[str, str]) -> None:
        line = json.dumps(fields, ensure_ascii=True).encode() + b"\n"
        try:
            with self._lock:
                if self._file < 0:
                    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                    self._file = os.open(self._path, flags, 0o600)
                os.write(self._file, line)
        except OSError as exc:
            if not self.trouble:
                log.error("the audit log cannot be written: %s", exc)
            self.trouble = f"the audit log {self._path} cannot be written: {exc.strerror}"
        else:
            self.trouble = ""
