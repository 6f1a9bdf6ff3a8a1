"""A listing as a ZIP: the same files are the same bytes, whenever and by whomever they were written.

All members are of one moment (1980, the first that a ZIP knows) and of two modes (0644, 0755), deflated, with what is only known
at their end after them, so that a reader can unpack the stream as it comes. Zip64 where needed, and only there.
A file is read up to the size that it was listed with. What could not be read, or changed, is told in a last member.

Everything blocks: for slices.Work.
"""

import json
import os
import stat
import zlib
from collections.abc import Iterator
from typing import Protocol
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from agentainerd.archives.listings import Entry, Kind, Listing, Omissions, stamp_of, why
from agentainerd.archives.opening import close_now, open_file

PIECE_BYTES = 256 * 1024
_END_BYTES = 1024  # what the report's member and the end of a ZIP take at most, beside its text
_UNIX = 3
_MOMENT = (1980, 1, 1, 0, 0, 0)
_SAMPLE_BYTES = 8 * 1024
_FAST, _STORED = 1, 0
_FILE, _PROGRAM = stat.S_IFREG | 0o644, stat.S_IFREG | 0o755
_FOLDER, _LINK = stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777
_MSDOS_FOLDER = 0x10


class Sink(Protocol):
    """What takes the bytes, in order."""

    def write(self, data: bytes, /) -> int:
        """Take all of them and return how many those are."""

    def flush(self) -> None:
        """Do nothing: zipfile asks for it after each member."""

    def close(self) -> None:
        """Take nothing any more."""


def write_zip(root: int, listing: Listing, sink: Sink) -> Iterator[None]:
    """Write a ZIP of what is listed below the open folder `root`, in steps of at most PIECE_BYTES of one file.

    Raises:
        OSError: from the sink.
    """
    omissions = Omissions(listing.omissions.count, list(listing.omissions.kept))
    archive = ZipFile(sink, "w", ZIP_DEFLATED)
    for entry in listing.entries:
        yield
        if entry.kind is Kind.FOLDER:
            archive.mkdir(_folder_info(entry.name + "/"))
        elif entry.kind is Kind.LINK:
            archive.writestr(_info(entry.name, _LINK), entry.target)
        else:
            yield from _write_file(archive, root, entry, omissions)
    if omissions.count:
        report = _report(omissions, listing.bounds.report_bytes - _END_BYTES)
        archive.writestr(_info(listing.report_name, _FILE), report)
    archive.close()


def _write_file(archive: ZipFile, root: int, entry: Entry, omissions: Omissions) -> Iterator[None]:
    try:
        descriptor, before = open_file(root, entry.path)
    except OSError as exc:
        omissions.add(entry.name, why(exc))
        return
    try:
        info = _info(entry.name, _PROGRAM if entry.is_executable else _FILE)
        info.file_size = entry.size  # what it says about Zip64
        info._compresslevel = _level(descriptor, entry.size)  # type: ignore[attr-defined]  # public from Python 3.13 on
        with archive.open(info, "w") as member:
            offset = 0
            while offset < entry.size and (piece := _piece(descriptor, offset, entry, omissions)):
                member.write(piece)
                offset += len(piece)
                yield
        if stamp_of(before) != entry.stamp or stamp_of(os.fstat(descriptor)) != entry.stamp:
            omissions.add(entry.name, "it changed while it was packed: what is here may be of two moments")
    finally:
        close_now(descriptor)


def _piece(descriptor: int, offset: int, entry: Entry, omissions: Omissions) -> bytes:
    """Return what comes next, or b"" at the end, which a file may have come to have earlier."""
    try:
        return os.pread(descriptor, min(PIECE_BYTES, entry.size - offset), offset)
    except OSError as exc:
        omissions.add(entry.name, f"{why(exc)} at byte {offset}: what follows is left out")
        return b""


def _level(descriptor: int, size: int) -> int:
    """Return how hard to try: what is compressed already is stored, which takes a hundredth of the time."""
    if size <= _SAMPLE_BYTES:
        return _FAST
    try:
        places = (0, size // 2, max(size - _SAMPLE_BYTES, 0))
        samples = [os.pread(descriptor, _SAMPLE_BYTES, place) for place in places]
    except OSError:
        return _FAST
    packed = sum(
        len(zlib.compress(sample, _FAST)) for sample in samples
    )  # each by itself: they are far from each other
    return _STORED if packed > sum(map(len, samples)) * 0.95 else _FAST


def _folder_info(name: str) -> ZipInfo:
    info = _info(name, _FOLDER)
    info.external_attr |= _MSDOS_FOLDER
    info.compress_type = ZIP_STORED
    info.CRC = 0
    return info


def _info(name: str, mode: int) -> ZipInfo:
    info = ZipInfo(name, _MOMENT)
    info.create_system = _UNIX
    info.compress_type = ZIP_DEFLATED
    info.external_attr = mode << 16
    return info


def _report(omissions: Omissions, limit: int) -> bytes:
    """Return one line for each of the first, at most `limit` bytes in all."""
    lines = [f"{omissions.count} left out, or not as it was:\n".encode()]
    room = limit - len(lines[0]) - 100
    for name, reason in omissions.kept:
        line = f"{_shown(name) or '.'}: {_shown(reason)}\n".encode()
        if len(line) > room:
            break
        room -= len(line)
        lines.append(line)
    if omissions.count > len(lines) - 1:
        lines.append(f"... and {omissions.count - len(lines) + 1} more\n".encode())
    return b"".join(lines)


def _shown(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)
