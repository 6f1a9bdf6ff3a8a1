"""Prints a transcript as it grows: the answer on stdout, what the agent does on stderr, which may be one terminal or file."""

import os
import sys
from collections.abc import Iterable
from typing import TextIO

from agentainerctl.output import paint
from agentainerctl.progress import Region, waiting_line
from agentainerctl.transcript import Piece


class Console:
    """Where pieces go. It knows for each stream whether its line is ended; where both are one, a line is never shared.

    While nothing comes, `wait` shows on a terminal that something is still awaited.
    """

    def __init__(self) -> None:
        self._region = Region()
        self._is_one = _is_same(sys.stdout, sys.stderr)
        self._last: TextIO = sys.stdout
        self._is_open: dict[TextIO, bool] = {}
        self._is_writing = False

    def write(self, pieces: Iterable[Piece]) -> None:
        """Print `pieces`."""
        for piece in pieces:
            self._write(piece, sys.stdout if piece.is_answer else sys.stderr)
        self._last.flush()

    def note(self, text: str) -> None:
        """Print a line of ours on stderr."""
        self._write(Piece(f"{text}\n"), sys.stderr)
        sys.stderr.flush()

    def wait(self, text: str, seconds: float) -> None:
        """Show for how long `text` has been going on, where no line is begun that it would break."""
        if not self._is_writing and not any(self._is_open.values()):
            self._region.show([waiting_line(text, seconds)])

    def end_line(self) -> None:
        """End the lines that are begun, so that something else may print."""
        self._is_writing = False  # Ctrl-C may have kept it from being ended
        self._region.clear()
        self._end(sys.stdout)
        self._end(sys.stderr)

    def _write(self, piece: Piece, stream: TextIO) -> None:
        self._is_writing = True  # an alarm may come at any moment
        self._region.clear()
        if self._is_one and stream is not self._last:
            self._end(self._last)  # flushed, so that the two come in their order
        if piece.is_fresh:
            self._end(stream)
        if piece.text:
            stream.write(paint(piece.text, piece.colour, stream))
            self._is_open[stream] = not piece.text.endswith("\n")
            self._last = stream
        self._is_writing = False

    def _end(self, stream: TextIO) -> None:
        if self._is_open.get(stream):
            stream.write("\n")
            self._is_open[stream] = False
        stream.flush()


def _is_same(one: TextIO, other: TextIO) -> bool:
    """Return whether two streams go to one place: a terminal, or a pipe or file after `2>&1`."""
    try:
        first, second = os.fstat(one.fileno()), os.fstat(other.fileno())
    except (OSError, ValueError):
        return False
    return (first.st_dev, first.st_ino, first.st_rdev) == (second.st_dev, second.st_ino, second.st_rdev)
