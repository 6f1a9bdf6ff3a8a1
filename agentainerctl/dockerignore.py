"""`.dockerignore`: which paths of a build context stay at home.

The rules are the engine's documented ones: one pattern a line; `#` begins a comment; `*`, `?` and `[...]` stay within a
path component, `**` does not; a pattern that matches a folder matches all below it; `!` takes back; the last match wins.
"""

import posixpath
import re
from collections.abc import Iterable
from typing import NamedTuple

from agentainerd.errors import InvalidParameter

_WILDCARDS = frozenset("*?[\\")


class _Rule(NamedTuple):
    regex: re.Pattern[str]
    is_exception: bool
    pattern: str


class Ignore:
    """The patterns of one file, in their order."""

    def __init__(self, lines: Iterable[str], source: str = ".dockerignore") -> None:
        """Read the patterns.

        Raises:
            InvalidParameter: a pattern is malformed; `source` is named in the message.
        """
        self._rules = [rule for line in lines if (rule := _rule(line, source))]
        self._exceptions = [rule.pattern for rule in self._rules if rule.is_exception]

    def excludes(self, path: str) -> bool:
        """The path (relative, with `/`) is left out."""
        excluded = False
        for rule in self._rules:
            if rule.is_exception == excluded and rule.regex.fullmatch(path):
                excluded = not rule.is_exception
        return excluded

    def excludes_all_below(self, folder: str) -> bool:
        """Nothing under this excluded folder can be taken back, so it needn't be read."""
        for pattern in self._exceptions:
            if _WILDCARDS & set(pattern):
                return False
            if f"{pattern}/".startswith(f"{folder}/") or f"{folder}/".startswith(f"{pattern}/"):
                return False
        return True


def _rule(line: str, source: str) -> _Rule | None:
    text = line.lstrip("\ufeff").rstrip("\r\n")
    if text.startswith("#"):
        return None
    text = text.strip()
    is_exception = text.startswith("!")
    pattern = text[1:].strip() if is_exception else text
    if not text or (not pattern and not is_exception):
        return None
    if not pattern:
        raise InvalidParameter(source, "a line has only '!'")
    pattern = posixpath.normpath(pattern).lstrip("/")
    try:
        return _Rule(re.compile(f"(?:{_translate(pattern)})(?:/.*)?", re.DOTALL), is_exception, pattern)
    except re.error:
        raise InvalidParameter(source, f"{text!r} is not a pattern") from None


def _translate(pattern: str) -> str:
    """Return the regular expression of one pattern."""
    parts: list[str] = []
    index = 0
    while index < len(pattern):
        char = pattern[index]
        index += 1
        if char == "*" and pattern[index : index + 1] == "*":
            index += 1
            if pattern[index : index + 1] == "/":
                index += 1
            parts.append(".*" if index >= len(pattern) else "(?:.*/)?")
        elif char == "*":
            parts.append("[^/]*")
        elif char == "?":
            parts.append("[^/]")
        elif char == "[":
            text, index = _character_class(pattern, index)
            parts.append(text)
        elif char == "\\" and index < len(pattern):
            parts.append(re.escape(pattern[index]))
            index += 1
        else:
            parts.append(re.escape(char))
    return "".join(parts)


def _character_class(pattern: str, index: int) -> tuple[str, int]:
    """Return the expression of `[...]` whose content begins at `index`, and where it ends."""
    end = pattern.find("]", index + 1)
    if end < 0:
        raise re.error("unterminated")
    content = pattern[index:end]
    negation = "^" if content[:1] == "^" else ""
    body = "".join(f"\\{char}" if char in "[&~|^\\" else char for char in content[len(negation) :])
    return f"(?!/)[{negation}{body}]", end + 1
