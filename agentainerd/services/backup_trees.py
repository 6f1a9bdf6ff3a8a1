"""Writing what an archive holds into a folder of this host that is new: every step is taken from the folder before it.

No path is ever resolved as a whole. A name is made with O_EXCL or mkdir in a folder that this program made a moment ago and
holds open, opened without following links; so nothing is written outside, whatever the archive says and whoever has a hand
in the folder meanwhile. What has set-uid bits, or is a device, never comes here (backup_archive.py).

Blocks: for offload.run.
"""

import os
import stat
from collections.abc import Iterator

from agentainerd.model.backups import Entry, EntryKind, Omissions, damaged

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class TreeWriter:
    """Makes entries below `root`, a descriptor of an empty folder that the caller keeps; `where` is for omissions.

    Entries come as `ArchiveReader.entries` gives them: each after its folder. The times of a folder are set when it is done.
    """

    def __init__(self, root: int, omissions: Omissions, where: str) -> None:
        self._root = root
        self._omissions = omissions
        self._where = where
        self._open: list[tuple[int, Entry]] = []

    def add(self, entry: Entry, pieces: Iterator[bytes]) -> None:
        """Make one entry.

        Raises:
            Failed: code BACKUP_DAMAGED; it is not where it can be. OSError: the disk.
        """
        if not entry.path:
            self._open.append((os.dup(self._root), entry))
            return
        parent, _, name = entry.path.rpartition("/")
        while self._open and self._open[-1][1].path != parent:
            self._leave()
        if not self._open or entry.path.startswith("/"):
            raise damaged(f"{entry.path[:100]!r} is not in its folder")
        folder = self._open[-1][0]
        try:
            self._make(folder, name, entry, pieces)
        except FileExistsError as exc:
            raise damaged(f"{entry.path[:100]!r} is there twice") from exc

    def finish(self) -> None:
        """Close all folders and give them their times. Nothing can be added any more."""
        while self._open:
            self._leave()

    def abandon(self) -> None:
        """Close what is open."""
        while self._open:
            os.close(self._open.pop()[0])

    def _make(self, folder: int, name: str, entry: Entry, pieces: Iterator[bytes]) -> None:
        if entry.kind is EntryKind.FOLDER:
            os.mkdir(name, 0o700, dir_fd=folder)
            self._open.append((os.open(name, _FOLDER, dir_fd=folder), entry))
        elif entry.kind is EntryKind.SYMLINK:
            os.symlink(entry.target, name, dir_fd=folder)
            self._own(name, entry, folder)
            os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=folder, follow_symlinks=False)
        elif entry.kind is EntryKind.HARDLINK:
            self._link(folder, name, entry)
        else:
            write_file(folder, name, entry, pieces, self)

    def _link(self, folder: int, name: str, entry: Entry) -> None:
        *parents, source = entry.target.split("/")
        at = os.dup(self._root)
        try:
            for part in parents:
                at, before = os.open(part, _FOLDER, dir_fd=at), at
                os.close(before)
            if not stat.S_ISREG(os.stat(source, dir_fd=at, follow_symlinks=False).st_mode):
                raise damaged(f"{entry.path[:100]!r} is a link to what is no file")
            os.link(source, name, src_dir_fd=at, dst_dir_fd=folder, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise damaged(f"{entry.path[:100]!r} is a link to nothing") from exc
        finally:
            os.close(at)

    def _leave(self) -> None:
        folder, entry = self._open.pop()
        try:
            self.settle(folder, entry)
        finally:
            os.close(folder)

    def settle(self, descriptor: int, entry: Entry) -> None:
        """Give an open file or folder its owner, mode and times."""
        self._own(descriptor, entry)
        os.chmod(descriptor, entry.mode & 0o1777)
        os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))

    def _own(self, what: int | str, entry: Entry, folder: int | None = None) -> None:
        try:
            if isinstance(what, int):
                os.chown(what, entry.uid, entry.gid)
            else:
                os.chown(what, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
        except PermissionError:
            if (entry.uid, entry.gid) != (os.geteuid(), os.getegid()):
                self._omissions.add(self._where, entry.path, f"its owner {entry.uid}:{entry.gid} can't be set")


def write_file(folder: int, name: str, entry: Entry, pieces: Iterator[bytes], tree: TreeWriter) -> None:
    """Make one file in an open folder, holes where it had them, and give it owner, mode and times."""
    descriptor = os.open(name, _NEW, 0o600, dir_fd=folder)
    try:
        _scatter(descriptor, entry.extents if entry.extents is not None else ((0, entry.size),), pieces)
        os.ftruncate(descriptor, entry.size)
        tree.settle(descriptor, entry)
    finally:
        os.close(descriptor)


def _scatter(descriptor: int, extents: tuple[tuple[int, int], ...], pieces: Iterator[bytes]) -> None:
    rest = memoryview(b"")
    for offset, length in extents:
        while length:
            rest = rest or memoryview(next(pieces, b""))
            if not rest:
                raise damaged("a file is shorter than it says")
            written = os.pwrite(descriptor, rest[:length], offset)
            rest, offset, length = rest[written:], offset + written, length - written
