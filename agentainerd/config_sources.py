"""Where configuration values come from: the file and the environment, each value with the place it was read from.

Knows which keys exist, not what they mean. Nothing is guessed: the file is YAML 1.2's core schema (no `yes`, no `1:30`,
no `010` that is eight), a key that is there twice is an error, and every problem names its file and line.
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import yaml

MAX_FILE_BYTES = 1024 * 1024
SEARCH_PATH = ("./config.yaml", "~/.agentainer/config.yaml", "/etc/agentainer/config.yaml")  # the original's
PREFIX = "AGENTAINER_"
FILE_SUFFIX = "_FILE"

_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_PREFIXED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Given:
    """A value that somebody gave, and where: "/etc/agentainer/config.yaml:7", "AGENTAINER_SERVER_PORT", "--listen"."""

    value: object
    where: str


@dataclass(slots=True)
class Source:
    """What one source says: values by key ("server.port"), what is wrong with it, and what is only odd."""

    values: dict[str, Given] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def find_file(environment: Mapping[str, str]) -> str | None:
    """Return the first file of SEARCH_PATH that is there (readable or not), or None. Blocks on the disk."""
    home = environment.get("HOME", "")
    for name in SEARCH_PATH:
        if name.startswith("~") and not home:
            continue
        path = os.path.normpath(name.replace("~", home, 1))
        if os.path.lexists(path):
            return path
    return None


def read_file(path: str, keys: Iterable[str], nested: Iterable[str] = ()) -> Source:
    """Return what a configuration file says; an unreadable or broken one is a problem, not an exception.

    What is below a key in `nested` is whatever it is: maps, lists and scalars, as dict, list and value.
    """
    source = Source()
    try:
        with open(path, "rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        source.problems.append(f"{path}: cannot be read: {exc.strerror or exc}")
        return source
    if len(content) > MAX_FILE_BYTES:
        source.problems.append(f"{path}: is larger than {MAX_FILE_BYTES} bytes: is it a configuration file?")
        return source
    try:
        node = yaml.compose(content.decode("utf-8"), Loader=yaml.BaseLoader)
    except UnicodeDecodeError as exc:
        source.problems.append(f"{path}: is not UTF-8 text (byte {exc.start})")
    except yaml.YAMLError as exc:
        source.problems.append(_yaml_problem(path, exc))
    else:
        _FileReader(path, sorted(keys), frozenset(nested), source).read(node)
    return source


def read_environment(
    environment: Mapping[str, str],
    names: Mapping[str, str],
    *,
    secrets: Iterable[str],
    foreign: Iterable[str],
    places: Mapping[str, str] | None = None,
) -> Source:
    """Return what the environment says, or a file of variables.

    Args:
        environment: the variables; an empty one counts as not set.
        names: variable to key, in rising order of precedence.
        secrets: the keys that may also be given as a file, by a variable with the suffix `_FILE`.
        foreign: variables with our prefix that other programs read; every other unknown one is warned about.
        places: where each variable is, for those of a file.
    """

    def at(name: str) -> str:
        return f"{places[name]} ({name})" if places else name

    source = Source()
    files = {name + FILE_SUFFIX: key for name, key in names.items() if key in set(secrets)}
    for name, key in {**files, **names}.items():
        if not (text := environment.get(name)):
            continue
        if name not in files:
            source.values[key] = Given(text, at(name))
            continue
        try:
            with open(text, encoding="utf-8") as stream:
                source.values[key] = Given(stream.read(MAX_FILE_BYTES).strip(), f"{text} ({name})")
        except (OSError, UnicodeDecodeError) as exc:
            source.problems.append(f"{at(name)}: {text} cannot be read: {getattr(exc, 'strerror', None) or exc}")
    known = {*names, *files, *foreign}
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known:
            source.warnings.append(f"{at(name)} is not a variable of agentainerd{did_you_mean(name, known)}")
    return source


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ": did you mean X?", or "" where nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f": did you mean {near[0]}?" if near else ""


class _FileReader:
    """Walks the nodes of one file, two levels deep: sections, and in them keys with scalars or lists of scalars; below a few keys
    deeper.
    """

    def __init__(self, path: str, keys: list[str], nested: frozenset[str], source: Source) -> None:
        self._path = path
        self._keys = keys
        self._nested = nested
        self._sections = sorted({key.split(".")[0] for key in keys})
        self._source = source

    def read(self, node: yaml.Node | None) -> None:
        if node is None or _is_null(node):
            return
        if not isinstance(node, yaml.MappingNode):
            self._problem(node, "is not a configuration: it has sections such as `server:` with keys below them")
            return
        for name, line, value in self._entries(node, ""):
            if name not in self._sections:
                self._problem(line, f"{name}: no such section{self._nearest(name)}")
            elif not _is_null(value):
                self._read_section(name, value)

    def _read_section(self, section: str, node: yaml.Node) -> None:
        if not isinstance(node, yaml.MappingNode):
            self._problem(node, f"{section}: is a section: its keys go on lines of their own below it, indented")
            return
        for name, line, value in self._entries(node, f"{section}."):
            key = f"{section}.{name}"
            if key not in self._keys:
                self._problem(line, f"{key}: no such key{self._nearest(key)}")
            elif not _is_null(value):
                self._read_value(key, value)

    def _read_value(self, key: str, node: yaml.Node) -> None:
        where = f"{self._path}:{_line(node)}"
        if isinstance(node, yaml.ScalarNode):
            self._source.values[key] = Given(_scalar(node), where)
        elif isinstance(node, yaml.SequenceNode) and all(isinstance(part, yaml.ScalarNode) for part in node.value):
            self._source.values[key] = Given([_scalar(part) for part in node.value], where)
        elif key in self._nested:
            self._source.values[key] = Given(self._tree(node, f"{key}."), where)
        else:
            self._problem(node, f"{key}: is neither a value nor a list of values")

    def _tree(self, node: yaml.Node, prefix: str) -> object:
        if isinstance(node, yaml.MappingNode):
            return {name: self._tree(value, f"{prefix}{name}.") for name, _, value in self._entries(node, prefix)}
        if isinstance(node, yaml.SequenceNode):
            return [self._tree(part, prefix) for part in node.value]
        return _scalar(node) if isinstance(node, yaml.ScalarNode) else None

    def _entries(self, node: yaml.MappingNode, prefix: str) -> Iterable[tuple[str, int, yaml.Node]]:
        seen: dict[str, int] = {}
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            if name in seen:
                self._problem(key, f"{prefix}{name}: is there twice, first on line {seen[name]}")
                continue
            seen[name] = _line(key)
            yield name, _line(key), value

    def _nearest(self, name: str) -> str:
        """The same word in another section, else what is near by spelling in this one, else all there is."""
        section, _, last = name.rpartition(".")
        if moved := [key for key in self._keys if key.rpartition(".")[2] == last]:
            return f": did you mean {' or '.join(moved)}?"
        prefix = f"{section}." if section else ""
        here = [key for key in self._keys if key.startswith(prefix)] if section else self._sections
        words = [word.removeprefix(prefix) for word in here]
        near = difflib.get_close_matches(last, words, n=1, cutoff=0.6)
        return f": did you mean {prefix}{near[0]}?" if near else f": there are {', '.join(words)}"

    def _problem(self, at: yaml.Node | int, text: str) -> None:
        line = at if isinstance(at, int) else _line(at)
        self._source.problems.append(f"{self._path}:{line}: {text}")


def _scalar(node: yaml.ScalarNode) -> object:
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


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and bool(_NULL.fullmatch(node.value))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _yaml_problem(path: str, exc: yaml.YAMLError) -> str:
    mark = getattr(exc, "problem_mark", None)
    line = f":{mark.line + 1}" if mark is not None else ""
    reason = getattr(exc, "problem", None) or getattr(exc, "reason", None) or exc
    hint = " (YAML is indented with spaces, never with tabs)" if "'\\t'" in str(reason) else ""
    return f"{path}{line}: is not YAML: {reason}{hint}"
