"""The audit log as it is at one moment, open for reading: backwards in pages, or forwards as a check of the whole chain.

Files are read in pieces, each in a thread and small enough that nobody waits for it.
"""

import os
import re
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self

from agentainerd import offload
from agentainerd.errors import InvalidParameter
from agentainerd.model import audit as model
from agentainerd.model.audit import AuditEntry, AuditFilter, ChainCheck, Link

_PIECE_BYTES = 64 * 1024
_CHECK_BYTES = 16 * 1024  # 0.5 ms: requests are served in between
_MAX_LINE_BYTES = 64 * 1024
_CURSOR = re.compile(r"([0-9]{1,12})\.([0-9]{1,15})")


class AuditPart(NamedTuple):
    """One file: its name, its descriptor, its size and the number of its first entry."""

    name: str
    descriptor: int
    size: int
    first: int


class AuditView:
    """Files of the log, oldest first. Use it as a context, which closes them. Both methods block their greenlet only."""

    def __init__(self, parts: Sequence[AuditPart], head: Link, key: bytes) -> None:
        self._parts = tuple(parts)
        self._head = head
        self._key = key

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for part in self._parts:
            os.close(part.descriptor)

    def page(self, wanted: AuditFilter, limit: int, cursor: str) -> tuple[list[AuditEntry], str]:
        """Return entries, newest first, and where the next page begins ("" at the end). `cursor`: from there on.

        Raises:
            InvalidParameter: `cursor` is none, or what it points to has expired. OSError.
        """
        found: list[AuditEntry] = []
        parts, end = self._from(cursor)
        for part in reversed(parts):
            end = part.size if end is None else min(end, part.size)
            while end > 0:
                end, is_over = offload.run(_read_back, part, end, wanted, limit, found)
                if len(found) == limit:
                    older = end > 0 or part is not self._parts[0]
                    return found, f"{part.first}.{end}" if older else ""
                if is_over:
                    return found, ""
            end = None
        return found, ""

    def check(self) -> ChainCheck:
        """Read everything and return what is wrong with it. Raises OSError."""
        check = ChainCheck(self._key)
        number = 0
        for part in self._parts:
            offset, number, rest = 0, 0, b""
            while offset < part.size:
                offset, number, rest = offload.run(_check_piece, check, part, offset, number, rest)
            if rest:
                number += 1
                check.take(part.name, number, rest)
        check.finish(self._head, self._parts[-1].name, number)
        return check

    def _from(self, cursor: str) -> tuple[tuple[AuditPart, ...], int | None]:
        if not cursor:
            return self._parts, None
        matched = _CURSOR.fullmatch(cursor)
        for place, part in enumerate(self._parts):
            if matched and part.first == int(matched.group(1)):
                return self._parts[: place + 1], int(matched.group(2))
        raise InvalidParameter("cursor", f"{cursor[:64]!r} is not, or no longer, a place in the log")


def _read_back(part: AuditPart, end: int, wanted: AuditFilter, limit: int, found: list[AuditEntry]) -> tuple[int, bool]:
    """Read the lines that end at `end` backwards, as many as a piece has; return where the next piece ends, and whether all
    that is older is too old.
    """
    size = _PIECE_BYTES
    while True:
        start = max(0, end - size)
        piece = os.pread(part.descriptor, end - start, start)
        skipped = 0 if start == 0 else piece.find(b"\n", 0, -1) + 1
        if start == 0 or skipped:
            break
        size *= 2  # one line is longer than that: it is none of ours, and passed over
    lines = piece[skipped:].split(b"\n")
    at = end
    newest = ""
    for place, line in enumerate(reversed(lines)):
        at -= len(line) + (1 if place else 0)  # its line feed stands behind it; the last piece has none
        entry = model.parse(line)
        if entry is None:
            continue
        newest = max(newest, entry.time)
        if wanted.matches(entry):
            found.append(entry)
            if len(found) == limit:
                return max(at, 0), False
    return start + skipped, bool(newest) and newest < wanted.since


def _check_piece(check: ChainCheck, part: AuditPart, offset: int, number: int, rest: bytes) -> tuple[int, int, bytes]:
    piece = os.pread(part.descriptor, min(_CHECK_BYTES, part.size - offset), offset)
    if not piece:
        return part.size, number, rest  # it was cut meanwhile: the check misses what is gone
    *lines, rest = (rest + piece).split(b"\n")
    for line in lines:
        number += 1
        check.take(part.name, number, line)
    return offset + len(piece), number, rest[:_MAX_LINE_BYTES]  # what is longer is none of ours, wherever it ends
