r"""A file of variables (`--env-file`), in the grammar that docker compose has for its `.env`: what it says, and on which line.

`NAME=value` or `NAME: value`, with `export` before it or not; `#` begins a comment at the start of a line, and behind a
space. In single quotes a value is what it is (`\'` is a quote); in double quotes `\n \r \t \\ \" \$` are escapes; both may go
over several lines. Outside single quotes `$NAME`, `${NAME}` and `${NAME:-otherwise}` (also `-`, `+`, `:+`, `?`, `:?`) stand for
a variable of the environment, else of a line above, and `$$` for `$`. One that is nowhere is an error here, where compose puts
nothing: so a password would lose its end. Values are secrets: no message has any part of one.
"""

import os
import re
import stat
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

from agentainerd.config_sources import MAX_FILE_BYTES

_KEY = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*(?:([=:])[ \t]*|(?=\n|#|\Z))")
_BLANK = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n)*[ \t]*(?:#[^\n]*\Z)?")
_COMMENT = re.compile(r"(?:^|[ \t])#.*")
_SINGLE = re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL)
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_REST = re.compile(r"[ \t]*(?:[ \t]#[^\n]*)?(?=\n|\Z)")
_VARIABLE = r"\$(?:(\$)|([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-+?])([^}\n]*))?\}|(\{))"
_IN_BARE = re.compile(_VARIABLE)
_IN_DOUBLE = re.compile(_VARIABLE + r"|\\([nrt\\\"$])")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass(slots=True)
class Dotenv:
    """What a file of variables says. `places`: name to "file:line"; `is_open`: whether others than its owner can read it."""

    values: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    is_open: bool = False


def read_dotenv(path: str, environment: Mapping[str, str]) -> Dotenv:
    """Return what a file says; an unreadable or broken one is a problem, not an exception. Blocks on the disk.

    `environment` has the variables that its values may stand on. A name without a value is one that the environment has, if any.
    """
    found = Dotenv()
    try:
        with open(path, "rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
            found.is_open = bool(os.fstat(stream.fileno()).st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except OSError as exc:
        found.problems.append(f"{path}: cannot be read: {exc.strerror or exc}")
        return found
    if len(content) > MAX_FILE_BYTES:
        found.problems.append(f"{path}: is larger than {MAX_FILE_BYTES} bytes: is it a file of variables?")
        return found
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as exc:
        found.problems.append(f"{path}: is not UTF-8 text (byte {exc.start})")
        return found
    _Reader(path, text, environment, found).read()
    return found


class _Reader:
    """Walks the text of one file, a variable at a time; what can't be read is told, and skipped to the end of its line."""

    def __init__(self, path: str, text: str, environment: Mapping[str, str], found: Dotenv) -> None:
        self._path = path
        self._text = text
        self._environment = environment
        self._found = found
        self._at = 0
        self._line_ends = [end.start() for end in re.finditer("\n", text)]

    def read(self) -> None:
        while (start := self._skip_blank()) < len(self._text):
            try:
                self._read_variable(start)
            except ValueError as exc:
                self._found.problems.append(f"{self._place(start)}: {exc}")
                self._at = self._end_of_line(max(self._at, start))

    def _read_variable(self, start: int) -> None:
        key = _KEY.match(self._text, start)
        if key is None:
            raise ValueError("is not of the form NAME=value (its text is not shown: it may be part of a secret)")
        self._at = key.end()
        name, sign = key.groups()
        if sign is None:
            return
        try:
            value = self._read_value()
        except ValueError as exc:
            raise ValueError(f"{name}: {exc}") from None
        if "\0" in value:
            raise ValueError(f"{name}: has a NUL in it")
        if name in self._found.values:
            self._found.warnings.append(f"{self._place(start)}: {name} is there twice: the one above is not used")
        self._found.values[name] = value
        self._found.places[name] = self._place(start)

    def _read_value(self) -> str:
        quote = self._text[self._at : self._at + 1]
        if quote not in ("'", '"') or not quote:
            start, self._at = self._at, self._end_of_line(self._at)
            return _IN_BARE.sub(self._fill, _COMMENT.sub("", self._text[start : self._at], count=1).strip(" \t"))
        quoted = (_SINGLE if quote == "'" else _DOUBLE).match(self._text, self._at)
        if quoted is None:
            self._at = len(self._text)
            raise ValueError(f"begins with {quote} and has no {quote} at its end")
        self._at = quoted.end()
        if not _REST.match(self._text, self._at):
            raise ValueError(f"has something behind its second {quote}: a comment needs a space before its #")
        self._at = self._end_of_line(self._at)
        return quoted.group(1).replace("\\'", "'") if quote == "'" else _IN_DOUBLE.sub(self._fill, quoted.group(1))

    def _fill(self, match: re.Match[str]) -> str:
        dollar, plain, braced, sign, word, broken, *escape = match.groups()
        if dollar:
            return "$"
        if escape and escape[0]:
            return _ESCAPES.get(escape[0], escape[0])
        if broken:
            raise ValueError("has a ${ that is no variable: write $$ for a dollar sign, or the value in single quotes")
        name = plain or braced
        value = self._environment.get(name)
        if value is None:
            value = self._found.values.get(name)
        is_there = bool(value) if sign and sign[0] == ":" else value is not None
        if sign and sign[-1] == "+":
            return str(word) if is_there else ""
        if is_there:
            return str(value)
        if sign and sign[-1] == "-":
            return str(word)
        raise ValueError(
            "stands on a variable that is not set: write $$ for a dollar sign, or the value in single quotes"
        )

    def _skip_blank(self) -> int:
        if blank := _BLANK.match(self._text, self._at):
            self._at = blank.end()
        return self._at

    def _end_of_line(self, at: int) -> int:
        end = self._text.find("\n", at)
        return end if end >= 0 else len(self._text)

    def _place(self, at: int) -> str:
        return f"{self._path}:{bisect_left(self._line_ends, at) + 1}"
