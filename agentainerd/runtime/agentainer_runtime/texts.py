"""Text files: what is one, and how two versions differ."""

import difflib
import os

PROBED_BYTES = 8192
MAX_DIFFED_LINES = 4000  # in both together; more is told as one hunk, which takes no time


def is_binary(beginning: bytes) -> bool:
    """Whether a file that begins like this (PROBED_BYTES are enough) is no text: it has a NUL, as git judges."""
    return b"\0" in beginning[:PROBED_BYTES]


def decode(content: bytes) -> str:
    """Return the text; bytes that are not UTF-8 survive, as lone surrogates, until `encode`."""
    return content.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """Return the bytes of a text from `decode`."""
    return text.encode("utf-8", "surrogateescape")


def printable(text: str) -> str:
    """Return `text` with bytes that are not UTF-8 shown as U+FFFD, as JSON can have it."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def unified_diff(path: str, old: bytes | None, new: bytes | None) -> str:
    """Return how the content of `path` changed, as git writes it; None is a file that is not there, "" where one is no text."""
    if is_binary(old or b"") or is_binary(new or b""):
        return ""
    before, after = (decode(content or b"").splitlines(keepends=True) for content in (old, new))
    names = "/dev/null" if old is None else f"a/{path}", "/dev/null" if new is None else f"b/{path}"
    if len(before) + len(after) <= MAX_DIFFED_LINES:
        lines = list(difflib.unified_diff(before, after, *names))
    else:
        lines = _one_hunk(before, after, *names)
    return printable(
        "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    )


def _one_hunk(before: list[str], after: list[str], old_name: str, new_name: str) -> list[str]:
    same = len(os.path.commonprefix([before, after]))
    at_end = 0
    while at_end < min(len(before), len(after)) - same and before[-1 - at_end] == after[-1 - at_end]:
        at_end += 1
    removed, added = before[same : len(before) - at_end], after[same : len(after) - at_end]
    if not removed and not added:
        return []
    first = same - 3 if same > 3 else 0
    context, tail = before[first:same], before[len(before) - at_end :][:3]
    sides = [
        f"{first + 1 if size else first},{size}"
        for size in (len(context) + len(lines) + len(tail) for lines in (removed, added))
    ]
    return [
        f"--- {old_name}\n",
        f"+++ {new_name}\n",
        f"@@ -{sides[0]} +{sides[1]} @@\n",
        *(" " + line for line in context),
        *("-" + line for line in removed),
        *("+" + line for line in added),
        *(" " + line for line in tail),
    ]
