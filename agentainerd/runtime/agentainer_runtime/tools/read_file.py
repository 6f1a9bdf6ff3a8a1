"""read_file: lines of a text file, of outputs that were too long for an answer, too."""

import os
import time
from io import BufferedReader
from typing import Any

from agentainer_runtime import file_policy, paths, texts
from agentainer_runtime.built_in import BuiltIn, ToolFailed, about, in_thread
from agentainer_runtime.tool import ToolContext

MAX_LINES = 2000
MAX_LINE_CHARACTERS = 2000
MAX_CHARACTERS = 60_000
TIME_LIMIT_S = 20.0
COUNTED_BYTES = 64 * 1024 * 1024  # lines after the last one shown are counted that far


def tool() -> BuiltIn:
    """Make it."""
    return BuiltIn(
        name="read_file",
        description=(
            "Read a text file of the workspace. Of a long one, or from a certain line on, give offset and limit. "
            f"Lines over {MAX_LINE_CHARACTERS} characters are cut."
        ),
        properties={
            "path": {"type": "string", "description": "the file, relative to the workspace"},
            "offset": {"type": "integer", "minimum": 1, "default": 1, "description": "the first line, from 1"},
            "limit": {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_LINES,
                "default": MAX_LINES,
                "description": "how many lines",
            },
        },
        work=_work,
    )


async def _work(arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    return await in_thread(_read, context, arguments["path"], arguments["offset"], arguments["limit"])


def _read(context: ToolContext, path: str, offset: int, limit: int) -> dict[str, Any]:
    file_policy.check(context.workspace, path)
    until = min(context.deadline_s, time.monotonic() + TIME_LIMIT_S)
    with about(path), paths.regular_file(context.workspace, path) as descriptor:
        size = os.fstat(descriptor).st_size
        if texts.is_binary(os.pread(descriptor, texts.PROBED_BYTES, 0)):
            raise ToolFailed(f"{path} is not text: a binary file of {size} bytes")
        with open(descriptor, "rb", closefd=False) as file:
            for _ in range(offset - 1):
                if not _line(file, until):
                    break
            lines, more = _lines(file, limit, until)
            total, is_exact = (offset - 1 + len(lines), True) if not more else _count(file, offset + len(lines))
    return _answer(path, offset, lines, total if is_exact else None, more)


def _lines(file: BufferedReader, limit: int, until: float) -> tuple[list[str], bool]:
    """Read up to `limit` lines and MAX_CHARACTERS; tell whether another line was begun."""
    lines: list[str] = []
    room = MAX_CHARACTERS
    while line := _line(file, until):
        room -= len(line)
        if len(lines) == limit or (room < 0 and lines):
            return lines, True
        lines.append(line)
    return lines, False


def _line(file: BufferedReader, until: float) -> str:
    """Read a line, cut it, and leave the file at the next one. "" is the end."""
    if time.monotonic() > until:
        raise ToolFailed(
            "the file is too long to be read up to there: look for it with search_files, or with a program"
        )
    most = 4 * MAX_LINE_CHARACTERS
    content = piece = file.readline(most)
    while piece and not piece.endswith(b"\n"):
        piece = b"\n" if time.monotonic() > until else file.readline(1024 * 1024)
    text = content.decode("utf-8", "replace")
    if len(text.rstrip("\r\n")) > MAX_LINE_CHARACTERS:
        return text[:MAX_LINE_CHARACTERS] + " [... cut]\n"
    return text


def _count(file: BufferedReader, so_far: int) -> tuple[int, bool]:
    """Return how many lines there are, `so_far` having been read, and whether that is all."""
    last = b"\n"
    for _ in range(COUNTED_BYTES // (1024 * 1024)):
        piece = file.read(1024 * 1024)
        if not piece:
            return so_far + (last != b"\n"), True
        so_far += piece.count(b"\n")
        last = piece[-1:]
    return so_far, not file.read(1)


def _answer(path: str, offset: int, lines: list[str], total: int | None, more: bool) -> dict[str, Any]:
    if not lines and offset > 1:
        raise ToolFailed(f"{path} has {total} lines: there is no line {offset}")
    content = "".join(lines)
    if not more and offset == 1:
        return {"content": content}
    last = offset + len(lines) - 1
    of = f"of {total}" if total is not None else "of very many"
    onward = f"; go on with offset {last + 1}" if more else ""
    return {"notice": f"lines {offset} to {last} {of}{onward}", "content": content}
