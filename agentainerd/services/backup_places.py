"""Where a volume is written to: a new folder beside its final place, or new content for one that is there. Direct, on this host.

`receive` is done in a thread, piece by piece, and changes nothing that anybody sees; `commit` puts all of it in place at once;
`abandon` takes it away again. One of these two is always called.

Everything blocks: for offload.run.
"""

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agentainerd.errors import Conflict, Failed
from agentainerd.model.backups import BackedVolume, Entry, EntryKind, Omissions
from agentainerd.services.backup_trees import TreeWriter, write_file
from agentainerd.store.disk import sync_folder

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)
_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
STAGING = ".agentainer-restore-"
Item = tuple[int, Entry, Iterator[bytes]]
"""What ArchiveReader.entries yields."""


@dataclass(frozen=True, slots=True)
class VolumePlan:
    """Where volume `number` of a backup goes: `destination` is a folder or the name of an engine's volume. `is_new`: nothing
    is there yet. `image`: one that the engine has.
    """

    number: int
    source: BackedVolume
    destination: str
    is_new: bool
    image: str

    @property
    def is_named(self) -> bool:
        """The destination is a volume of the engine."""
        return BackedVolume(self.destination).is_named


class NewFolder:
    """A folder, or a file, that is not there yet, or is an empty folder: made beside it and renamed."""

    def __init__(self, path: str, mark: str, omissions: Omissions) -> None:
        self.path = path
        self._parent, name = os.path.split(path)
        self._partial = os.path.join(self._parent, f".{name[:200]}.{mark}.partial")
        self._omissions = omissions
        self._is_file = self._is_committed = False
        self._tree: TreeWriter | None = None
        self._root = -1

    def receive(self, entry: Entry, pieces: Iterator[bytes]) -> None:
        """Make one entry. Raises OSError, Failed."""
        if not entry.path:
            self._begin(entry, pieces)
        if self._tree is not None:
            self._tree.add(entry, pieces)

    def commit(self) -> None:
        """Make it durable and give it its name.

        Raises:
            Conflict: something has come to be there meanwhile; it is left alone.
        """
        if self._tree is not None:
            self._tree.finish()
            sync(self._root)
        try:
            if self._is_file:
                os.link(self._partial, self.path)
                os.unlink(self._partial)
            else:
                os.rename(self._partial, self.path)  # over an empty folder, and over nothing else
        except OSError as exc:
            if exc.errno not in _OCCUPIED:
                raise
            raise occupied(self.path) from exc
        self._is_committed = True
        sync_folder(Path(self._parent))
        self._close()

    def abandon(self) -> None:
        """Remove what was made, also what was committed."""
        self._close()
        _remove(self.path if self._is_committed else self._partial)

    def _begin(self, entry: Entry, pieces: Iterator[bytes]) -> None:
        os.makedirs(self._parent, mode=0o755, exist_ok=True)
        _remove(self._partial)
        self._is_file = entry.kind is EntryKind.FILE
        if self._is_file:
            parent = os.open(self._parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                name = os.path.basename(self._partial)
                write_file(parent, name, entry, pieces, TreeWriter(parent, self._omissions, self.path))
                sync(parent)
            finally:
                os.close(parent)
            return
        os.mkdir(self._partial, 0o700)
        self._root = os.open(self._partial, _FOLDER)
        self._tree = TreeWriter(self._root, self._omissions, self.path)

    def _close(self) -> None:
        if self._tree is not None:
            self._tree.abandon()
            os.close(self._root)
            self._tree, self._root = None, -1


class LiveFolder:
    """A folder whose content is replaced: the new one is made in a folder inside it, and the two are exchanged at the end."""

    def __init__(self, path: str, mark: str, omissions: Omissions) -> None:
        self.path = path
        self._omissions = omissions
        self._staging = STAGING + mark
        self._live = self._inner = self._root = -1
        self._tree: TreeWriter | None = None
        self._top: Entry | None = None
        self._mtime_ns = 0

    def receive(self, entry: Entry, pieces: Iterator[bytes]) -> None:
        """Make one entry. Raises OSError, Failed."""
        if not entry.path:
            self._begin(entry)
        assert self._tree is not None  # the reader gives the root first
        self._tree.add(entry, pieces)

    def commit(self) -> None:
        """Exchange old and new. What fails half way is moved back.

        Raises:
            Failed: it could not be moved back either; the message says where the old content is.
        """
        assert self._tree is not None and self._top is not None
        self._tree.finish()
        sync(self._root)
        old = self._make("old")
        moved: list[tuple[int, int, str]] = []
        try:
            self._move(self._live, old, moved)
            self._move(self._root, self._live, moved)
            TreeWriter(self._live, self._omissions, self.path).settle(self._live, self._top)
        except OSError as exc:
            self._move_back(moved, exc)
            raise
        finally:
            os.close(old)
        sync(self._live)
        self._mtime_ns = self._top.mtime_ns
        self.abandon()

    def abandon(self) -> None:
        """Remove what was made, or after `commit` what was replaced."""
        if self._tree is not None:
            self._tree.abandon()
            self._tree = None
        for descriptor in (self._root, self._inner):
            if descriptor >= 0:
                os.close(descriptor)
        self._root = self._inner = -1
        if self._live >= 0:
            with suppress(FileNotFoundError):
                shutil.rmtree(self._staging, dir_fd=self._live)
            os.utime(self._live, ns=(self._mtime_ns, self._mtime_ns))
            os.close(self._live)
            self._live = -1

    def _begin(self, entry: Entry) -> None:
        if entry.kind is not EntryKind.FOLDER:
            raise Conflict(f"{self.path} is a folder, and was a file when it was backed up", code="VOLUME_OTHER_KIND")
        self._top = entry
        self._live = os.open(self.path, _FOLDER & ~os.O_NOFOLLOW)
        self._mtime_ns = os.fstat(self._live).st_mtime_ns
        with suppress(FileNotFoundError):
            shutil.rmtree(self._staging, dir_fd=self._live)
        os.mkdir(self._staging, 0o700, dir_fd=self._live)
        self._inner = os.open(self._staging, _FOLDER, dir_fd=self._live)
        self._root = self._make("new")
        self._tree = TreeWriter(self._root, self._omissions, self.path)

    def _make(self, name: str) -> int:
        os.mkdir(name, 0o700, dir_fd=self._inner)
        return os.open(name, _FOLDER, dir_fd=self._inner)

    def _move(self, source: int, target: int, moved: list[tuple[int, int, str]]) -> None:
        for name in os.listdir(source):
            if name != self._staging or source != self._live:
                os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
                moved.append((source, target, name))

    def _move_back(self, moved: list[tuple[int, int, str]], why: OSError) -> None:
        try:
            for source, target, name in reversed(moved):
                os.rename(name, name, src_dir_fd=target, dst_dir_fd=source)
        except OSError as exc:
            kept, self._live = os.path.join(self.path, self._staging, "old"), -1  # so that nobody removes it
            raise Failed(
                f"{self.path} is half restored ({exc.strerror}), after it could not be restored ({why.strerror})",
                code="RESTORE_BROKEN",
                hint=f"what was there is in {kept}: move it back by hand",
            ) from exc


class LiveFile:
    """A file that is replaced, at once."""

    def __init__(self, path: str, mark: str, omissions: Omissions) -> None:
        self.path = path
        self._partial = NewFolder(f"{path}.{STAGING}{mark}", mark, omissions)

    def receive(self, entry: Entry, pieces: Iterator[bytes]) -> None:
        """Make it. Raises OSError, Conflict."""
        if entry.kind is not EntryKind.FILE:
            raise Conflict(f"{self.path} is a file, and was a folder when it was backed up", code="VOLUME_OTHER_KIND")
        self._partial.receive(entry, pieces)

    def commit(self) -> None:
        """Put it in the place of the old one."""
        self._partial.commit()
        os.replace(self._partial.path, self.path)
        sync_folder(Path(self.path).parent)

    def abandon(self) -> None:
        """Remove what was made."""
        self._partial.abandon()


def is_free(path: str) -> bool:
    """Return whether nothing is there, or an empty folder."""
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            return False
        with os.scandir(path) as names:
            return next(names, None) is None
    except FileNotFoundError:
        return True
    except PermissionError:
        return False


def free_bytes(path: str) -> tuple[int, int]:
    """Return the file system that `path` is on, or will be, as a number, and how much room it has."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return os.stat(path).st_dev, found.f_bavail * found.f_frsize


def sync(descriptor: int) -> None:
    """Make the whole file system of an open folder durable: one call instead of one for each file. Raises OSError."""
    if _libc.syncfs(descriptor) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def occupied(path: str) -> Conflict:
    """Return the error that says that there is something where a volume would be restored to."""
    return Conflict(f"{path} is not empty, and is not written over", code="VOLUME_OCCUPIED")


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
