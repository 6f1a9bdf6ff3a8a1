"""The file that a ZIP is written to while others read it already, and kept in.

Whole ones are called KEY.ETAG.zip, and are on disk before they are called so; others KEY.ETAG.RANDOM.partial.
"""

import errno
import os
import secrets
from collections import Counter
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

from gevent.lock import Semaphore

from agentainerd import offload
from agentainerd.archives.listings import Listing, why
from agentainerd.archives.opening import close_now, open_root
from agentainerd.archives.slices import Work
from agentainerd.archives.zips import PIECE_BYTES, write_zip
from agentainerd.errors import AgentainerError, Failed, Unavailable
from agentainerd.units import format_size

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class SpooledZip:
    """One ZIP, shared by its readers.

    `made`: bytes that can be read; `is_whole`: those are all. Both are written by the thread at work, and only grow.
    """

    def __init__(self, spool: Path, key: str, root: Path, listing: Listing, min_free_bytes: int) -> None:
        self.etag = listing.etag
        self.made = 0
        self.is_whole = False
        self._spool = spool
        self._key = key
        self._root = root
        self._listing = listing
        self._min_free_bytes = min_free_bytes
        self._descriptor = -1
        self._turn = Semaphore()
        self._work = Work(self._make())

    def go_on(self) -> None:
        """Make some more, unless another greenlet made the rest meanwhile. Blocks its greenlet only.

        Raises:
            NotFound: the folder that the folder is in is gone. Unavailable: no space. Failed: it can't be read, or not written.
        """
        with self._turn:
            if not self.is_whole:
                self._work.go_on()

    def read(self, offset: int, size: int) -> bytes:
        """Return at most `size` of the bytes that are made, and at least one. Blocks its greenlet only.

        Raises:
            Failed: the spool can't be read.
        """
        try:
            piece = offload.run(os.pread, self._descriptor, size, offset)
        except OSError as exc:
            raise _unreadable(self._spool, why(exc)) from exc
        if not piece:
            raise _unreadable(self._spool, "a file in it was cut")
        return piece

    def close(self) -> None:
        """Let go of everything; what is not whole is removed. For the last reader."""
        self._work.stop(self._close)

    def _close(self) -> None:
        if (
            self._descriptor >= 0
        ):  # in the thread that no other is at work beside: the number may be another file's at once
            close_now(self._descriptor)

    def _make(self) -> Generator[None, None, None]:
        place = self._spool / f"{self._key}.{self.etag}.zip"
        partial = self._spool / f"{self._key}.{self.etag}.{secrets.token_hex(8)}.partial"
        try:
            with suppress(FileNotFoundError):
                self._descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                self.made, self.is_whole = os.fstat(self._descriptor).st_size, True
                return
            try:
                yield from self._write(partial)
                os.rename(partial, place)
                self.is_whole = True
            finally:
                if not self.is_whole:
                    partial.unlink(missing_ok=True)
            remove_kept(self._spool, self._key, place.name)
        except OSError as exc:
            if exc.errno in _FULL:
                raise no_space(self._spool, why(exc)) from exc
            raise Failed(f"the ZIP can't be written to {self._spool}: {why(exc)}", code="ARCHIVE_FAILED") from exc

    def _write(self, partial: Path) -> Generator[None, None, None]:
        root = self._opened() if self._listing.entries else -1
        try:
            self._descriptor = os.open(partial, _NEW, 0o600)
            sink = _Sink(self)
            try:
                yield from write_zip(root, self._listing, sink)
                sink.put()
            finally:
                sink.close()
            os.fsync(self._descriptor)
        finally:
            if root >= 0:
                close_now(root)

    def _opened(self) -> int:
        try:
            return open_root(self._root)
        except OSError as exc:
            raise Failed(f"the files to pack can't be opened any more: {why(exc)}", code="FILES_UNREADABLE") from exc

    def take(self, data: bytes | bytearray) -> None:
        """Write some, if so much is left free as is to be left. Blocks; for the sink."""
        found = os.fstatvfs(self._descriptor)
        free = found.f_bavail * found.f_frsize
        if free - len(data) < self._min_free_bytes:
            needed = f"{format_size(free)} are left, and {format_size(self._min_free_bytes)} are kept free"
            raise no_space(self._spool, needed)
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view)
            self.made += written
            view = view[written:]


class _Sink:
    """Gathers what is written to pieces. Once it is closed it takes nothing: zipfile writes even while it is collected."""

    def __init__(self, spooled: SpooledZip) -> None:
        self._spooled = spooled
        self._gathered = bytearray()
        self._is_closed = False

    def write(self, data: bytes) -> int:
        if not self._is_closed:
            self._gathered += data
            if len(self._gathered) >= PIECE_BYTES:
                self.put()
        return len(data)

    def put(self) -> None:
        """Pass on what there is."""
        gathered, self._gathered = self._gathered, bytearray()
        self._spooled.take(gathered)

    def flush(self) -> None:
        """Do nothing: zipfile asks for it after each member."""

    def close(self) -> None:
        """Take nothing any more."""
        self._is_closed = True


def clean(spool: Path) -> None:
    """Make the folder, and remove what was left unfinished. Blocks. Raises OSError."""
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in spool.glob("*.partial"):
        path.unlink(missing_ok=True)


def sizes(spool: Path) -> dict[str, int]:
    """Return how many bytes there are of whole ZIPs by key. Blocks."""
    found: Counter[str] = Counter()
    for path in spool.glob("*.zip"):
        with suppress(FileNotFoundError):
            found[path.name.partition(".")[0]] += path.stat().st_size
    return dict(found)


def remove_kept(spool: Path, key: str, but: str = "") -> None:
    """Remove the whole ZIPs of a key, but for the file that is called `but`. Who reads one reads on. Blocks."""
    for path in spool.glob(f"{key}.*.zip"):
        if path.name != but:
            path.unlink(missing_ok=True)


def no_space(spool: Path, reason: str) -> Unavailable:
    """Return the error that says that a ZIP does not fit."""
    return Unavailable(
        f"there is no room in {spool} to make the ZIP: {reason}",
        code="NO_SPACE",
        hint="free space on that file system, or remove jobs that are over",
        retry_after_s=30,
    )


def _unreadable(spool: Path, reason: str) -> AgentainerError:
    return Failed(f"the ZIP can't be read from {spool}: {reason}", code="ARCHIVE_FAILED")
