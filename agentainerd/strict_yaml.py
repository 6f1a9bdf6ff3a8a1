"""YAML files that people write, strictly: every problem has its file and line, and nothing is guessed.

Scalars follow YAML 1.2's core schema (no `yes`, no `1:30`, no `010` that is eight); a key that is there twice is an error.
"""

import difflib
import re
from collections.abc import Iterable

import yaml

_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_PREFIXED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


class YamlFile:
    """One file that is read: `problems` gets a line for each thing that is wrong with it."""

    def __init__(self, path: str, problems: list[str]) -> None:
        self.path = path
        self.problems = problems

    def parse(self, content: bytes) -> yaml.Node | None:
        """Return the root of what the file says; None where it says nothing, or is not YAML, which is a problem."""
        try:
            return yaml.compose(content.decode("utf-8"), Loader=yaml.BaseLoader)
        except UnicodeDecodeError as exc:
            self.problems.append(f"{self.path}: is not UTF-8 text (byte {exc.start})")
        except RecursionError:
            self.problems.append(f"{self.path}: is nested too deeply")
        except yaml.YAMLError as exc:
            self.problems.append(_syntax_problem(self.path, exc))
        return None

    def entries(self, node: yaml.MappingNode, prefix: str = "") -> Iterable[tuple[str, int, yaml.Node]]:
        """Return what is in a map: key, line, value. `prefix` stands before a key that is there twice, in the message."""
        seen: dict[str, int] = {}
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            if name in seen:
                self.problem(key, f"{prefix}{name}: is there twice, first on line {seen[name]}")
                continue
            seen[name] = line_of(key)
            yield name, line_of(key), value

    def problem(self, at: yaml.Node | int, text: str) -> None:
        """Note what is wrong at a node, or on a line."""
        self.problems.append(f"{self.place(at)}: {text}")

    def place(self, at: yaml.Node | int) -> str:
        """Return "file:line"."""
        return f"{self.path}:{at if isinstance(at, int) else line_of(at)}"


def scalar(node: yaml.ScalarNode) -> object:
    """Return the value of a scalar by YAML 1.2's core schema; whatever is quoted is text."""
    text: str = node.value
    if node.style is not None:
        return text
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return text.lower() == "true"
    if _DECIMAL.fullmatch(text) and len(text) < 100:
        return int(text, 10)
    if _PREFIXED.fullmatch(text) and len(text) < 100:
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def is_null(node: yaml.Node) -> bool:
    """Whether a node says nothing."""
    return isinstance(node, yaml.ScalarNode) and node.style is None and bool(_NULL.fullmatch(node.value))


def line_of(node: yaml.Node) -> int:
    """Return a node's line, from 1."""
    return int(node.start_mark.line) + 1


def nearest(name: str, known: Iterable[str]) -> str:
    """Return what is near by spelling, "" where nothing is."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return near[0] if near else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ": did you mean X?", or "" where nothing is near."""
    near = nearest(name, known)
    return f": did you mean {near}?" if near else ""


def _syntax_problem(path: str, exc: yaml.YAMLError) -> str:
    mark = getattr(exc, "problem_mark", None)
    line = f":{mark.line + 1}" if mark is not None else ""
    reason = getattr(exc, "problem", None) or getattr(exc, "reason", None) or exc
    hint = " (YAML is indented with spaces, never with tabs)" if "'\\t'" in str(reason) else ""
    return f"{path}{line}: is not YAML: {reason}{hint}"
