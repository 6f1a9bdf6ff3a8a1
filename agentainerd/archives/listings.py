"""What is in a folder that somebody else may write to: names, kinds and sizes, in a fixed order, within bounds.

No link is followed, no other file system entered, nothing opened but folders. What is left out is told with the reason.
Everything blocks: for slices.Work.
"""

import hashlib
import os
import stat
import struct
import time
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from agentainerd import defaults
from agentainerd.archives.names import is_inside, member_names
from agentainerd.archives.opening import FOLDER, close_now

FORMAT = 1  # of what is made from a listing; another one makes other bytes of the same files
REPORT = "agentainer-report.txt"
MAX_DEPTH = 64  # folders in folders
MAX_PATH_BYTES = 4095  # no program can open a longer one
MAX_NAMES_BYTES = 64 * 2**20  # of all paths: what a listing takes of memory
MAX_OMISSIONS = 1000  # told one by one; further ones are counted
_MEMBER_BYTES = 256  # what a ZIP needs for a member at most, beside its name (twice) and its content
_MAX_REPORT_BYTES = 2**20
_LOOKS = 4  # names that are looked at, for each that may be listed
_FRESH_S = 0.02  # the kernel's clock of file times is coarser than its own: a change right after this one may not show
_STAMP = struct.Struct("<QQqqq")
_DEVICE_BYTES = 8  # come first in it
_OTHERS = {
    stat.S_IFIFO: "a pipe (FIFO) is left out",
    stat.S_IFSOCK: "a socket is left out",
    stat.S_IFCHR: "a device is left out",
    stat.S_IFBLK: "a device is left out",
}


class Kind(StrEnum):
    """What an entry is."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of a folder is listed. `max_bytes`: of a ZIP of it, all in all; `max_entries`: files, folders and links."""

    max_bytes: int = defaults.MAX_ARCHIVE_BYTES
    max_entries: int = defaults.MAX_ARCHIVE_ENTRIES

    @property
    def report_bytes(self) -> int:
        """What is kept free for the report of what was left out."""
        return min(_MAX_REPORT_BYTES, self.max_bytes // 4)


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One file, folder or link. Not known to the collector, for which a hundred thousand of them would be a tenth of a second.

    `path`: as it is, relative, b"/" between its parts. `name`: what it is called elsewhere: UTF-8, never absolute, no "..".
    `size` in bytes; of a link, of its target. `target`: of a link, else empty. `modified_at`: epoch seconds.
    """

    path: bytes
    name: str
    kind: Kind
    size: int
    is_executable: bool
    modified_at: float
    stamp: bytes
    """Device, inode, size, times of change: a file that has the same ones again is the same."""
    target: bytes = b""


@dataclass(slots=True)
class Omissions:
    """What was left out or is not as it was: all are counted, the first are kept as (name, reason)."""

    count: int = 0
    kept: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, reason: str) -> None:
        """Note one."""
        self.count += 1
        if len(self.kept) < MAX_OMISSIONS:
            self.kept.append((name, reason))


@dataclass(frozen=True, slots=True)
class Listing:
    """The entries of a folder, each after the folder that it is in, siblings by the bytes of their names.

    `etag`: names exactly these files, and all that is made of them: who changes any gets another one. Empty where a file was
    changed so short a time ago that a further change might not show. `report_name`: what no entry at the top is called.
    """

    entries: tuple[Entry, ...]
    omissions: Omissions
    bounds: Bounds
    report_name: str
    etag: str

    def find(self, name: str) -> Entry | None:
        """Return the entry of that name, if there is one."""
        return next((entry for entry in self.entries if entry.name == name), None)


def read_listing(root: int, bounds: Bounds) -> Generator[None, None, Listing]:
    """Return what is in the open folder `root`, which stays open. In steps of one entry."""
    lister = _Lister(bounds)
    yield from lister.walk(root)
    return lister.listing()


def nothing_listed(bounds: Bounds, reason: str) -> Listing:
    """Return the listing of a folder that can't be looked into."""
    lister = _Lister(bounds)
    lister.omit_all(reason)
    return lister.listing()


def stamp_of(status: os.stat_result) -> bytes:
    """Return what tells a file from what it was before and after."""
    return _STAMP.pack(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(slots=True)
class _Folder:
    """One that is open while what is in it is listed. `path` and `prefix` end with a slash; at the top they are empty."""

    descriptor: int
    path: bytes
    prefix: str
    names: Iterator[tuple[bytes, str]]


class _Lister:
    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._room = bounds.max_bytes - bounds.report_bytes
        self._names_room = MAX_NAMES_BYTES
        self._looks = bounds.max_entries * _LOOKS
        self._entries: list[Entry] = []
        self._omissions = Omissions()
        self._report_name = REPORT
        self._device = -1
        self._newest = 0.0

    def walk(self, root: int) -> Iterator[None]:
        """Depth first; at most MAX_DEPTH folders are open at a time."""
        status = os.fstat(root)
        self._device = status.st_dev
        self._newest = status.st_ctime
        folders: list[_Folder] = []
        self._enter(os.dup(root), b"", "", folders)
        try:
            while folders:
                yield
                found = next(folders[-1].names, None)
                if found is None:
                    close_now(folders.pop().descriptor)
                else:
                    self._one(folders, *found)
        finally:
            for folder in folders:
                close_now(folder.descriptor)

    def omit_all(self, reason: str) -> None:
        self._omissions.add("", reason)

    def listing(self) -> Listing:
        is_fresh = self._newest > time.time() - _FRESH_S
        return Listing(
            tuple(self._entries), self._omissions, self._bounds, self._report_name, "" if is_fresh else self._digest()
        )

    def _enter(self, descriptor: int, path: bytes, prefix: str, folders: list[_Folder]) -> None:
        """Read the names of a folder, all or none: which come first is not the same each time."""
        most = min(self._bounds.max_entries - len(self._entries), self._looks)
        raws: list[bytes] = []
        try:
            with os.scandir(descriptor) as found:
                for each in found:
                    raws.append(os.fsencode(each.name))
                    if len(raws) > most:
                        break
        except OSError as exc:
            self._omissions.add(prefix, why(exc))
            raws = []
        self._looks -= len(raws)
        if len(raws) > most:
            self._omissions.add(
                prefix, f"what is in it is left out: there is more than {self._bounds.max_entries} in all"
            )
            raws = []
        names = member_names(raws, is_root=not prefix)
        if not prefix:
            self._report_name = _free_name(set(names.values()))
        folders.append(_Folder(descriptor, path, prefix, iter(names.items())))

    def _one(self, folders: list[_Folder], raw: bytes, called: str) -> None:
        folder = folders[-1]
        path, name = folder.path + raw, folder.prefix + called
        try:
            status = os.stat(raw, dir_fd=folder.descriptor, follow_symlinks=False)
            reason = self._refusal(path, status)
            if reason:
                self._omissions.add(name, reason)
            elif stat.S_ISREG(status.st_mode):
                self._add(Kind.FILE, path, name, status)
            elif stat.S_ISLNK(status.st_mode):
                self._link(folder.descriptor, path, name, status)
            else:
                self._folder(folders, path, name, status)
        except OSError as exc:
            self._omissions.add(name, why(exc))

    def _refusal(self, path: bytes, status: os.stat_result) -> str:
        mode = status.st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
            return _OTHERS.get(stat.S_IFMT(mode), "it is of an unknown kind")
        if status.st_dev != self._device:
            return "another file system is mounted there"
        if len(path) > MAX_PATH_BYTES:
            return f"its path is longer than {MAX_PATH_BYTES} bytes"
        if stat.S_ISDIR(mode) and path.count(b"/") >= MAX_DEPTH:
            return f"it is deeper than {MAX_DEPTH} folders"
        if len(self._entries) >= self._bounds.max_entries:
            return f"there is more than {self._bounds.max_entries} in all"
        return ""

    def _folder(self, folders: list[_Folder], path: bytes, name: str, status: os.stat_result) -> None:
        inner = os.open(path.rpartition(b"/")[2], FOLDER, dir_fd=folders[-1].descriptor)
        try:
            is_same = os.fstat(inner).st_dev == self._device
            if not is_same:
                self._omissions.add(name, "another file system is mounted there")
            if not is_same or not self._add(Kind.FOLDER, path, name, status):
                close_now(inner)
                return
        except BaseException:
            close_now(inner)
            raise
        self._enter(inner, path + b"/", name + "/", folders)

    def _link(self, folder: int, path: bytes, name: str, status: os.stat_result) -> None:
        target = os.readlink(path.rpartition(b"/")[2], dir_fd=folder)
        if is_inside(target, path.count(b"/")):
            self._add(Kind.LINK, path, name, status, target)
        else:
            self._omissions.add(name, f"a link to elsewhere is left out: to {target.decode('utf-8', 'replace')}")

    def _add(self, kind: Kind, path: bytes, name: str, status: os.stat_result, target: bytes = b"") -> bool:
        size = {Kind.FILE: status.st_size, Kind.LINK: len(target)}.get(kind, 0)
        packed = size + size // 1024 + 2 * len(name.encode("utf-8")) + _MEMBER_BYTES
        if packed > self._room:
            self._omissions.add(
                name, f"it is too large ({size} bytes): what is packed ends at {self._bounds.max_bytes}"
            )
            return False
        if len(path) > self._names_room:
            self._omissions.add(name, f"the names are too long: those that are packed end at {MAX_NAMES_BYTES} bytes")
            return False
        self._room -= packed
        self._names_room -= len(path)
        self._newest = max(self._newest, status.st_ctime)
        is_executable = kind is Kind.FILE and bool(status.st_mode & stat.S_IXUSR)
        self._entries.append(
            Entry(path, name, kind, size, is_executable, status.st_mtime, stamp_of(status), target)
        )  # fmt: skip
        return True

    def _digest(self) -> str:
        digest = hashlib.sha256(repr((FORMAT, zlib.ZLIB_RUNTIME_VERSION, self._bounds)).encode())
        for entry in self._entries:  # without its device, which may have another number after a start of the host
            digest.update(
                repr((entry.path, entry.name, entry.is_executable, entry.stamp[_DEVICE_BYTES:], entry.target)).encode()
            )
        digest.update(repr((self._omissions.count, self._omissions.kept)).encode())
        return digest.hexdigest()[:32]


def why(error: OSError) -> str:
    """Return the reason that is told for what could not be read."""
    return (error.strerror or str(error)).lower()


def _free_name(taken: set[str]) -> str:
    stem, dot, suffix = REPORT.rpartition(".")
    name, number = REPORT, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}{dot}{suffix}"
    return name
