"""The gzip of an archive: written in parts that are compressed where that is worth it, read in bounded memory and time.

Everything blocks: for offload.run.
"""

import zlib
from collections.abc import Callable
from typing import BinaryIO

from agentainerd.model.backups import damaged
from agentainerd.services.backup_progress import Watch
from agentainerd.services.backup_tar import PIECE_BYTES

_GZIP = 31
_PART_BYTES = 1024 * 1024  # is compressed by itself; or, at its edge, a little more
_MIN_PART_BYTES = 64 * 1024  # of one that is not the last
_SAMPLE_BYTES = 8 * 1024
_FAST, _STORED = 1, 0


class Gzip:
    """Compresses in parts, each a member of a gzip file (RFC 1952, 2.2), which together are one to any reader.

    What does not get smaller is stored: level 1 takes 28 MiB/s of it and 260 of text, storing 480. Level 6 takes twice as long as
    level 1 for a few percent.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._part = bytearray()

    def put(self, data: bytes) -> None:
        """Add some."""
        self._part += data
        if len(self._part) >= _PART_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what there is as a part."""
        if self._part:
            pack = zlib.compressobj(self._level(), zlib.DEFLATED, _GZIP)
            self._write(pack.compress(self._part) + pack.flush())
            self._part = bytearray()

    def _level(self) -> int:
        size, view = len(self._part), memoryview(self._part)
        places = (0, size // 2, max(size - _SAMPLE_BYTES, 0))
        sample = b"".join(view[place : place + _SAMPLE_BYTES] for place in places)
        view.release()
        return _STORED if len(zlib.compress(sample, _FAST)) > len(sample) * 0.95 else _FAST


class Gunzip:
    """The bytes of a gzip file, in bounded memory."""

    def __init__(self, file: BinaryIO, watch: Watch) -> None:
        self._file = file
        self._watch = watch
        self._unpack = zlib.decompressobj(_GZIP)
        self._in_part = 0
        self._ready = b""
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes."""
        pieces, left = [], size
        while left:
            if self._at == len(self._ready):
                self._ready, self._at = self._inflate(), 0
                if not self._ready:
                    raise damaged("it ends too early")
            piece = self._ready[self._at : self._at + left]
            self._at += len(piece)
            pieces.append(piece)
            left -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def end(self) -> None:
        """Check that nothing follows."""
        if self._at != len(self._ready) or self._inflate():
            raise damaged("it goes on after its end")

    def _inflate(self) -> bytes:
        """Return the next piece; b"" at the end of the file."""
        while True:
            packed = self._packed()
            if not packed:
                return b""
            try:
                data = self._unpack.decompress(packed, PIECE_BYTES)
            except zlib.error as exc:
                raise damaged(f"it can't be decompressed ({exc})") from exc
            self._watch.did(len(packed) - len(self._unpack.unconsumed_tail) - len(self._unpack.unused_data))
            self._in_part += len(data)
            if data:
                return data

    def _packed(self) -> bytes:
        """Return what comes next of the file, for a new part where one has ended; b"" at the end of the file."""
        if not self._unpack.eof:
            packed = self._unpack.unconsumed_tail or self._file.read(PIECE_BYTES // 4)
            if not packed:
                raise damaged("it ends too early")
            return packed
        packed = self._unpack.unused_data or self._file.read(PIECE_BYTES // 4)
        if packed and self._in_part < _MIN_PART_BYTES:
            raise damaged("it is in too many parts")  # each would cost far more than its bytes
        self._unpack, self._in_part = zlib.decompressobj(_GZIP) if packed else self._unpack, 0
        return packed
