"""Volumes that the daemon may not read or write itself, by way of the engine: a daemon that is not root, a named volume that the
daemon in its container does not see, an engine on another machine.

The engine's stream belongs to a greenlet, the tar to a thread; a pipe is between them.
"""

import os
from collections.abc import Callable, Iterator

import gevent.os
import msgspec
from gevent import Greenlet

from agentainerd import offload
from agentainerd.engine.engine import Engine, Stream
from agentainerd.errors import AgentainerError, Failed, NotFound, Unavailable
from agentainerd.model.backups import MAX_DEPTH, MAX_OMISSIONS, Entry, EntryKind, Omissions
from agentainerd.services.backup_archive import ArchiveWriter
from agentainerd.services.backup_places import Item, VolumePlan
from agentainerd.services.backup_progress import Cancelled
from agentainerd.services.backup_tar import END, PIECE_BYTES, Member, encode, padding, read_data, read_member

Spawn = Callable[..., Greenlet]
_KINDS = {"3": "a device", "4": "a device", "6": "a pipe (FIFO)"}


class EngineReader:
    """Copies one volume into an archive, from the tar that the engine makes of it; `where` is what omissions call it."""

    def __init__(self, archive: ArchiveWriter, number: int, where: str) -> None:
        self._archive = archive
        self._number = number
        self._where = where
        self._is_begun = False
        self._symlinks: dict[str, str] = {}
        self._omitted: set[str] = set()

    def read(self, descriptor: int) -> None:
        """Read the tar from a descriptor, which is closed in the end; blocks: for offload.run.

        Raises:
            Unavailable: it broke off.
        """
        with os.fdopen(descriptor, "rb", buffering=PIECE_BYTES) as file:

            def exactly(size: int) -> bytes:
                data = file.read(size)
                if len(data) < size:
                    raise Unavailable(f"the engine broke off while {self._where} was read", code="VOLUME_NOT_READABLE")
                return data

            while member := read_member(exactly):
                data = read_data(exactly, member.stored)
                path = _inner(member.name) if self._is_begun or not _is_file(member) else ""
                self._is_begun = True
                if member.entry is None:
                    self._omit(path, f"{_KINDS.get(member.flag, 'what it is')} is not kept")
                elif path.count("/") >= MAX_DEPTH:
                    self._omit(path, f"it is deeper than {MAX_DEPTH} folders")
                else:
                    self._add(path, member.entry, data)
                for _ in data:
                    pass
            while file.read(PIECE_BYTES):
                pass

    def _add(self, path: str, entry: Entry, data: Iterator[bytes]) -> None:
        target = _inner(entry.target) if entry.kind is EntryKind.HARDLINK else entry.target
        kind = entry.kind
        if kind is EntryKind.HARDLINK and target in self._symlinks:
            kind, target = EntryKind.SYMLINK, self._symlinks[target]
        elif kind is EntryKind.HARDLINK and target in self._omitted:
            self._omit(path, "it is another name of what is not kept")
            return
        if kind is EntryKind.SYMLINK:
            self._symlinks[path] = target
        if entry.mode & 0o6000:
            self._archive.omissions.add(self._where, path, "its set-uid or set-gid bit is not kept")
        kept = msgspec.structs.replace(
            entry, path=path, kind=kind, target=target,
            mode=entry.mode & 0o1777, is_linked=kind is EntryKind.FILE,
        )  # fmt: skip
        self._archive.add(self._number, kept, data)

    def _omit(self, path: str, reason: str) -> None:
        self._omitted.add(path)
        self._archive.omissions.add(self._where, path, reason)


class EngineTarget:
    """One volume that the engine writes to, in place at once: nothing can be exchanged, and nothing removed from it.

    `copy`, then `commit`; or `abandon`. Blocks its greenlet only.
    """

    def __init__(self, engine: Engine, spawn: Spawn, plan: VolumePlan, omissions: Omissions) -> None:
        self._engine = engine
        self._spawn = spawn
        self._plan = plan
        self._omissions = omissions
        self._there: set[str] = set()
        self._is_begun = self._is_made = False

    def copy(self, first: Item, entries: Iterator[Item]) -> Item | None:
        """Write all entries of a volume; return the first entry of the next one.

        Raises:
            Failed, NotFound, Unavailable: what was written by then stays, and the message says so.
        """
        destination = self._plan.destination
        if self._plan.is_named and self._plan.is_new:
            self._engine.create_volume(destination)
            self._is_made = True
        elif not self._plan.is_new:
            self._look()
        self._is_begun = True
        try:
            return self._write(first, entries)
        except (Failed, NotFound, Unavailable) as error:
            raise Unavailable(
                f"{destination} is half written: {error.message}", code="VOLUME_NOT_WRITABLE", hint=error.hint
            ) from error

    def commit(self) -> None:
        """Name what could not be removed."""
        for path in sorted(self._there)[:MAX_OMISSIONS]:
            self._omissions.add(self._plan.destination, path, "is not in the backup, and could not be removed")

    def abandon(self) -> None:
        """Remove a volume that was made. Raises Failed: what was written elsewhere can't be removed."""
        if self._is_made:
            self._engine.remove_volume(self._plan.destination)
        elif self._plan.is_new and self._is_begun:
            raise Failed(f"what was written to {self._plan.destination} stays there: remove it by hand")

    def _look(self) -> None:
        """Remember the names that are there."""
        stream = self._engine.read_volume(self._plan.destination, self._plan.image)
        read_through(stream, self._spawn, self._list)

    def _list(self, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb", buffering=PIECE_BYTES) as file:
            while member := read_member(file.read):
                self._there.add(_inner(member.name))
                for _ in read_data(file.read, member.stored):
                    pass
            while file.read(PIECE_BYTES):
                pass

    def _write(self, first: Item, entries: Iterator[Item]) -> Item | None:
        alone = os.path.basename(self._plan.destination) if first[1].kind is EntryKind.FILE else ""
        source = os.path.dirname(self._plan.destination) if alone else self._plan.destination
        reading, writing = os.pipe()
        gevent.os.make_nonblocking(reading)
        fed = _Fed()
        task = self._spawn("volume tar", self._feed, first, entries, alone, writing, fed)
        try:
            self._engine.write_volume(source, self._plan.image, _drained(reading))
        finally:
            os.close(reading)
            task.join()
        if fed.error is not None:
            raise fed.error
        return fed.item

    def _feed(self, first: Item, entries: Iterator[Item], alone: str, descriptor: int, fed: "_Fed") -> None:
        try:
            fed.item = offload.run(self._write_tar, first, entries, alone, descriptor)
        except BrokenPipeError:
            return  # the engine has given up, and says why
        except (AgentainerError, Cancelled) as error:
            fed.error = error

    def _write_tar(self, first: Item, entries: Iterator[Item], alone: str, descriptor: int) -> Item | None:
        item: Item | None = first
        with os.fdopen(descriptor, "wb", buffering=PIECE_BYTES) as file:
            while item is not None and item[0] == first[0]:
                entry = msgspec.structs.replace(item[1], path=alone) if alone else item[1]
                file.write(encode(entry, "./"))
                for piece in item[2]:
                    file.write(piece)
                file.write(padding(entry.data_bytes))
                self._there.discard(item[1].path)
                item = next(entries, None)
            file.write(END)
        return item


def read_through(stream: Stream[bytes], spawn: Spawn, read: Callable[[int], object]) -> None:
    """Let `read` have the bytes of the engine's stream in a thread, from a descriptor that it closes.

    Raises:
        Unavailable, NotFound: the engine. What `read` raises.
    """
    reading, writing = os.pipe()
    gevent.os.make_nonblocking(writing)
    failures: list[AgentainerError] = []
    task = spawn("volume stream", _pump, stream, writing, failures)
    try:
        offload.run(read, reading)
    except Unavailable:
        task.join()
        if failures:
            raise failures[0] from None
        raise
    finally:
        stream.close()
        task.join()


class _Fed:
    """What came of feeding a tar."""

    item: Item | None = None
    error: BaseException | None = None


def _pump(stream: Stream[bytes], descriptor: int, failures: list[AgentainerError]) -> None:
    try:
        for piece in stream:
            left = memoryview(piece)
            while left:
                left = left[gevent.os.nb_write(descriptor, left) :]
    except BrokenPipeError:
        return  # nobody reads any more
    except AgentainerError as error:
        failures.append(error)
    finally:
        os.close(descriptor)


def _drained(descriptor: int) -> Iterator[bytes]:
    while piece := gevent.os.nb_read(descriptor, PIECE_BYTES):
        yield piece


def _is_file(member: Member) -> bool:
    return member.entry is not None and member.entry.kind is EntryKind.FILE


def _inner(name: str) -> str:
    """Return a path of the engine's tar as ours."""
    path = name.rstrip("/")
    return "" if path == "." else path.removeprefix("./")
