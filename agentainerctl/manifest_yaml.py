"""YAML, strictly: every value keeps its place in the file, and nothing means what it does not say.

A scalar is its text; what type it has says who reads it, so that `NO`, `1:30`, `0777` and `1.10` are what was written.
`${VAR}` and `${VAR:-default}` are expanded in values, after parsing, so that no variable can add a key. Keys that are there
twice, tags and cycles are errors. Anchors, aliases and `<<` work.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from agentainerd.errors import InvalidParameter

MAX_NODES = 200_000  # what aliases multiply counts each time
_VARIABLE = re.compile(r"\$(?P<escaped>\$)?\{(?P<inner>[^}]*)(?P<end>\}?)")
_INNER = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)
_NULL = "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"
_MAX_TOLD = 20


class Node:
    """One value. `kind`: "map", "list", "text" or "null"; `line` and `column` count from 1.

    `text`: of a scalar, expanded. `items`: of a list. `entries`: of a map, key to (its own node, value).
    """

    __slots__ = ("column", "entries", "items", "kind", "line", "text")

    def __init__(self, kind: str, line: int, column: int) -> None:
        self.kind = kind
        self.line = line
        self.column = column
        self.text = ""
        self.items: list[Node] = []
        self.entries: dict[str, tuple[Node, Node]] = {}


class Problems:
    """What is wrong with a file, each with its place; told all at once."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._found: set[tuple[int, int, str, str]] = set()

    def add(self, node: Node, text: str, hint: str = "") -> None:
        """Note what is wrong at a node."""
        self._found.add((node.line, node.column, text, hint))

    def place_of(self, node: Node) -> str:
        """Return where a node stands, as in messages."""
        return f"{self.source}:{node.line}:{node.column}"

    def stop(self) -> None:
        """Raise InvalidParameter with all of them, if there are any: the first ones in the order of the file."""
        if not self._found:
            return
        told = sorted(self._found)
        if len(told) == 1:
            line, column, text, hint = told[0]
            raise InvalidParameter(f"{self.source}:{line}:{column}", text, code="INVALID_MANIFEST", hint=hint or None)
        lines = [
            f"{self.source}:{line}:{column}: {text}{f' ({hint})' if hint else ''}" for line, column, text, hint in told
        ]
        more = lines[1:_MAX_TOLD]
        if len(lines) > _MAX_TOLD:
            more.append(f"and {len(lines) - _MAX_TOLD} more")
        field, _, reason = lines[0].partition(": ")
        raise InvalidParameter(field, "\n".join([reason, *more]), code="INVALID_MANIFEST")


def read(text: str, environment: Mapping[str, str], problems: Problems) -> list[Node]:
    """Return the documents of a text; empty ones are left out. What is wrong with values is added to `problems`.

    Raises:
        InvalidParameter: it is not YAML; the field is file, line and column.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    builder = _Builder(environment, problems)
    try:
        return [builder.build(root) for root in yaml.compose_all(text, Loader=loader) if root.tag != _NULL]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{problems.source}:{mark.line + 1}:{mark.column + 1}" if mark else problems.source
        told = error.problem or "not YAML"
        hint = "indent with spaces" if mark and _character(text, mark.line, mark.column) == "\t" else None
        raise InvalidParameter(where, told, code="INVALID_MANIFEST", hint=hint) from error
    except (yaml.YAMLError, RecursionError) as error:
        reason = "is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise InvalidParameter(problems.source, reason, code="INVALID_MANIFEST") from error


def _character(text: str, line: int, column: int) -> str:
    """Return what stands at a place (both from 0), "" where there is nothing."""
    lines = text.splitlines()
    return lines[line][column : column + 1] if line < len(lines) else ""


class _Builder:
    """Makes our nodes from the parser's."""

    def __init__(self, environment: Mapping[str, str], problems: Problems) -> None:
        self._environment = environment
        self._problems = problems
        self._count = 0
        self._open: set[int] = set()

    def build(self, raw: Any) -> Node:  # noqa: ANN401 - a node of the parser
        """Return our node for one of the parser's."""
        self._count += 1
        if self._count > MAX_NODES:
            raise InvalidParameter(self._problems.source, f"has more than {MAX_NODES} values", code="INVALID_MANIFEST")
        kind = {"MappingNode": "map", "SequenceNode": "list"}.get(type(raw).__name__, "text")
        node = Node(kind, raw.start_mark.line + 1, raw.start_mark.column + 1)
        if id(raw) in self._open:
            self._problems.add(node, "contains itself")
            return node
        if not raw.tag.startswith("tag:yaml.org,2002:") or "python" in raw.tag:
            self._problems.add(node, f"has the tag {raw.tag!r}; tags are not taken")
        self._open.add(id(raw))
        if kind == "map":
            self._fill(node, raw)
        elif kind == "list":
            node.items = [self.build(item) for item in raw.value]
        elif raw.tag == _NULL and raw.style not in ("'", '"', "|", ">"):
            node.kind = "null"
        else:
            node.text = self._expand(raw.value, node)
        self._open.discard(id(raw))
        return node

    def _fill(self, node: Node, raw: Any) -> None:  # noqa: ANN401 - a node of the parser
        merged: dict[str, tuple[Node, Node]] = {}
        for raw_key, raw_value in raw.value:
            key = Node("text", raw_key.start_mark.line + 1, raw_key.start_mark.column + 1)
            if raw_key.tag == _MERGE:
                for source in self._sources(self.build(raw_value)):
                    merged = {**source.entries, **merged}
                continue
            if type(raw_key).__name__ != "ScalarNode":
                self._problems.add(key, "a key has to be a word")
                continue
            key.text = raw_key.value
            if key.text in node.entries:
                first = node.entries[key.text][0].line
                self._problems.add(key, f"the key '{key.text}' is there twice; the first one is in line {first}")
            node.entries[key.text] = (key, self.build(raw_value))
        node.entries = {**merged, **node.entries}

    def _sources(self, node: Node) -> Iterator[Node]:
        for source in node.items if node.kind == "list" else [node]:
            if source.kind == "map":
                yield source
            else:
                self._problems.add(source, "'<<' takes a map, or a list of maps")

    def _expand(self, text: str, node: Node) -> str:
        return _VARIABLE.sub(lambda match: self._value(match, node), text)

    def _value(self, match: re.Match[str], node: Node) -> str:
        if match["escaped"]:
            return match[0][1:]
        inner = _INNER.fullmatch(match["inner"])
        if not inner or not match["end"]:
            self._problems.add(
                node, f"{match[0]!r} is not a variable", "write ${NAME} or ${NAME:-default}; $${ is a plain ${"
            )
            return ""
        value = self._environment.get(inner["name"])
        if inner["default"] is not None:
            return value or str(inner["default"])
        if value is None:
            name = inner["name"]
            self._problems.add(node, f"{name} is not set", f"export {name}=..., or write ${{{name}:-default}}")
        return value or ""
