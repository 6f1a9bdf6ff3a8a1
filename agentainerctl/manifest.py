"""Files that describe deployments: from YAML to what the API takes, with every mistake at its line and column.

The schema is the original's (apiVersion, kind, metadata, spec.agents), with keys of our own beside it. What is not given is
left out: defaults are the daemon's. Relative paths are relative to the file.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from agentainerctl.deployment import parse_volume
from agentainerctl.dockerfiles import find_dockerfile
from agentainerctl.manifest_schema import (
    AGENT_KEYS,
    ALIASES,
    FIELDS,
    HEALTH,
    PERSISTENCE,
    RESOURCES,
    SECTIONS,
    SERVICES,
    Fields,
    Parse,
    Wrong,
    as_flag,
    as_mode,
    as_text,
    as_texts,
    is_written_as_path,
    nearest,
)
from agentainerctl.manifest_yaml import Node, Problems, read
from agentainerd.errors import AgentainerError, InvalidParameter

MAX_FILE_BYTES = 10 * 1024 * 1024
API_VERSION = "v1"
KIND = "AgentDeployment"
Body = dict[str, Any]


class Manifest:
    """What a file says. `deployments`: as POST /deployments/apply takes them. `builds`: of agents that are built from a
    Dockerfile, its path and its arguments, by the agent's name; their `image` is "" until they are. `places`: where the value
    of an agent's field stands, such as "agents.yaml:12:17", by "agent.field".
    """

    def __init__(self) -> None:
        self.places: dict[str, str] = {}
        self.deployments: list[Body] = []
        self.builds: dict[str, tuple[str, dict[str, str]]] = {}

    def agents(self) -> Iterator[Body]:
        """Return the agents of all deployments."""
        for deployment in self.deployments:
            yield from deployment["agents"]


def load(path: str, text: str, environment: Mapping[str, str]) -> Manifest:
    """Return what a file says. `path`: of the file, "-" for standard input, which is relative to the current folder.

    Raises:
        InvalidParameter: all that is wrong, with file, line and column (code INVALID_MANIFEST).
    """
    problems = Problems("<stdin>" if path == "-" else path)
    documents = read(text, environment, problems)
    manifest = Manifest()
    reader = _Reader(manifest, problems, "" if path == "-" else os.path.dirname(path))
    for document in documents:
        reader.document(document)
    problems.stop()
    if not documents:
        raise InvalidParameter(
            problems.source, "is empty", code="INVALID_MANIFEST", hint="docs/deployments.md has an example"
        )
    return manifest


def read_file(path: str) -> str:
    """Return the text of a file, or of standard input for "-".

    Raises:
        InvalidParameter: it can't be read, is too long, or is not UTF-8.
    """
    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise InvalidParameter("file", f"{path} is longer than {MAX_FILE_BYTES // 2**20} MiB")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise InvalidParameter("file", f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidParameter("file", f"{path} is not UTF-8 text") from error


class _Reader:
    """Reads documents into a manifest; what is wrong goes to `problems`, and reading goes on."""

    def __init__(self, manifest: Manifest, problems: Problems, folder: str) -> None:
        self._manifest = manifest
        self._problems = problems
        self._folder = folder
        self._names: dict[str, Node] = {}

    def document(self, node: Node) -> None:
        """Read one deployment."""
        parts = self._map(
            node, "", ("apiVersion", "kind", "metadata", "spec"), required=("apiVersion", "kind", "metadata", "spec")
        )
        if "apiVersion" in parts and parts["apiVersion"].text != API_VERSION:
            self._problems.add(
                parts["apiVersion"], f"apiVersion must be '{API_VERSION}', got '{parts['apiVersion'].text}'"
            )
        if "kind" in parts and parts["kind"].text != KIND:
            self._problems.add(parts["kind"], f"kind must be '{KIND}', got '{parts['kind'].text}'")
        body: Body = {"agents": []}
        if "metadata" in parts:
            told = self._map(parts["metadata"], "metadata", ("name", "description", "labels"), required=("name",))
            self._into(
                body,
                told,
                {"name": ("name", as_text), "description": ("description", as_text), "labels": ("labels", as_texts)},
            )
        if "spec" in parts:
            spec = self._map(parts["spec"], "spec", ("agents",), required=("agents",))
            if "agents" in spec and not self._list(spec["agents"], "spec.agents"):
                self._problems.add(spec["agents"], "at least one agent must be specified")
            for each in self._list(spec["agents"], "spec.agents") if "agents" in spec else ():
                body["agents"].append(self._agent(each))
        self._manifest.deployments.append(body)

    def _agent(self, node: Node) -> Body:
        parts = self._map(node, "agent", AGENT_KEYS, required=("name",))
        body: Body = {}
        self._into(body, parts, FIELDS)
        self._image(node, parts, body)
        self._section(body, parts, "resources", RESOURCES)
        self._section(body, parts, "persistence", PERSISTENCE, flag="persistence")
        for key, field, fields in (("healthCheck", "health_check", HEALTH), ("services", "services", SERVICES)):
            if key in parts:
                body[field] = {}
                self._into(body[field], self._map(parts[key], key, fields), fields)
        if "volumes" in parts:
            body["volumes"] = [
                volume for each in self._list(parts["volumes"], "volumes") if (volume := self._volume(each)) is not None
            ]
        self._once(body, parts)
        self._remember(str(body.get("name", "")), parts)
        return body

    def _remember(self, name: str, parts: dict[str, Node]) -> None:
        """Note where each field stands, so that what the daemon finds wrong can be shown there."""
        for key, node in parts.items():
            inner: Fields = SECTIONS.get(key, {})
            prefix = "health_check." if key == "healthCheck" else ""
            field = FIELDS[key][0] if key in FIELDS else ALIASES.get(key, key)
            self._manifest.places[f"{name}.{field}"] = self._problems.place_of(node)
            for inner_key, (_, value) in node.entries.items():
                if inner_key in inner:
                    self._manifest.places[f"{name}.{prefix}{inner[inner_key][0]}"] = self._problems.place_of(value)

    def _once(self, body: Body, parts: dict[str, Node]) -> None:
        name = body.get("name", "")
        if name in self._names:
            self._problems.add(
                parts["name"], f"duplicate agent name: {name}; the first one is in line {self._names[name].line}"
            )
        elif name:
            self._names[name] = parts["name"]

    def _image(self, node: Node, parts: dict[str, Node], body: Body) -> None:
        given = [key for key in ("image", "dockerfile") if key in parts]
        if len(given) != 1:
            text = "image and dockerfile: give one of them" if given else "image is required, or dockerfile"
            self._problems.add(parts[given[1]] if given else node, text)
            return
        written, dockerfile = parts[given[0]], None
        try:
            value = as_text(written)
            if given[0] == "dockerfile" or is_written_as_path(value):
                path = os.path.normpath(self._path(value))
                dockerfile = find_dockerfile(path if path.startswith("/") else f"./{path}")
        except Wrong as wrong:
            self._problems.add(written, f"{given[0]}: {wrong.reason}", wrong.hint)
            return
        except AgentainerError as error:
            self._problems.add(written, error.message, error.hint or "")
            return
        body["image"] = "" if dockerfile else value
        arguments = self._try(parts["buildArgs"], as_texts, "buildArgs") if "buildArgs" in parts else {}
        if dockerfile:
            self._manifest.builds[body.get("name", "")] = (dockerfile, arguments or {})
        elif arguments:
            self._problems.add(parts["buildArgs"], "buildArgs needs a Dockerfile")

    def _section(self, body: Body, parts: dict[str, Node], name: str, fields: Fields, flag: str = "") -> None:
        if name not in parts:
            return
        node = parts[name]
        if flag and node.kind == "text":
            body[flag] = self._try(node, as_flag, name)
        else:
            self._into(body, self._map(node, name, fields), fields)

    def _volume(self, node: Node) -> Body | None:
        if node.kind == "text":
            short: Body | None = self._try(node, lambda each: parse_volume(self._rooted(as_text(each))), "volumes")
            return short
        parts = self._map(node, "volumes", ("host", "container", "readOnly", "mode"), required=("host", "container"))
        if "host" not in parts or "container" not in parts:
            return None
        read_only = self._try(parts["readOnly"], as_flag, "readOnly") if "readOnly" in parts else None
        if "mode" in parts:
            mode = self._try(parts["mode"], as_mode, "mode")
            if read_only is not None and mode is not read_only:
                self._problems.add(parts["mode"], "mode and readOnly say different things")
            read_only = mode
        host, container = self._try(parts["host"], as_text, "host"), self._try(parts["container"], as_text, "container")
        if host is None or container is None:
            return None
        return self._mount({"host_path": host, "container_path": container, "read_only": bool(read_only)})

    def _mount(self, volume: Body) -> Body:
        host = volume["host_path"]
        is_path = "/" in host or host.startswith((".", "~"))
        return {**volume, "host_path": os.path.abspath(self._path(host)) if is_path else host}

    def _rooted(self, volume: str) -> str:
        host, colon, rest = volume.partition(":")
        is_path = "/" in host or host.startswith((".", "~"))
        return f"{os.path.abspath(self._path(host))}{colon}{rest}" if is_path else volume

    def _path(self, path: str) -> str:
        return os.path.join(self._folder, os.path.expanduser(path))

    def _into(self, body: Body, parts: dict[str, Node], fields: Fields) -> None:
        for key, node in parts.items():
            if key in fields:
                field, parse = fields[key]
                value = self._try(node, parse, key)
                if value is not None:
                    body[field] = value

    def _try(self, node: Node, parse: Parse, key: str) -> Any:  # noqa: ANN401 - what the key takes
        try:
            return parse(node)
        except Wrong as wrong:
            self._problems.add(wrong.node or node, f"{key}: {wrong.reason}", wrong.hint)
        except InvalidParameter as error:
            self._problems.add(node, f"{key}: {error.reason}", error.hint or "")
        return None

    def _map(
        self, node: Node, name: str, known: tuple[str, ...] | Fields, required: tuple[str, ...] = ()
    ) -> dict[str, Node]:
        if node.kind != "map":
            self._problems.add(node, f"{name or 'a deployment'} has to be a map of {', '.join(known)}")
            return {}
        for text, (place, _) in node.entries.items():
            if text not in known:
                self._problems.add(
                    place, f"unknown key '{text}' in {name or 'a deployment'}{nearest(text, tuple(known))}"
                )
        values = {key: value for key, (_, value) in node.entries.items() if key in known}
        for key in required:
            if key not in values or values[key].kind == "null":
                self._problems.add(values.pop(key, node), f"{f'{name}.' if name else ''}{key} is required")
        return values

    def _list(self, node: Node, name: str) -> list[Node]:
        if node.kind != "list":
            self._problems.add(node, f"{name} has to be a list")
        return node.items
