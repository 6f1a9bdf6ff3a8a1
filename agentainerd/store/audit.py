"""The audit log on disk: `audit.log`, which is appended to, and `audit.log.<first entry>`, which are full.

Every append is on disk when it returns, sealed and linked to the entry before (model/audit.py). Nothing that was written is
ever changed: a line that a crash tore is ended and noted by the next entry; a file that is full is closed, then renamed, and
never opened for writing again. Beside the log stand `audit.key`, and `audit.head` with the last link, so that entries that
are cut off at the end are missed. All files are 0600. One process writes (the state folder is locked).
"""

import errno
import hashlib
import logging
import os
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from gevent import monkey
from gevent.lock import BoundedSemaphore

from agentainerd import offload
from agentainerd.model import audit as model
from agentainerd.model.audit import AuditEntry, Link
from agentainerd.store.audit_head import HEAD_FILE, KEY_FILE, ChainHead
from agentainerd.store.audit_view import AuditPart, AuditView
from agentainerd.store.disk import sync_folder

log = logging.getLogger(__name__)

LOG_FILE = "audit.log"
OLDER_FILE = "audit.log.unchained"
MAX_OWED = 1000
MAX_SEQ = 10**12
_TAIL_BYTES = 64 * 1024
_FULL = re.compile(r"audit\.log\.([0-9]{12})")
_DAEMON = ("daemon", "internal")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class AuditFile:
    """The log in `folder`. Every method blocks its greenlet only, and waits for its turn there, so that a disk that does not
    answer keeps one thread busy and not all. A lock of the threads covers those whose greenlet was killed.

    A file is full at `max_file_bytes`.
    """

    def __init__(self, folder: str, *, max_file_bytes: int) -> None:
        self.max_file_bytes = max_file_bytes
        self._folder = folder
        self._path = os.path.join(folder, LOG_FILE)
        self._waiting = BoundedSemaphore()
        self._lock = monkey.get_original("_thread", "allocate_lock")()
        self._file = -1
        self._chain = ChainHead(folder)
        self._head = Link(0, "")
        self._first = 0  # of the entries in the open file; 0: none
        self._size = 0
        self._owed: deque[AuditEntry] = deque()
        self._lost = 0
        self._is_stuck = False
        self._notes: list[AuditEntry] = []
        self._said: list[tuple[int, str]] = []

    @property
    def head(self) -> Link:
        """The last link that is on disk."""
        return self._head

    def append(self, entries: Sequence[AuditEntry]) -> None:
        """Write entries, which get their place in the chain, and all that could not be written before; one sync for all.

        Raises:
            OSError: they are not on disk. They are kept, MAX_OWED of them, and written before those of the next call.
        """
        self._run(self._append, entries)

    def expire(self, keep_bytes: int, before: str) -> list[str]:
        """Remove full files, oldest first, while all files together are larger than `keep_bytes`, or while the last entry of
        one is older than `before`.

        An entry that says so is on disk before. Returns the names of what was removed. Raises OSError.
        """
        return self._run(self._expire, keep_bytes, before)

    def view(self) -> AuditView:
        """Return what is in the log now, open for reading; the caller closes it. Raises OSError."""
        return self._run(self._view)

    def close(self) -> None:
        """Close the file; the next append opens it again."""
        self._run(self._close)

    def _run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        try:
            with self._waiting:
                return offload.run(self._locked, function, *args)
        finally:
            said, self._said = self._said, []
            for level, text in said:
                log.log(level, "audit log: %s", text, extra={"folder": self._folder})

    # ---- in a thread, with the lock

    def _locked(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        with self._lock:
            return function(*args)

    def _append(self, entries: Sequence[AuditEntry]) -> None:
        try:
            self._open()
        except OSError:
            self._owe(entries)
            raise
        todo = [*self._notes, *self._owed, *entries]
        if self._lost:
            todo.append(self._note(model.NOTE_LOST, f"{self._lost} could not be kept until the disk took them"))
        if todo:
            self._write(todo)
            self._notes, self._owed, self._lost = [], deque(), 0
            if self._size >= self.max_file_bytes:
                self._turn()

    def _write(self, entries: list[AuditEntry]) -> None:
        head, lines, sealed = self._head, [], []
        for draft in entries:
            entry, line = model.seal(draft, head, self._chain.key)
            head = Link(entry.seq, entry.mac)
            lines.append(line)
            sealed.append(entry)
        data = b"".join(lines)
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
            os.fdatasync(self._file)
            self._chain.write(head)
        except OSError:
            self._notes, self._owed = [], deque()
            self._owe(sealed)
            self._close()
            raise
        self._head, self._size = head, self._size + len(data)
        self._first = self._first or sealed[0].seq

    def _owe(self, entries: Sequence[AuditEntry]) -> None:
        for entry in entries:
            if len(self._owed) < MAX_OWED:
                self._owed.append(entry)
            else:
                self._lost += 1

    def _open(self) -> None:
        """Have the file open, and know the end of the chain. What is not as it was left is noted, and logged."""
        if self._file >= 0:
            if _is_same(self._file, self._path):
                return
            self._remark(model.NOTE_MOVED, f"{LOG_FILE} was moved away or removed while it was written to")
            self._close()
        if self._chain.open():
            self._remark(model.NOTE_KEY, f"{KEY_FILE} was missing: what is older can't be verified any more")
        self._set_older_aside()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(self._path, flags, 0o600)
        try:
            sync_folder(Path(self._folder))
            self._find_end()
        except OSError:
            self._close()
            raise

    def _find_end(self) -> None:
        self._size = os.fstat(self._file).st_size
        first = model.parse(os.pread(self._file, _TAIL_BYTES, 0).partition(b"\n")[0])
        self._first = first.seq if first else 0
        last, unread = _last_entry(self._file, self._size, self._chain.key)
        if last is None and (names := _full_files(self._folder)):
            last = _last_of(os.path.join(self._folder, names[-1]), self._chain.key)
        in_log = Link(last.seq, last.mac) if last else Link(0, "")
        self._settle_owed(in_log)
        noted = self._chain.read()
        if noted is None and self._size and not self._head.seq:
            self._remark(model.NOTE_MISSING, f"{HEAD_FILE} was missing: entries may be missing before this one")
        known = max(self._head, noted or Link(0, ""))
        if not max(known, in_log).seq and (other := _last_entry(self._file, self._size, None)[0]):
            in_log = Link(min(other.seq, MAX_SEQ), other.mac)  # sealed with a key that is gone
        if known.seq > in_log.seq:
            gap = f"{in_log.seq + 1}-{known.seq}"
            self._remark(model.NOTE_MISSING, f"entries {gap} are missing at the end of {LOG_FILE}")
        self._head = known if known.seq >= in_log.seq else in_log
        if self._size and os.pread(self._file, 1, self._size - 1) != b"\n":
            os.write(self._file, b"\n")
            self._size += 1
        if unread:
            self._remark(model.NOTE_TORN, f"the last line of {LOG_FILE} was not written to its end ({unread} bytes)")
            self._notes.insert(0, self._notes.pop())  # it stands right behind that line

    def _settle_owed(self, in_log: Link) -> None:
        """Forget what a write that failed has put on disk all the same."""
        places = [place for place, entry in enumerate(self._owed) if entry.mac and entry.mac == in_log.mac]
        for _ in range(places[0] + 1 if places else 0):
            self._owed.popleft()

    def _turn(self) -> None:
        """Give the full file, which is on disk, its final name; nobody has it open then. Where that fails it goes on growing."""
        name = f"{self._path}.{self._first:012d}"
        self._close()
        try:
            if os.path.lexists(name):
                raise FileExistsError(errno.EEXIST, f"{name} is there already")
            os.rename(self._path, name)
            sync_folder(Path(self._folder))
        except OSError as exc:
            if not self._is_stuck:
                self._said.append((logging.ERROR, f"{LOG_FILE} is full, and can't be set aside: {exc.strerror}"))
            self._is_stuck = True
        else:
            self._said.append((logging.INFO, f"rotated; entries {self._first} to {self._head.seq} are in {name}"))
            self._first = self._size = 0
            self._is_stuck = False

    def _expire(self, keep_bytes: int, before: str) -> list[str]:
        names = _full_files(self._folder)
        if not names:
            return []
        self._open()
        sizes = {name: os.stat(os.path.join(self._folder, name)).st_size for name in names}
        total = sum(sizes.values()) + self._size
        leaving, notes, last = [], [], 0
        for name in names:
            entry = _last_of(os.path.join(self._folder, name), self._chain.key)
            if total <= keep_bytes and (entry is None or entry.time >= before):
                break
            leaving.append(name)
            total -= sizes[name]
            if entry:
                last = entry.seq
            else:
                notes.append(self._note(model.NOTE_REMOVED, f"{name}, none of whose entries can be verified"))
        if last:
            notes.append(self._note(model.EXPIRE, str(last)))
        if not leaving:
            return []
        self._append(notes)
        for name in leaving:
            os.unlink(os.path.join(self._folder, name))
        sync_folder(Path(self._folder))
        return leaving

    def _view(self) -> AuditView:
        self._open()
        parts: list[AuditPart] = []
        try:
            for name in (*_full_files(self._folder), LOG_FILE):
                descriptor = os.open(os.path.join(self._folder, name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                first = int(found.group(1)) if (found := _FULL.fullmatch(name)) else self._first
                parts.append(AuditPart(name, descriptor, os.fstat(descriptor).st_size, first))
        except OSError:
            AuditView(parts, self._head, self._chain.key).close()
            raise
        return AuditView(parts, self._head, self._chain.key)

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _set_older_aside(self) -> None:
        """Rename a log of a version that did not chain, which left no head; its digest goes into the chain."""
        if self._chain.is_there or not os.path.lexists(self._path):
            return
        if os.stat(self._path, follow_symlinks=False).st_size == 0:
            return
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if model.parse(os.pread(descriptor, _TAIL_BYTES, 0).partition(b"\n")[0]):
                return
            digest = _digest(descriptor)
        finally:
            os.close(descriptor)
        os.rename(self._path, os.path.join(self._folder, OLDER_FILE))
        self._notes.append(self._note(model.NOTE_OLDER, f"{OLDER_FILE} has what is older; SHA-256 {digest}"))
        self._said.append((logging.INFO, f"what an earlier version wrote is in {OLDER_FILE}"))

    def _remark(self, action: str, text: str) -> None:
        self._said.append((logging.ERROR, text))
        self._notes.append(self._note(action, text))

    def _note(self, action: str, resource: str) -> AuditEntry:
        actor, address = _DAEMON
        now = model.moment(time.time())
        return AuditEntry(time=now, actor=actor, address=address, action=action, resource=resource)


def _is_same(descriptor: int, path: str) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def _full_files(folder: str) -> list[str]:
    return sorted(name for name in os.listdir(folder) if _FULL.fullmatch(name))


def _digest(descriptor: int) -> str:
    digest = hashlib.sha256()
    offset = 0
    while piece := os.pread(descriptor, _TAIL_BYTES, offset):
        digest.update(piece)
        offset += len(piece)
    return digest.hexdigest()


def _last_entry(descriptor: int, size: int, key: bytes | None) -> tuple[AuditEntry | None, int]:
    """Return the last line that is an entry sealed with `key` (None: any), and how many bytes behind it are no entry at all."""
    length = _TAIL_BYTES
    while True:
        start = max(0, size - length)
        *lines, last = os.pread(descriptor, size - start, start).split(b"\n")
        unread = 0
        for line in (last, *reversed(lines)):
            entry = model.parse(line)
            if entry and (key is None or model.is_sealed(line, entry, key)):
                return entry, unread
            unread += 0 if entry else len(line)
        if not start:
            return None, unread
        length *= 4


def _last_of(path: str, key: bytes) -> AuditEntry | None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return _last_entry(descriptor, os.fstat(descriptor).st_size, key)[0]
    finally:
        os.close(descriptor)
