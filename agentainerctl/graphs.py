"""Small graphs for a terminal: one line of block characters, as high as the values of equal spans of time."""

import sys
import time
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN_BLOCKS = "_.-=+*%#"
"""For terminals that have ASCII only."""


def blocks() -> str:
    """Return the characters that stdout can show, the lowest first."""
    try:
        BLOCKS.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return PLAIN_BLOCKS
    return BLOCKS


def columns(points: Sequence[tuple[float, float]], begin: float, end: float, count: int) -> list[float | None]:
    """Return the means of `points`, (epoch seconds, value), in `count` equal spans from `begin` to `end`; None: no point."""
    sums, numbers = [0.0] * count, [0] * count
    for at, value in points:
        place = int((at - begin) // ((end - begin) / count))
        if 0 <= place < count:
            sums[place] += value
            numbers[place] += 1
    return [total / number if number else None for total, number in zip(sums, numbers, strict=True)]


def line(values: Sequence[float | None], characters: str = BLOCKS) -> str:
    """Return a graph of values from 0 to the largest of them; a space where there is none."""
    top = max((value for value in values if value is not None), default=0.0)
    steps = len(characters) - 1
    return "".join(
        " " if value is None else characters[round(value / top * steps) if top > 0 else 0] for value in values
    )


def axis(begin: float, end: float, count: int) -> str:
    """Return times of day for the beginning, the middle and the end of `count` columns."""
    first, middle, last = (
        time.strftime("%H:%M", time.localtime(at)) for at in (begin, (begin + end) / 2, end)
    )  # fmt: skip
    if count < 20:
        return f"{first:<{max(count - 5, 6)}}{last}"
    half = count // 2
    return f"{first:<{half - 2}}{middle:<{count - half - 3}}{last}"
