"""The daemon's log on disk, `<state>/logs`: one JSON object a line, in files that are set aside by size and by age.

The current file is agentainerd.log; one that is set aside has the time of that in its name, so that names sort by age. One
writes (LogWriter, in a thread of its own), any number reads (LogFiles). Also the channel in Redis.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agentainerd.store import keys
from agentainerd.store.connection import RedisClient

LOG_FOLDER = "logs"  # in the state folder
CURRENT = "agentainerd.log"
PIECE_BYTES = 64 * 1024
_ASIDE = CURRENT + "."
_HEAD_BYTES = 64
_STAMP_AT = slice(9, 35)  # of the time in {"time":"2026-11-20T22:03:42.123456Z", the first field of a line


@dataclass(frozen=True, slots=True)
class Limits:
    """A file is set aside when it has `file_bytes`, or its first line is `file_age_s` old; `files` are kept, the current one
    included.
    """

    file_bytes: int
    file_age_s: float
    files: int


class LogWriter:
    """Appends lines. Blocks for as long as the disk takes, so it is for a thread of its own; knows neither locks nor greenlets.

    Raises:
        OSError: from every method; what was given is not written then, or not all of it.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.limits = limits
        self._folder = folder
        self._path = folder / CURRENT
        self._file = -1
        self._size = 0
        self._began_at = 0.0

    def write(self, lines: bytes) -> None:
        """Append whole lines, in a new file where it is time for one."""
        if self._file < 0:
            self._open()
        if self._size and (
            self._size + len(lines) > self.limits.file_bytes or time.time() - self._began_at > self.limits.file_age_s
        ):
            self._set_aside()
            self._open()
        left = memoryview(lines)
        while left:
            written = os.write(self._file, left)
            self._size += written
            left = left[written:]

    def close(self) -> None:
        """Close the file; a later line opens it again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._file).st_size
        self._began_at = time.time()
        if self._size:
            head, end = _ends_of(self._path)
            self._began_at = _moment(head) or self._began_at
            if end != b"\n":  # the machine went down in the middle of a line
                os.write(self._file, b"\n")

    def _set_aside(self) -> None:
        self.close()
        name = _ASIDE + datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self._path.rename(self._folder / name)
        for path in _set_aside_in(self._folder)[: -(self.limits.files - 1) or None]:
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the files: of the one that begins so, whatever it is called by now (an inode would be used again)."""

    head: bytes = b""
    offset: int = 0


class LogFiles:
    """Reads what was written. Every method blocks for as long as the disk takes: for offload.run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, since: str) -> Position:
        """Return a place before the first entry of this time (as in entries; "" for all), and not far from it."""
        for path in self._paths():
            if path.name == CURRENT or _name_stamp(since) <= path.name.removeprefix(_ASIDE):
                return Position(_head(path))
        return Position()

    def starts(self) -> list[Position]:
        """Return the beginning of each file, the newest first."""
        return [Position(head) for path in reversed(self._paths()) if (head := _head(path))]

    def read(self, position: Position) -> tuple[list[bytes], Position]:
        """Return whole lines from a place on, some PIECE_BYTES of them, and the place after them; no lines: there are none yet.

        What was removed meanwhile is left out.
        """
        found = {head: path for path in self._paths() if (head := _head(path))}
        heads = list(found)
        at = heads.index(position.head) if position.head in found else 0
        for head in heads[at:]:
            offset = position.offset if head == position.head else 0
            if lines := _read_lines(found[head], head, offset):
                return lines.splitlines(), Position(head, offset + len(lines))
            position = Position(head, offset)
        return [], position

    def _paths(self) -> list[Path]:
        """Return the files, the oldest first."""
        current = self._folder / CURRENT
        return [*_set_aside_in(self._folder), *([current] if current.exists() else [])]


class LogChannel:
    """The channel of Redis on which entries are told to whoever listens."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    def publish(self, lines: Sequence[bytes]) -> None:
        """Tell of entries, each as it is in the file.

        Raises:
            Unavailable: Redis does not answer.
        """
        self._client.calls([("PUBLISH", keys.LOG_CHANNEL, line) for line in lines])


def _set_aside_in(folder: Path) -> list[Path]:
    return sorted(folder.glob(_ASIDE + "*Z"))


def _head(path: Path) -> bytes:
    """Return how a file begins; two of them do not begin alike, because its first line has its time."""
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except FileNotFoundError:  # removed or set aside since it was listed
        return b""


def _name_stamp(stamp: str) -> str:
    """Return the time of an entry as it would be in the name of a file."""
    return stamp.replace("-", "").replace(":", "")


def _moment(line: bytes) -> float:
    """Return when a line was written, 0.0 where it does not say."""
    try:
        return datetime.fromisoformat(line[_STAMP_AT].decode() + "+00:00").timestamp()
    except ValueError:
        return 0.0


def _ends_of(path: Path) -> tuple[bytes, bytes]:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(-1, os.SEEK_END)
        return head, file.read(1)


def _read_lines(path: Path, head: bytes, offset: int) -> bytes:
    """Return some whole lines of a file; none where it is another one by now."""
    try:
        with path.open("rb") as file:
            if file.read(_HEAD_BYTES) != head:
                return b""
            file.seek(offset)
            piece = file.read(PIECE_BYTES)
            while piece and b"\n" not in piece:
                more = file.read(PIECE_BYTES)
                if not more:
                    return b""
                piece += more
    except FileNotFoundError:
        return b""
    return piece[: piece.rfind(b"\n") + 1]
