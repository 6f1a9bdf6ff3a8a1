"""Reading a volume that is a folder of this host: no link is followed, nothing is believed to stay as it was.

Blocks: for offload.run. What can't be kept, or changed while it was read, is noted as an omission with its reason.
"""

import errno
import os
import stat
import time
from collections.abc import Iterator

import msgspec

from agentainerd import offload
from agentainerd.model.backups import MAX_COMPONENT_BYTES, MAX_DEPTH, Entry, EntryKind
from agentainerd.services.backup_archive import ArchiveWriter
from agentainerd.services.backup_tar import PIECE_BYTES

MAX_EXTENTS = 100_000  # of one file; what follows is stored as it reads, holes included
_KINDS = {
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFDIR: EntryKind.FOLDER,
    stat.S_IFLNK: EntryKind.SYMLINK,
}
_OTHERS = {
    stat.S_IFIFO: "a pipe (FIFO) is not kept",
    stat.S_IFSOCK: "a socket is not kept",
    stat.S_IFCHR: "a device is not kept",
    stat.S_IFBLK: "a device is not kept",
}
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TICK_S = 0.01  # the kernel's clock of file times is that coarse


class FolderReader:
    """Copies one folder, or one file, into an archive as volume `number`; `where` is what omissions call it."""

    def __init__(self, archive: ArchiveWriter, number: int, where: str) -> None:
        self._archive = archive
        self._number = number
        self._where = where
        self._links: dict[tuple[int, int], str] = {}
        self._device = -1

    def read(self, path: str) -> None:
        """Copy all of it. A root that can't be opened is an omission too."""
        try:
            descriptor = os.open(path, _OPEN & ~os.O_NOFOLLOW)
        except OSError as exc:
            self._omit("", _why(exc))
            return
        status = os.fstat(descriptor)
        self._device = status.st_dev
        if stat.S_ISDIR(status.st_mode):
            self._tree(descriptor, status)
        else:
            with os.fdopen(descriptor, "rb", buffering=0):
                self._content(descriptor, "", status)

    def _tree(self, root: int, status: os.stat_result) -> None:
        """Walk depth first; a folder is open while what is in it is read, at most MAX_DEPTH of them."""
        self._archive.add(self._number, self._entry("", EntryKind.FOLDER, status))
        open_folders = [(root, "", os.scandir(root))]
        try:
            while open_folders:
                folder, path, names = open_folders[-1]
                found = self._next(names, path)
                if found is None:
                    names.close()
                    os.close(folder)
                    open_folders.pop()
                elif inner := self._one(folder, f"{path}/{found}" if path else found, len(open_folders)):
                    open_folders.append(inner)
        finally:
            for folder, _, names in open_folders:
                names.close()
                os.close(folder)

    def _next(self, names: "os._ScandirIterator[str]", path: str) -> str | None:
        try:
            found = next(names, None)
        except OSError as exc:
            self._omit(path, _why(exc))
            return None
        return found.name if found else None

    def _one(self, folder: int, path: str, depth: int) -> tuple[int, str, "os._ScandirIterator[str]"] | None:
        """Copy one name; of a folder return what is needed to go on in it."""
        name = path.rpartition("/")[2]
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            kind = _KINDS.get(stat.S_IFMT(status.st_mode))
            if kind is None:
                self._omit(path, _OTHERS.get(stat.S_IFMT(status.st_mode), "is of an unknown kind"))
            elif status.st_dev != self._device:
                self._omit(path, "another file system is mounted there")
            elif len(os.fsencode(name)) > MAX_COMPONENT_BYTES:
                self._omit(path, "its name is too long")
            elif kind is EntryKind.SYMLINK:
                target = os.readlink(name, dir_fd=folder)
                self._archive.add(self._number, self._entry(path, kind, status, target=target))
            elif kind is EntryKind.FOLDER:
                return self._folder(folder, name, path, depth)
            else:
                self._file(folder, name, path)
        except OSError as exc:
            self._omit(path, _why(exc))
        return None

    def _folder(
        self, folder: int, name: str, path: str, depth: int
    ) -> tuple[int, str, "os._ScandirIterator[str]"] | None:
        if depth > MAX_DEPTH:
            self._omit(path, f"it is deeper than {MAX_DEPTH} folders")
            return None
        inner = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=folder)
        try:
            status = os.fstat(inner)
            names = os.scandir(inner)
        except OSError:
            os.close(inner)
            raise
        try:
            self._archive.add(self._number, self._entry(path, EntryKind.FOLDER, status))
        except BaseException:
            names.close()
            os.close(inner)
            raise
        return inner, path, names

    def _file(self, folder: int, name: str, path: str) -> None:
        descriptor = os.open(name, _OPEN, dir_fd=folder)
        with os.fdopen(descriptor, "rb", buffering=0):
            status = _settled(descriptor)
            if not stat.S_ISREG(status.st_mode):
                self._omit(path, "it became something else while it was read")
                return
            identity = (status.st_dev, status.st_ino)
            if first := self._links.get(identity):
                self._archive.add(self._number, self._entry(path, EntryKind.HARDLINK, status, target=first))
                return
            if status.st_nlink > 1:
                self._links[identity] = path
            self._content(descriptor, path, status)

    def _content(self, descriptor: int, path: str, status: os.stat_result) -> None:
        extents = _extents(descriptor, status)
        entry = self._entry(path, EntryKind.FILE, status, size=status.st_size, extents=extents)
        if status.st_nlink > 1:
            entry = msgspec.structs.replace(entry, is_linked=True)
        broken: list[str] = []
        self._archive.add(self._number, entry, _pieces(descriptor, extents or ((0, status.st_size),), broken))
        after = os.fstat(descriptor)
        same = (after.st_size, after.st_mtime_ns, after.st_ctime_ns) == (
            status.st_size, status.st_mtime_ns, status.st_ctime_ns,
        )  # fmt: skip
        if broken:
            self._omit(path, broken[0])
        elif not same:
            self._omit(path, "it changed while it was read: what is kept may be of two moments")

    def _entry(
        self, path: str, kind: EntryKind, status: os.stat_result, *, target: str = "", size: int = 0,
        extents: tuple[tuple[int, int], ...] | None = None,
    ) -> Entry:  # fmt: skip
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o6000 and kind is not EntryKind.HARDLINK:
            self._omit(path, "its set-uid or set-gid bit is not kept")
        return Entry(
            path=path, kind=kind, mode=mode & 0o1777, uid=status.st_uid, gid=status.st_gid,
            mtime_ns=status.st_mtime_ns, size=size, target=target, extents=extents,
        )  # fmt: skip

    def _omit(self, path: str, reason: str) -> None:
        self._archive.omissions.add(self._where, path, reason)


def _settled(descriptor: int) -> os.stat_result:
    """Return the status of a file, such that any later change to it shows in its times."""
    status = os.fstat(descriptor)
    if abs(time.time() - status.st_mtime) < _TICK_S:
        offload.pause(_TICK_S)
        status = os.fstat(descriptor)
    return status


def _extents(descriptor: int, status: os.stat_result) -> tuple[tuple[int, int], ...] | None:
    """Return where a file has data, or None where it has no holes."""
    size = status.st_size
    if status.st_blocks * 512 >= size:
        return None
    found: list[tuple[int, int]] = []
    offset = 0
    try:
        while offset < size and len(found) < MAX_EXTENTS:
            begin = os.lseek(descriptor, offset, os.SEEK_DATA)
            offset = min(os.lseek(descriptor, begin, os.SEEK_HOLE), size)
            found.append((begin, offset - begin))
    except OSError as exc:
        if exc.errno != errno.ENXIO:  # no data from there on
            return None
    else:
        if offset < size:
            found.append((offset, size - offset))
    return None if found == [(0, size)] else tuple(found)


def _pieces(descriptor: int, extents: tuple[tuple[int, int], ...], broken: list[str]) -> Iterator[bytes]:
    for offset, length in extents:
        end = offset + length
        while offset < end:
            try:
                piece = os.pread(descriptor, min(end - offset, PIECE_BYTES), offset)
            except OSError as exc:
                broken.append(f"{_why(exc)} at byte {offset}: zeros are kept from there on")
                return
            if not piece:
                broken.append("it became shorter while it was read: zeros are kept at its end")
                return
            yield piece
            offset += len(piece)


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
