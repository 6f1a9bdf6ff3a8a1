"""One file of a folder that somebody else writes to: exactly the bytes that were promised, or an error in the middle."""

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from agentainerd import offload
from agentainerd.archives.listings import Entry, Kind, stamp_of, why
from agentainerd.archives.opening import close_now, open_file, open_root
from agentainerd.archives.zips import PIECE_BYTES
from agentainerd.errors import Conflict, Failed


class FileDownload:
    """A file that is open. Close it in the end. `etag`: names these bytes, without quotes; `size` in bytes."""

    def __init__(self, descriptor: int, entry: Entry, leave: Callable[[], None]) -> None:
        self.entry = entry
        self.size = entry.size
        self.etag = hashlib.sha256(entry.stamp).hexdigest()[:32]
        self._descriptor = descriptor
        self._leave = leave

    def finish(self, is_wanted: Callable[[], bool] = lambda: True) -> int:  # noqa: ARG002
        """Return the size: a file is whole."""
        return self.size

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Return the bytes from `start` to before `stop`, or to the end; blocks its greenlet only.

        Raises:
            Conflict: it became another one meanwhile (code FILE_CHANGED). Failed: it can't be read (FILE_UNREADABLE).
        """
        end = self.size if stop is None else min(stop, self.size)
        while start < end:
            piece = offload.run(self._read, start, min(end - start, PIECE_BYTES))
            start += len(piece)
            yield piece

    def close(self) -> None:
        """Close it. Safe to repeat."""
        if self._descriptor >= 0:
            close_now(self._descriptor)
            self._descriptor = -1
            self._leave()

    def _read(self, offset: int, size: int) -> bytes:
        return _read(self._descriptor, self.entry, offset, size)


def digests(root: Path, entries: Iterable[Entry]) -> Generator[None, None, dict[str, str]]:
    """Return the SHA-256 of each file below the folder `root`, in hex, by name; not of those that changed or can't be read.

    In steps of a piece. Raises NotFound: as `open_entry`.
    """
    found = {}
    for entry in entries:
        yield
        if entry.kind is Kind.FILE:
            with suppress(Conflict, Failed):
                found[entry.name] = yield from _digest(root, entry)
    return found


def _digest(root: Path, entry: Entry) -> Generator[None, None, str]:
    descriptor, _ = open_entry(root, entry)
    try:
        digest, offset = hashlib.sha256(), 0
        while offset < entry.size:
            piece = _read(descriptor, entry, offset, min(entry.size - offset, PIECE_BYTES))
            digest.update(piece)
            offset += len(piece)
            yield
        return digest.hexdigest()
    finally:
        close_now(descriptor)


def open_entry(root: Path, entry: Entry) -> tuple[int, Entry]:
    """Return a descriptor of a file that was listed below the folder `root`. Blocks.

    Raises:
        Conflict: it is not the one any more (code FILE_CHANGED). Failed: it can't be read (FILE_UNREADABLE).
        NotFound: the folder is gone.
    """
    try:
        folder = open_root(root)
        try:
            descriptor, status = open_file(folder, entry.path)
        finally:
            close_now(folder)
    except OSError as exc:
        raise _unreadable(entry, exc) from exc
    if stamp_of(status) != entry.stamp:
        close_now(descriptor)
        raise Conflict(f"{entry.name} was changed while it was read", code="FILE_CHANGED", hint="try again")
    return descriptor, entry


def _read(descriptor: int, entry: Entry, offset: int, size: int) -> bytes:
    try:
        piece = os.pread(descriptor, size, offset)
        status = os.fstat(descriptor)
    except OSError as exc:
        raise _unreadable(entry, exc) from exc
    if not piece or stamp_of(status) != entry.stamp:
        raise Conflict(f"{entry.name} was changed while it was read", code="FILE_CHANGED")
    return piece


def _unreadable(entry: Entry, error: OSError) -> Failed:
    return Failed(f"{entry.name} can't be read: {why(error)}", code="FILE_UNREADABLE")
