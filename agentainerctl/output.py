"""What people and programs read: tables, facts, JSON, YAML, ages, colours, error messages.

Data goes to stdout, everything else to stderr. Whatever an agent or its clients can choose (paths of requests, log lines in
an error, image labels) passes `plain` before a terminal sees it: no control character survives.
"""

import json
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TextIO

from agentainerd.errors import AgentainerError
from agentainerd.units import format_duration

FORMATS = ("table", "wide", "json", "yaml", "name")
_COLOURS = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}
_UNSAFE = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")  # what json leaves as it is and a terminal obeys
# Controls but for newline and tab, what turns the direction of writing, what is there and not seen:
_UNSAFE_TEXT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_ANSI = re.compile(r"\x1b(?:\[[0-9;?:]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_GAP = "   "
_MIN_CUT = 10  # a column is never cut below this


class Column(NamedTuple):
    """One column of a table. `can_shrink`: on a terminal that is too narrow it is cut; never in a pipe."""

    title: str
    can_shrink: bool = False


def plain(text: object) -> str:
    r"""Return `text` on one line and without control characters: they are shown as escapes, such as `\x1b`."""
    value = str(text)
    if value.isprintable():
        return value
    return "".join(char if char.isprintable() else _escaped(char) for char in value)


def plain_text(text: str) -> str:
    r"""Return `text` of any number of lines without control characters but newline and tab; the others become escapes.

    Spaces of all kinds and joined emoji stay as they are; what turns or hides text does not.
    """
    return _UNSAFE_TEXT.sub(lambda match: _escaped(match.group()), text)


def strip_ansi(text: str) -> str:
    """Return a line of a build without its colours and cursor movements, then made `plain`; tabs become spaces."""
    return plain(_ANSI.sub("", text.rstrip("\r\n").rpartition("\r")[2]).expandtabs(4))


def display_width(text: str) -> int:
    """Return how many terminal cells `text` takes."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def shorten(text: str, width: int) -> str:
    """Return `text` in at most `width` cells, with `...` for what is left out at its end."""
    most = text[: 8 * width]  # of a text of megabytes not every sign is measured
    if most == text and display_width(text) <= width:
        return text
    kept = most[: width - 3]
    while display_width(kept) > width - 3:
        kept = kept[:-1]
    return f"{kept}..."


def has_colours(stream: TextIO) -> bool:
    """Colours may be used on `stream`: a terminal that isn't dumb, and no NO_COLOR."""
    return not os.environ.get("NO_COLOR") and is_terminal(stream)


def is_terminal(stream: TextIO) -> bool:
    """Lines on `stream` can be rewritten."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def terminal_width(stream: TextIO) -> int:
    """Return the columns of the terminal that `stream` is: COLUMNS, else what the terminal says, else 80."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80


def paint(text: str, colour: str, stream: TextIO) -> str:
    """Return `text` in `colour` ("" for none), where `stream` has colours."""
    if not colour or not has_colours(stream):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], *, colours: Mapping[str, str] | None = None
) -> None:
    """Print `rows` under the columns' titles, without borders, wide as their content.

    On a terminal, columns that can shrink are cut so that no line wraps; in a pipe nothing is cut. `colours`: of whole
    cells, by their text.
    """
    cells = [[column.title for column in columns], *[[plain(cell) for cell in row] for row in rows]]
    widths = [max(display_width(line[index]) for line in cells) for index in range(len(columns))]
    if sys.stdout.isatty():
        _shrink(widths, columns, terminal_width(sys.stdout))
    for number, line in enumerate(cells):
        last = len(line) - 1
        parts = []
        for index, cell in enumerate(line):
            shown = shorten(cell, widths[index])
            padding = "" if index == last else " " * (widths[index] - display_width(shown))
            colour = "bold" if number == 0 else (colours or {}).get(cell, "")
            parts.append(paint(shown, colour, sys.stdout) + padding)
        print(_GAP.join(parts).rstrip())


def facts(pairs: Iterable[tuple[str, object]], *, indent: str = "") -> None:
    """Print one `Title: value` a line, values aligned; pairs whose value is None or "" are left out."""
    shown = [(title, plain(value)) for title, value in pairs if value not in (None, "")]
    width = max((len(title) for title, _ in shown), default=0) + 1
    for title, value in shown:
        print(f"{indent}{title + ':':{width}} {value}".rstrip())


def machine(data: object, output: str) -> None:
    """Print `data` as one JSON or YAML document."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    if output == "json":
        print(_UNSAFE.sub(lambda match: f"\\u{ord(match.group()):04x}", text))
        return
    import yaml

    yaml.safe_dump(data, sys.stdout, sort_keys=False, allow_unicode=not _UNSAFE.search(text), default_flow_style=False)


def json_line(data: object) -> None:
    """Print `data` as one line of JSON, at once: it is one of a stream."""
    print(json.dumps(data), flush=True)


def age(moment: object, now: float | None = None) -> str:
    """Return an RFC 3339 time as "3 minutes ago", or "" where there is none."""
    at = epoch(moment)
    if not at:
        return ""
    seconds = (time.time() if now is None else now) - at
    if seconds < -1:
        return f"in {format_duration(1 - seconds)}"  # what lasts 30 days has 30 days when it was just made
    return "just now" if seconds < 1 else f"{format_duration(seconds)} ago"


def epoch(moment: object) -> float:
    """Return the epoch seconds of an RFC 3339 text or a number, 0.0 where it is neither."""
    if isinstance(moment, int | float):
        return float(moment)
    try:
        return datetime.fromisoformat(str(moment)).timestamp()
    except ValueError:
        return 0.0


def begin_screen(stream: TextIO) -> None:
    """Empty a terminal, for what is shown again and again; anywhere else print an empty line."""
    print("\x1b[H\x1b[2J" if is_terminal(stream) else "", end="" if is_terminal(stream) else "\n", file=stream)


def say(text: str) -> None:
    """Print one line of data on stdout."""
    print(text)


def note(text: str) -> None:
    """Tell a person something on stderr that is neither data nor an error."""
    print(text, file=sys.stderr)


def report(error: AgentainerError, *, output: str = "table", code: int = 1) -> None:
    """Print `error` on stderr: what and why, the evidence (exit code, last log lines), the hint; or as JSON."""
    if output in ("json", "yaml"):
        print(
            _UNSAFE.sub(lambda match: f"\\u{ord(match.group()):04x}", json.dumps(_as_json(error, code))),
            file=sys.stderr,
        )
        return
    stream = sys.stderr
    first, *more = error.message.splitlines() or [""]
    print(f"{paint('error:', 'red', stream)} {plain(first)}", file=stream)
    for line in more:
        print(f"  {plain(line)}", file=stream)
    for line in _evidence(error):
        print(f"  {line}", file=stream)
    if error.hint:
        print(f"{paint('hint:', 'yellow', stream)} {plain(error.hint)}", file=stream)


def _as_json(error: AgentainerError, code: int) -> dict[str, Any]:
    body: dict[str, Any] = {
        "success": False,
        "message": error.message,
        "error": error.message,
        "code": error.code,
        "exit_code": code,
    }
    if error.hint:
        body["hint"] = error.hint
    if error.details:
        body["details"] = error.details
    return body


def _evidence(error: AgentainerError) -> Iterable[str]:
    details = error.details
    if details.get("exit_code") is not None:
        yield f"exit code {plain(details['exit_code'])}" + (", out of memory" if details.get("oom_killed") else "")
    step = plain(details.get("step") or "")
    if step and step not in error.message:
        yield f"step: {step}"
    log = details.get("log") or details.get("lines")  # of an agent; of a build
    if isinstance(log, list) and log:
        yield "last lines of its output:"
        for line in log:
            yield f"  | {strip_ansi(str(line))}"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode()


def _shrink(widths: list[int], columns: Sequence[Column], available: int) -> None:
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - available
    while excess > 0:
        candidates = [index for index, column in enumerate(columns) if column.can_shrink and widths[index] > _MIN_CUT]
        if not candidates:
            return
        widest = max(candidates, key=lambda index: widths[index])
        widths[widest] -= 1
        excess -= 1
