"""One archive, written and read from its beginning to its end: gzip, tar, checksum, and the order of what is in it.

    manifest.json                 Manifest
    requests/<number>             encrypted
    volumes/<number>/<path>       what is in the volumes, each folder before what is in it
    contents.json                 Contents: SHA-256 of every byte of the tar before it

Nothing here is kept in memory but the names of the folder that is being read. Everything blocks: for offload.run.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import msgspec

from agentainerd.errors import AgentainerError, NotSupported
from agentainerd.model.backups import (
    FORMAT,
    MAX_DEPTH,
    MAX_ENTRIES,
    Contents,
    Entry,
    EntryKind,
    Manifest,
    Omissions,
    check_component,
    damaged,
)
from agentainerd.services.backup_gzip import Gunzip, Gzip
from agentainerd.services.backup_progress import Watch
from agentainerd.services.backup_tar import BLOCK, END, PIECE_BYTES, encode, padding, read_data, read_member

MANIFEST = "manifest.json"
CONTENTS = "contents.json"
VOLUMES = "volumes/"
REQUESTS = "requests/"
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
MAX_REQUEST_BYTES = 32 * 1024 * 1024


class ArchiveWriter:
    """Writes one archive by `write`; the caller syncs what that is. For one thread at a time."""

    def __init__(self, write: Callable[[bytes], object], manifest: Manifest, watch: Watch) -> None:
        self.omissions = Omissions()
        self.watch = watch
        self._gzip = Gzip(write)
        self._digest = hashlib.sha256()
        self._entries = self._files = self._data_bytes = self.requests = 0
        self._blob(MANIFEST, msgspec.json.encode(manifest))

    def add(self, number: int, entry: Entry, pieces: Iterable[bytes] = ()) -> None:
        """Add an entry of a volume; `pieces` are the data of a file, `entry.data_bytes` in all, or fewer: then zeros follow."""
        self._put(encode(entry, f"{VOLUMES}{number}/"))
        if entry.kind is EntryKind.FILE:
            left = entry.data_bytes
            for piece in pieces:
                self._put(piece)
                left -= len(piece)
                self.watch.did(len(piece))
            while left:
                self._put(bytes(min(left, PIECE_BYTES)))
                left -= min(left, PIECE_BYTES)
            self._put(padding(entry.data_bytes))
            self._files += 1
            self._data_bytes += entry.data_bytes
        self._entries += 1
        self.watch.entries += 1
        self.watch.did(0)

    def add_request(self, sealed: bytes) -> None:
        """Add an encrypted request."""
        self._blob(f"{REQUESTS}{self.requests}", sealed)
        self.requests += 1

    def finish(self, sign: Callable[[str], str] = lambda digest: "") -> Contents:
        """Write the end, with what `sign` makes of the checksum, and return it. Nothing can be added any more."""
        digest = self._digest.hexdigest()
        contents = Contents(
            sha256=digest,
            signature=sign(digest),
            entries=self._entries,
            files=self._files,
            data_bytes=self._data_bytes,
            requests=self.requests,
            omitted=self.omissions.count,
            omissions=tuple(self.omissions.kept),
        )
        self._blob(CONTENTS, msgspec.json.encode(contents))
        self._put(END)
        self._gzip.flush()
        return contents

    def _blob(self, name: str, data: bytes) -> None:
        self._put(encode(Entry(path=name, kind=EntryKind.FILE, mode=0o600, size=len(data))) + data)
        self._put(padding(len(data)))

    def _put(self, data: bytes) -> None:
        self._digest.update(data)
        self._gzip.put(data)


class ArchiveReader:
    """Reads one archive from `file`, once, and believes nothing: every name, order, size and the checksum is looked at.

    `manifest` is there at once; `entries` has the rest, and then `contents` is there.

    Raises:
        Failed: code BACKUP_DAMAGED, from everything here. NotSupported: a later version made it.
    """

    def __init__(self, file: BinaryIO, watch: Watch) -> None:
        self.watch = watch
        self.contents: Contents | None = None
        self._source = Gunzip(file, watch)
        self._digest = hashlib.sha256()
        self._seen = self._requests = 0
        self.manifest = self._read_manifest()

    def requests(self) -> Iterator[bytes]:
        """Yield the encrypted requests; instead of `entries`, and without a look at what follows them."""
        for number in range(MAX_ENTRIES):
            member = read_member(self._read)
            if member is None or member.entry is None or member.name != f"{REQUESTS}{number}":
                return
            yield self._blob(member.entry, member.stored)

    def entries(self) -> Iterator[tuple[int, Entry, Iterator[bytes]]]:
        """Yield number of the volume, entry, and the pieces of a file's data; pieces that are not taken are skipped.

        Ends after the checksum was found to be right.
        """
        number, place = -1, _Place()
        while True:
            digest = self._digest.hexdigest()
            member = read_member(self._read)
            if member is None:
                raise damaged("its end is missing")
            if member.entry is None or member.entry.mode & 0o6000:
                raise damaged(f"{member.name[:100]!r} is a device, a pipe or a set-uid file: no backup has these")
            if member.name.startswith(VOLUMES):
                number, place = self._in_volume(member.name, number, place)
                entry = place.check(_inner(member.entry, number))
                data = read_data(self._read, member.stored)
                yield number, entry, data
                for _ in data:
                    pass
                self._count()
            else:
                blob = self._blob(member.entry, member.stored)
                if member.name == CONTENTS:
                    self._end(blob, digest)
                    return
                if member.name != f"{REQUESTS}{self._requests}" or not self.manifest.has_requests or number >= 0:
                    raise damaged(f"{member.name[:100]!r} is not where it should be")
                self._requests += 1

    def _in_volume(self, name: str, number: int, place: "_Place") -> tuple[int, "_Place"]:
        text = name[len(VOLUMES) :].partition("/")[0]
        found = int(text) if text.isascii() and text.isdigit() and len(text) < 7 else -1
        if not max(number, 0) <= found < len(self.manifest.volumes) or str(found) != text:
            raise damaged(f"{name[:100]!r} is not where it should be")
        return found, place if found == number else _Place()

    def _count(self) -> None:
        self._seen += 1
        self.watch.entries += 1
        self.watch.did(0)
        if self._seen > MAX_ENTRIES:
            raise damaged(f"it has more than {MAX_ENTRIES} names")

    def _read_manifest(self) -> Manifest:
        member = read_member(self._read)
        if member is None or member.name != MANIFEST or member.entry is None:
            raise damaged("it does not begin with a manifest")
        data = self._blob(member.entry, member.stored)
        try:
            found = msgspec.json.decode(data, type=dict[str, object]).get("format")
            if isinstance(found, int) and found > FORMAT:
                raise later(f"format {found}; this one reads up to {FORMAT}")
            return _manifest(data)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as exc:
            raise damaged(f"its manifest can't be read ({exc})") from exc

    def _blob(self, entry: Entry, stored: int) -> bytes:
        if entry.kind is not EntryKind.FILE or entry.extents is not None:
            raise damaged(f"{entry.path[:100]!r} is not a file")
        limit = MAX_REQUEST_BYTES if entry.path.startswith(REQUESTS) else MAX_MANIFEST_BYTES
        if stored > limit:
            raise damaged(f"{entry.path[:100]!r} is too long")
        return b"".join(read_data(self._read, stored))

    def _end(self, blob: bytes, digest: str) -> None:
        try:
            contents = msgspec.json.decode(blob, type=Contents)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as exc:
            raise damaged(f"its end can't be read ({exc})") from exc
        if contents.sha256 != digest:
            raise damaged("its checksum is wrong: it was changed after it was made")
        if contents.entries != self._seen or contents.requests != self._requests:
            raise damaged("it does not hold what it says")
        if self._read(2 * BLOCK) != END:
            raise damaged("it goes on after its end")
        self._source.end()
        self.contents = contents

    def _read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._digest.update(data)
        return data


def later(why: str) -> AgentainerError:
    """Return the error about an archive of a later version."""
    return NotSupported(
        f"a later version of agentainerd made this backup ({why})", code="BACKUP_TOO_NEW", hint="upgrade agentainerd"
    )


def _manifest(data: bytes) -> Manifest:
    try:
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.ValidationError as exc:
        if "unknown field" in str(exc):
            raise later(f"an agent has a setting that this one does not know: {exc}") from exc
        raise


class _Place:
    """Where in a volume the reader is: the folders from its root to here, and the names that each has so far."""

    def __init__(self) -> None:
        self._folders: list[tuple[str, set[int]]] = []
        self._linked: set[str] = set()
        self._is_begun = False

    def check(self, entry: Entry) -> Entry:
        """Return the entry if it may come now: its folder is one of those that are open, and its name is new there."""
        if not self._is_begun or not entry.path:
            self._begin(entry)
            return entry
        parent, _, name = entry.path.rpartition("/")
        check_component(name)
        if entry.path.startswith("/"):
            raise damaged(f"{entry.path[:100]!r} is not in its folder")
        while self._folders and self._folders[-1][0] != parent:
            self._folders.pop()
        if not self._folders:
            raise damaged(f"{entry.path[:100]!r} is not in its folder")
        names = self._folders[-1][1]
        if hash(name) in names:
            raise damaged(f"{entry.path[:100]!r} is there twice")
        names.add(hash(name))
        self._check_kind(entry)
        return entry

    def _check_kind(self, entry: Entry) -> None:
        if entry.kind is EntryKind.FOLDER:
            if len(self._folders) > MAX_DEPTH:
                raise damaged(f"it has folders deeper than {MAX_DEPTH}")
            self._folders.append((entry.path, set()))
        elif entry.is_linked:
            self._linked.add(entry.path)
        if entry.kind is EntryKind.HARDLINK and entry.target not in self._linked:
            raise damaged(f"{entry.path[:100]!r} is a link to a file that did not come before it")
        if entry.kind is EntryKind.SYMLINK and not 0 < len(os.fsencode(entry.target)) < 4096:
            raise damaged(f"{entry.path[:100]!r} is a link to nothing")

    def _begin(self, entry: Entry) -> None:
        if self._is_begun or entry.path or entry.kind not in (EntryKind.FOLDER, EntryKind.FILE):
            raise damaged("a volume does not begin with its root")
        self._is_begun = True
        if entry.kind is EntryKind.FOLDER:
            self._folders.append(("", set()))


def _inner(entry: Entry, number: int) -> Entry:
    """Return an entry with the paths that it has in its volume."""
    prefix = f"{VOLUMES}{number}/"
    path = entry.path.removeprefix(prefix)
    target = entry.target
    if entry.kind is EntryKind.FOLDER:
        path = path[:-1] if path.endswith("/") else path
    if entry.kind is EntryKind.HARDLINK:
        if not target.startswith(prefix):
            raise damaged(f"{entry.path[:100]!r} is a link out of its volume")
        target = target[len(prefix) :]
    return msgspec.structs.replace(entry, path=path, target=target)
