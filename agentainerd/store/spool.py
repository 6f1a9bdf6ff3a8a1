"""Bodies over MAX_INLINE_BODY_BYTES: one file each, in one folder.

A body is written to `<request id>.tmp`; `seal` makes it durable and gives it its name, `<request id>.body`. Only then may a
record name it. Files that no record names are removed by `RequestStore.sweep`.
"""

import errno
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from weakref import WeakValueDictionary

from agentainerd import offload
from agentainerd.errors import NotFound, Unavailable
from agentainerd.store.disk import no_space, sync_folder

_PIECE_BYTES = 256 * 1024
_NAME = re.compile(r"[0-9a-zA-Z-]{1,64}\.body")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Spool:
    """The folder. Made where it is missing; nobody else writes to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._writers: WeakValueDictionary[str, SpoolFile] = WeakValueDictionary()

    def path(self, name: str) -> Path:
        """Return where a file is.

        Raises:
            NotFound: that can't be the name of one.
        """
        if not _NAME.fullmatch(name):
            raise NotFound("spool file", name)
        return self.folder / name

    def create(self, request_id: str) -> "SpoolFile":
        """Start a body. Blocks for as long as it takes to open a file.

        Raises:
            Unavailable: no space (code NO_SPACE), or the disk failed (code SPOOL_FAILED).
        """
        writer = SpoolFile(self.path(f"{request_id}.body"))
        self._writers[writer.name] = writer
        return writer

    def exists(self, name: str) -> bool:
        """There is a sealed body of this name."""
        return bool(_NAME.fullmatch(name)) and (self.folder / name).exists()

    def pieces(self, name: str) -> Iterator[bytes]:
        """Read a sealed body, from its beginning.

        Raises:
            NotFound: it is not there.
            Unavailable: the disk failed (code SPOOL_FAILED).
        """
        try:
            file = self.path(name).open("rb")
        except FileNotFoundError as exc:
            raise NotFound("spool file", name) from exc
        with file:
            yield from _read(file)

    def remove(self, names: Iterable[str]) -> None:
        """Remove bodies that nobody needs; those that are not there are fine. Blocks its greenlet only."""
        paths = [self.path(name) for name in names]
        if paths:
            offload.run(_unlink, paths)

    def unclaimed(self, older_than_s: float) -> list[str]:
        """Return the names of files, sealed or not, that are that old and that nobody is writing. Blocks its greenlet only."""
        names = offload.run(_older_than, self.folder, time.time() - older_than_s)
        return [name for name in names if f"{name.partition('.')[0]}.body" not in self._writers]

    def sweep(self, names: Iterable[str]) -> None:
        """Remove files that `unclaimed` returned. Blocks its greenlet only."""
        offload.run(_unlink, [self.folder / name for name in names])


class SpoolFile:
    """One body on its way to disk; see proxy.journal.SpoolWriter. For one greenlet."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._file: BinaryIO | None = None
        self._path = path
        self._temporary = path.with_suffix(".tmp")
        self._sealed = False
        with _disk_errors():
            fd = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(fd, "w+b", buffering=0)

    def __del__(self) -> None:
        if self._file is not None:
            self.discard()

    def write(self, piece: bytes) -> None:
        """Append; not durable yet. Raises Unavailable: no space (code NO_SPACE), or the disk failed (SPOOL_FAILED)."""
        assert self._file is not None
        try:
            with _disk_errors():
                view = memoryview(piece)
                while view:
                    view = view[self._file.write(view) :]
        except Unavailable:
            self.discard()
            raise

    def seal(self) -> str:
        """Make file, name and folder durable and return the name; once more is fine. Blocks its greenlet only.

        Raises:
            Unavailable: no space (code NO_SPACE), or the disk failed (code SPOOL_FAILED); nothing of it is left.
        """
        if self._sealed:
            return self.name
        assert self._file is not None
        try:
            with _disk_errors():
                offload.run(_make_durable, self._file.fileno(), self._temporary, self._path)
        except Unavailable:
            self.discard()
            raise
        self._sealed = True
        self._close()
        return self.name

    def pieces(self) -> Iterator[bytes]:
        """Read back what was written so far, from its beginning."""
        place = self._path if self._sealed else self._temporary
        with place.open("rb") as file:
            yield from _read(file)

    def discard(self) -> None:
        """Remove it, sealed or not; once more is fine."""
        self._close()
        with suppress(OSError):
            (self._path if self._sealed else self._temporary).unlink()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in _FULL:
            raise no_space(exc.strerror or "disk full") from exc
        raise Unavailable(f"the request's body can't be kept: {exc}", code="SPOOL_FAILED", retry_after_s=5) from exc


def _make_durable(fd: int, temporary: Path, path: Path) -> None:
    os.fdatasync(fd)
    temporary.rename(path)
    sync_folder(path.parent)


def _read(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE_BYTES):
        yield piece


def _unlink(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _older_than(folder: Path, at: float) -> list[str]:
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < at:
                    names.append(entry.name)
    return names
