"""The audit log: who changed what, when, from where, and how it ended.

Every mutation is written here, in services, once, and is on disk before it is answered: concurrent ones share one sync. Failed
logins too, the first of a source at once and then one summary a minute. Never a token, a value of a variable or a body.
Where the log can't be written nothing is changed: what was under way is answered with an error, and nothing new begins.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gevent.event import AsyncResult

from agentainerd import defaults
from agentainerd.errors import AgentainerError, Unavailable
from agentainerd.model.audit import AuditEntry, AuditFilter, ChainCheck, Link, moment
from agentainerd.store.audit import AuditFile

log = logging.getLogger(__name__)

SUMMARY_S = 60.0
EXPIRE_S = 600.0
MAX_SOURCES = 100
"""Refused ones that have lines of their own in a minute: more share one, so that nobody fills the disk."""
MAX_TEXT_CHARS = 256

Spawn = Callable[..., object]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something: `name` such as "unix:0(root)/pid 123", "token:ci" or "daemon"; `source` an address or a socket.

    `request_id` is that of the request by which it was asked for.
    """

    name: str
    source: str = ""
    request_id: str = ""

    @property
    def user(self) -> str:
        """Who it is, whichever of their programs asks."""
        return self.name.partition("/pid ")[0]


DAEMON = Actor("daemon", "internal")


class Entry:
    """A mutation under way; its `target` may be made more exact until it ends."""

    __slots__ = ("target",)

    def __init__(self, target: str) -> None:
        self.target = target


@dataclass(frozen=True, slots=True)
class AuditLimits:
    """`file_bytes`: at which size a file is full. `keep_bytes`, `keep_s`: what is kept of the full ones, at most."""

    file_bytes: int = defaults.AUDIT_FILE_BYTES
    keep_bytes: int = defaults.AUDIT_KEEP_BYTES
    keep_s: float = defaults.AUDIT_KEEP_S


@dataclass(slots=True)
class _Refusals:
    """Refusals of one kind from one source since the last line about them."""

    since: float
    count: int


class AuditService:
    """Writes to `file`, in a greenlet that `spawn(name, function)` starts. Every method may be called from any greenlet.

    `limits` may be replaced at any time.
    """

    def __init__(self, file: AuditFile, spawn: Spawn, limits: AuditLimits | None = None) -> None:
        self.limits = limits or AuditLimits()
        self.trouble = ""
        """Why the last entries could not be written; "" where they were."""
        self._file = file
        self._spawn = spawn
        self._waiting: list[tuple[AuditEntry, AsyncResult]] = []
        self._is_writing = False
        self._refusals: dict[tuple[str, str, str], _Refusals] = {}
        self._expired_at = 0.0
        self._told = Link(0, "")

    def open(self) -> None:
        """Look at what the last run left, and say so in the log; what can't be written is trouble, and no error."""
        self._commit([])

    def record(self, actor: Actor, action: str, target: str, result: str = "ok") -> None:
        """Write an entry; blocks until it is on disk. `action` such as "start_agent"; `result` is "ok" or an error's code.

        Raises:
            Unavailable: it isn't (code AUDIT_UNAVAILABLE); it will be written when that is possible again.
        """
        if failure := self._enqueue(actor, action, target, result).get():
            raise _not_written(action, target, failure)

    def require(self) -> None:
        """See to it that a change which begins now can be recorded; blocks only where the last one could not.

        Raises:
            Unavailable: it can't (code AUDIT_UNAVAILABLE).
        """
        if self.trouble:
            self._commit([])
        if self.trouble:
            raise Unavailable(
                f"nothing is changed while changes can't be recorded: {self.trouble}",
                code="AUDIT_UNAVAILABLE",
                hint="make room on the disk of the state folder, or see what the daemon's log says",
            )

    @contextmanager
    def mutation(self, actor: Actor, action: str, target: str) -> Iterator[Entry]:
        """Write one entry when the block ends: "ok", or the code of the error that it raises.

        Raises:
            Unavailable: entries can't be written (code AUDIT_UNAVAILABLE): nothing was begun, or, as the message says, it was
                done and is not on record yet.
        """
        self.require()
        entry = Entry(target)
        try:
            yield entry
        except AgentainerError as error:
            self._enqueue(actor, action, entry.target, error.code).get()
            raise
        except Exception:
            self._enqueue(actor, action, entry.target, "INTERNAL").get()
            raise
        except BaseException:
            self._enqueue(actor, action, entry.target, "INTERRUPTED")  # nobody waits for the answer any more
            raise
        self.record(actor, action, entry.target)

    def note(self, actor: Actor, action: str, target: str) -> None:
        """Have an entry written that nobody waits for. Never blocks."""
        self._enqueue(actor, action, target, "ok")

    def refuse(self, actor: Actor, action: str, target: str = "", *, now: float | None = None) -> None:
        """Note a refused access: an entry for the first one of a source, then a count that `flush` writes. Never blocks."""
        at = time.time() if now is None else now
        key = (actor.name, actor.source, action)
        seen = self._refusals.get(key)
        if seen is None and len(self._refusals) >= MAX_SOURCES:
            key = ("anonymous", "others", action)
            seen = self._refusals.get(key)
        if seen is not None:
            seen.count += 1
            return
        self._refusals[key] = _Refusals(at, 0)
        self._enqueue(actor, action, target, "refused")

    def flush(self, now: float) -> int:
        """Write the summaries that are due; return how many. `now`: epoch seconds. Does not wait for the disk."""
        written = 0
        for key, seen in list(self._refusals.items()):
            if now - seen.since < SUMMARY_S:
                continue
            del self._refusals[key]
            if seen.count:
                name, source, action = key
                self._enqueue(Actor(name, source), action, f"{seen.count} more", "refused")
                self._refusals[key] = _Refusals(now, 0)
                written += 1
        return written

    def expire(self, now: float) -> int:
        """Remove full files that are too many or too old, and tell the daemon's log where the chain is, every EXPIRE_S; return
        how many were removed. `now`: epoch seconds.

        The log may go to another machine, where nobody who replaces files here gets at it.
        """
        if now - self._expired_at < EXPIRE_S:
            return 0
        self._expired_at = now
        limits = self.limits
        self._file.max_file_bytes = limits.file_bytes
        try:
            gone = self._file.expire(limits.keep_bytes, moment(now - limits.keep_s))
        except OSError as exc:
            raise Unavailable(
                f"old entries of the audit log can't be removed: {exc}", code="AUDIT_UNAVAILABLE"
            ) from exc
        head = self._file.head
        if head != self._told:
            self._told = head
            log.info("the audit log is at entry %d", head.seq, extra={"seal": head.mac})
        return len(gone)

    def page(self, wanted: AuditFilter, limit: int, cursor: str = "") -> tuple[list[AuditEntry], str]:
        """Return the newest entries that are asked for, newest first, and the cursor of the next page, "" at the end.

        Raises:
            InvalidParameter: `cursor` is none. Unavailable: the log can't be read.
        """
        try:
            with self._file.view() as view:
                return view.page(wanted, limit, cursor)
        except OSError as exc:
            raise _not_read(exc) from exc

    def verify(self) -> ChainCheck:
        """Read the whole chain, and return where it is broken. Raises Unavailable: the log can't be read."""
        try:
            with self._file.view() as view:
                return view.check()
        except OSError as exc:
            raise _not_read(exc) from exc

    def close(self) -> None:
        """Write what waits, and close the file; a later entry opens it again."""
        if self._waiting:
            self._write()
        self._file.close()

    def _enqueue(self, actor: Actor, action: str, target: str, result: str) -> AsyncResult:
        """Have an entry written; the result that is returned gets None when it is on disk, or why it is not."""
        entry = AuditEntry(
            time=moment(time.time()),
            actor=_text(actor.name),
            address=_text(actor.source),
            action=action,
            resource=_text(target),
            result=result,
            request_id=_text(actor.request_id),
        )
        done = AsyncResult()
        self._waiting.append((entry, done))
        if not self._is_writing:
            self._is_writing = True
            self._spawn("audit", self._write)
        return done

    def _write(self) -> None:
        """Write what waits, then end; what comes during a sync shares the next one."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                failure: OSError | None = OSError("the daemon stopped")
                try:
                    failure = self._commit([entry for entry, _ in batch])
                finally:
                    for _, done in batch:
                        done.set(failure)
        finally:
            self._is_writing = False

    def _commit(self, entries: list[AuditEntry]) -> OSError | None:
        try:
            self._file.append(entries)
        except OSError as exc:
            if not self.trouble:
                log.error("the audit log cannot be written: %s", exc)
            self.trouble = f"the audit log cannot be written: {exc.strerror or exc}"
            return exc
        if self.trouble:
            log.info("the audit log is written again")
        self.trouble = ""
        return None


def _text(text: str) -> str:
    """Return what fits into an entry: bounded, and without the halves of characters that no encoding has."""
    return text[:MAX_TEXT_CHARS].encode("utf-8", "backslashreplace").decode()


def _not_written(action: str, target: str, failure: OSError) -> Unavailable:
    return Unavailable(
        f"{action} of '{target}' was done, but is not on record: {failure.strerror or failure}",
        code="AUDIT_UNAVAILABLE",
        hint="make room on the disk of the state folder; it is recorded as soon as that is possible",
    )


def _not_read(failure: OSError) -> Unavailable:
    return Unavailable(
        f"the audit log can't be read: {failure.strerror or failure}",
        code="AUDIT_UNAVAILABLE",
        hint="see what the daemon's log says about it",
    )
