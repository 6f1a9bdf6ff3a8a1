"""Templates of jobs as files: a folder of YAML, one template a file, read again where something changed.

Every problem has its file and line. A file that is wrong is no template; the others are not touched by that.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from agentainerd import defaults
from agentainerd.errors import InvalidParameter
from agentainerd.model.bridges import Bridge
from agentainerd.model.jobs import JobLimits, JobRequest, TemplateUse
from agentainerd.model.templates import NAME, PARAMETER, Parameter, Template, places
from agentainerd.strict_yaml import YamlFile, did_you_mean, is_null, scalar
from agentainerd.units import parse_cpu, parse_duration, parse_size

SUFFIXES = (".yaml", ".yml")

Parse = Callable[[yaml.Node], Any]


@dataclass(slots=True)
class TemplatesRead:
    """What a folder has: templates by name, and what is wrong. `broken`: name to what is wrong with its file."""

    templates: dict[str, Template] = field(default_factory=dict)
    broken: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class TemplateFolder:
    """A folder that is read again only where its files changed. Every method blocks on the disk; call it in a thread."""

    def __init__(self) -> None:
        self._seen: object = None
        self._read = TemplatesRead()

    def read(self, folder: str) -> TemplatesRead:
        """Return what is in a folder now; one that is not there has nothing."""
        found = TemplatesRead()
        try:
            files = list(_files(folder))
        except OSError as exc:
            if not isinstance(exc, FileNotFoundError):
                found.problems.append(f"{folder}: cannot be read: {exc.strerror or exc}")
            return found
        seen = (folder, [(path, each.st_mtime_ns, each.st_ino, each.st_size) for path, each in files])
        if seen == self._seen:
            return self._read
        for path, status in files[: defaults.MAX_TEMPLATES]:
            _read_into(found, path, status)
        if len(files) > defaults.MAX_TEMPLATES:
            found.problems.append(f"{folder}: has more than {defaults.MAX_TEMPLATES} files: the rest is not read")
        self._read, self._seen = found, seen
        return found


def _files(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Return the files of a folder that may be templates, in order."""
    for name in sorted(os.listdir(folder)):
        if name.endswith(SUFFIXES) and not name.startswith("."):
            path = os.path.join(folder, name)
            try:
                yield path, os.stat(path)
            except FileNotFoundError:
                continue  # it was removed meanwhile, or is a link to nowhere


def _read_into(found: TemplatesRead, path: str, status: os.stat_result) -> None:
    problems: list[str] = []
    template = _read_file(path, status, problems)
    if template is not None and not problems and template.name in found.templates:
        problems.append(f"{path}: is named {template.name!r}, as {found.templates[template.name].file} is")
    if problems or template is None:
        stem = os.path.splitext(os.path.basename(path))[0]
        found.broken[template.name if template else stem] = problems
        found.problems += problems
    else:
        found.templates[template.name] = template


def _read_file(path: str, status: os.stat_result, problems: list[str]) -> Template | None:
    if not stat.S_ISREG(status.st_mode):
        problems.append(f"{path}: is not a file")
        return None
    try:
        with open(path, "rb") as stream:
            content = stream.read(defaults.MAX_TEMPLATE_BYTES + 1)
    except OSError as exc:
        problems.append(f"{path}: cannot be read: {exc.strerror or exc}")
        return None
    if len(content) > defaults.MAX_TEMPLATE_BYTES:
        problems.append(f"{path}: is larger than {defaults.MAX_TEMPLATE_BYTES} bytes")
        return None
    return _TemplateReader(YamlFile(path, problems)).read(content)


class _TemplateReader:
    """Walks the nodes of one file."""

    def __init__(self, file: YamlFile) -> None:
        self._file = file

    def read(self, content: bytes) -> Template | None:
        node = self._file.parse(content)
        if self._file.problems:
            return None
        if not isinstance(node, yaml.MappingNode):
            self._file.problem(node or 1, "is not a template: it has keys such as `prompt:` on lines of their own")
            return None
        lines: dict[str, yaml.Node] = {}
        values = self._map(node, "", self._keys, lines)
        stem = os.path.splitext(os.path.basename(self._file.path))[0]
        name = values.setdefault("name", stem)
        if not NAME.fullmatch(name):
            self._file.problem(
                lines.get("name") or 1, f"name: {name[:64]!r} is not one: write it with a-z, 0-9, - and _"
            )
        if (
            not self._file.problems and not values.get("prompt", "").strip()
        ):  # else it may be the one that is misspelled
            self._file.problem(lines.get("prompt") or 1, "prompt: is missing: say what is to be done")
        if self._file.problems:
            return None
        template = Template(**values, file=self._file.path)
        self._check_places(template, lines)
        self._check_job(template, lines)
        return template

    @property
    def _keys(self) -> dict[str, Parse]:
        return {
            "name": _text, "description": _text, "prompt": _text, "parameters": self._parameters, "image": _text,
            "command": _texts, "bridge": _bridge, "env": self._env, "limits": self._limits, "retention": _seconds,
            "priority": _whole, "model": _text,
        }  # fmt: skip

    def _map(
        self, node: yaml.Node, prefix: str, keys: Mapping[str, Parse], lines: dict[str, yaml.Node] | None = None
    ) -> dict[str, Any]:
        """Return a map's values, each read by the function of its key; one that says nothing is as if it were not there."""
        found: dict[str, Any] = {}
        for name, line, value in self._entries(node, prefix):
            if name not in keys:
                near = did_you_mean(name, keys) or f": there are {', '.join(keys)}"
                self._file.problem(line, f"{prefix}{name}: no such key{near}")
            elif not is_null(value):
                if lines is not None:
                    lines[name] = value
                self._into(found, name, value, prefix, keys[name])
        return found

    def _entries(self, node: yaml.Node, prefix: str) -> Iterable[tuple[str, int, yaml.Node]]:
        if isinstance(node, yaml.MappingNode):
            return self._file.entries(node, prefix)
        self._file.problem(node, f"{prefix.rstrip('.')}: has keys of its own, on lines below it, indented")
        return ()

    def _into(self, found: dict[str, Any], name: str, node: yaml.Node, prefix: str, parse: Parse) -> None:
        try:
            found[name] = parse(node)
        except InvalidParameter as exc:
            self._file.problem(node, f"{prefix}{name}: {exc.reason}")
        except ValueError as exc:
            self._file.problem(node, f"{prefix}{name}: {exc}")

    def _parameters(self, node: yaml.Node) -> dict[str, Parameter]:
        found: dict[str, Parameter] = {}
        for name, _, value in self._entries(node, "parameters."):
            if PARAMETER.fullmatch(name):
                found[name] = self._parameter(name, value)
            else:
                self._file.problem(
                    value, f"parameters.{name[:64]}: is not a name: letters, digits and _, no digit first"
                )
        return found

    def _parameter(self, name: str, node: yaml.Node) -> Parameter:
        if is_null(node):
            return Parameter()
        keys: dict[str, Parse] = {"description": _text, "default": _text, "required": _flag, "choices": _texts}
        values = self._map(node, f"parameters.{name}.", keys)
        required = values.pop("required", None)
        if required and "default" in values:
            self._file.problem(node, f"parameters.{name}: has a default, and is required: keep one of them")
        if required is False:
            values.setdefault("default", "")
        parameter = Parameter(**values)
        if parameter.choices and parameter.default not in (None, *parameter.choices):
            self._file.problem(node, f"parameters.{name}: its default is none of its choices")
        return parameter

    def _env(self, node: yaml.Node) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, _, value in self._entries(node, "env."):
            self._into(found, name, value, "env.", _text)
        return found

    def _limits(self, node: yaml.Node) -> JobLimits:
        keys = {
            "memory": _size, "cpus": lambda each: parse_cpu(_text(each)), "pids": _whole, "disk": _size,
            "wall_s": _seconds, "network": _flag, "steps": _whole, "cost_usd": _number,
        }  # fmt: skip
        return JobLimits(**self._map(node, "limits.", keys))

    def _check_places(self, template: Template, lines: dict[str, yaml.Node]) -> None:
        """Hold the places of the texts against the parameters."""
        used = set()
        texts = [("prompt", template.prompt, lines["prompt"])]
        texts += [(f"env.{name}", text, lines["env"]) for name, text in template.env.items()]
        for key, text, node in texts:
            for name in places(text):
                used.add(name)
                if name not in template.parameters:
                    near = did_you_mean(name, template.parameters) or f": write $${{{name}}} for the text"
                    self._file.problem(node, f"{key}: ${{{name}}} is no parameter{near}")
        for name in template.parameters:
            if name not in used and not self._file.problems:
                self._file.problem(
                    lines["parameters"], f"parameters.{name}: is used nowhere: write ${{{name}}} in the prompt"
                )

    def _check_job(self, template: Template, lines: dict[str, yaml.Node]) -> None:
        """What no job could have is told now, and not when one is wanted."""
        sample = {name: parameter.default or "x" for name, parameter in template.parameters.items()}
        sample |= {name: parameter.choices[0] for name, parameter in template.parameters.items() if parameter.choices}
        try:
            if not self._file.problems:
                template.expand(JobRequest(template=TemplateUse(template.name, sample))).check()
        except InvalidParameter as exc:
            self._file.problem(lines.get(exc.field.partition(".")[0], 1), exc.message)


def _text(node: yaml.Node) -> str:
    """A scalar as it is written: `1.10` is not 1.1."""
    if not isinstance(node, yaml.ScalarNode) or is_null(node):
        raise ValueError("is not text")
    return str(node.value)


def _texts(node: yaml.Node) -> tuple[str, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise ValueError("is not a list: write [one, two]")
    return tuple(_text(part) for part in node.value)


def _flag(node: yaml.Node) -> bool:
    value = _value(node)
    if not isinstance(value, bool):
        raise ValueError("is neither true nor false")
    return value


def _whole(node: yaml.Node) -> int:
    value = _value(node)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("is not a whole number")
    return value


def _number(node: yaml.Node) -> float:
    value = _value(node)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError("is not a number")
    return float(value)


def _size(node: yaml.Node) -> int:
    return parse_size(_text(node))


def _seconds(node: yaml.Node) -> float:
    return parse_duration(_text(node))


def _bridge(node: yaml.Node) -> Bridge:
    text = _text(node)
    if text not in tuple(Bridge):
        raise ValueError(f"{text[:64]!r} is none of {', '.join(Bridge)}")
    return Bridge(text)


def _value(node: yaml.Node) -> object:
    return scalar(node) if isinstance(node, yaml.ScalarNode) else None
