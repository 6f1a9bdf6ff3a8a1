"""Where configuration values come from: the file and the environment, each value with the place it was read from.

Knows which keys exist, not what they mean.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import yaml

from agentainerd.strict_yaml import YamlFile, did_you_mean, is_null, nearest, scalar

MAX_FILE_BYTES = 1024 * 1024
SEARCH_PATH = ("./config.yaml", "~/.agentainer/config.yaml", "/etc/agentainer/config.yaml")  # the original's
PREFIX = "AGENTAINER_"
FILE_SUFFIX = "_FILE"


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
    file = YamlFile(path, source.problems)
    _FileReader(file, sorted(keys), frozenset(nested), source).read(file.parse(content))
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


class _FileReader:
    """Walks the nodes of one file, two levels deep: sections, and in them keys with scalars or lists of scalars; below a few keys
    deeper.
    """

    def __init__(self, file: YamlFile, keys: list[str], nested: frozenset[str], source: Source) -> None:
        self._file = file
        self._keys = keys
        self._nested = nested
        self._sections = sorted({key.split(".")[0] for key in keys})
        self._source = source

    def read(self, node: yaml.Node | None) -> None:
        if node is None or is_null(node):
            return
        if not isinstance(node, yaml.MappingNode):
            self._file.problem(node, "is not a configuration: it has sections such as `server:` with keys below them")
            return
        for name, line, value in self._file.entries(node, ""):
            if name not in self._sections:
                self._file.problem(line, f"{name}: no such section{self._nearest(name)}")
            elif not is_null(value):
                self._read_section(name, value)

    def _read_section(self, section: str, node: yaml.Node) -> None:
        if not isinstance(node, yaml.MappingNode):
            self._file.problem(node, f"{section}: is a section: its keys go on lines of their own below it, indented")
            return
        for name, line, value in self._file.entries(node, f"{section}."):
            key = f"{section}.{name}"
            if key not in self._keys:
                self._file.problem(line, f"{key}: no such key{self._nearest(key)}")
            elif not is_null(value):
                self._read_value(key, value)

    def _read_value(self, key: str, node: yaml.Node) -> None:
        where = self._file.place(node)
        if isinstance(node, yaml.ScalarNode):
            self._source.values[key] = Given(scalar(node), where)
        elif isinstance(node, yaml.SequenceNode) and all(isinstance(part, yaml.ScalarNode) for part in node.value):
            self._source.values[key] = Given([scalar(part) for part in node.value], where)
        elif key in self._nested:
            self._source.values[key] = Given(self._tree(node, f"{key}."), where)
        else:
            self._file.problem(node, f"{key}: is neither a value nor a list of values")

    def _tree(self, node: yaml.Node, prefix: str) -> object:
        if isinstance(node, yaml.MappingNode):
            return {name: self._tree(value, f"{prefix}{name}.") for name, _, value in self._file.entries(node, prefix)}
        if isinstance(node, yaml.SequenceNode):
            return [self._tree(part, prefix) for part in node.value]
        return scalar(node) if isinstance(node, yaml.ScalarNode) else None

    def _nearest(self, name: str) -> str:
        """The same word in another section, else what is near by spelling in this one, else all there is."""
        section, _, last = name.rpartition(".")
        if moved := [key for key in self._keys if key.rpartition(".")[2] == last]:
            return f": did you mean {' or '.join(moved)}?"
        prefix = f"{section}." if section else ""
        here = [key for key in self._keys if key.startswith(prefix)] if section else self._sections
        words = [word.removeprefix(prefix) for word in here]
        near = nearest(last, words)
        return f": did you mean {prefix}{near}?" if near else f": there are {', '.join(words)}"
