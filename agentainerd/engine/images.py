"""Images: looked at, pulled and built, each step told as it comes."""

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import IO, Any

import docker.utils

from agentainerd.engine.connection import Connection
from agentainerd.engine.containers import epoch_s
from agentainerd.engine.errors import build_failed, docker_errors, from_pull, image_missing
from agentainerd.engine.streams import ByteStream, ItemStream, lines_of
from agentainerd.errors import NotFound
from agentainerd.model.containers import Image, Progress

FAILED_BUILD_LINES = 30
PULL_ANSWER_TIMEOUT_S = 120.0
"""The engine says nothing before the registry has answered, or could not be reached."""
BUILD_ANSWER_TIMEOUT_S = 600.0
"""The engine says nothing before it has unpacked the context."""
_STDERR = "\x1b[91m"  # how the classic builder marks it
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_BOOKKEEPING = re.compile(r" ---> |Removing intermediate container ")  # the engine's own lines, not the step's
_STEP = re.compile(r"Step \d+/\d+ : ")


class Images:
    """The images of one engine. Stateless: safe from any greenlet."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, ref: str) -> Image:
        """See Engine.image."""
        try:
            with self._connection.calling("inspect", "image", ref) as client:
                return from_inspect(client.inspect_image(ref))  # type: ignore[no-untyped-call]
        except NotFound as error:
            raise image_missing(ref) from error

    def pull(self, ref: str) -> ItemStream[Progress]:
        """See Engine.pull."""
        repository, tag = docker.utils.parse_repository_tag(ref)
        with self._connection.calling("pull", "image", ref):
            source = self._connection.open_stream(
                "POST",
                "/images/create",
                params={"fromImage": repository, "tag": tag or "latest"},
                headers=self._connection.registry_headers(repository),
                answer_timeout_s=PULL_ANSWER_TIMEOUT_S,
            )
        return ItemStream(source, self._pulled(source, ref))

    def build(self, context: IO[bytes], *, tag: str, dockerfile: str, args: Mapping[str, str]) -> ItemStream[Progress]:
        """See Engine.build. The classic builder: the only one that every engine's API has."""
        params: dict[str, str | int] = {
            "t": tag,
            "dockerfile": dockerfile,
            "buildargs": json.dumps(dict(args)),
            "rm": 1,
            "forcerm": 1,
        }
        with self._connection.calling("build", "image", tag):
            source = self._connection.open_stream(
                "POST",
                "/build",
                params=params,
                headers={"Content-Type": "application/x-tar", **self._connection.all_registries_headers()},
                body=context,
                answer_timeout_s=BUILD_ANSWER_TIMEOUT_S,
            )
        return ItemStream(source, self._built(source, tag))

    def _pulled(self, source: ByteStream, ref: str) -> Iterator[Progress]:
        for said in self._messages(source, "pull", ref):
            if why := _error_of(said):
                raise from_pull(ref, why)
            yield from_message(said)
        if not source.was_cut:
            yield Progress(image_id=self.get(ref).id)

    def _built(self, source: ByteStream, tag: str) -> Iterator[Progress]:
        lines: deque[str] = deque(maxlen=FAILED_BUILD_LINES)
        complaints: deque[str] = deque(maxlen=FAILED_BUILD_LINES // 2)  # stderr, which comes in no order with stdout
        step = image_id = ""
        for said in self._messages(source, "build", tag):
            text = str(said.get("stream") or "")
            kept = complaints if text.startswith(_STDERR) else lines
            kept.extend(
                line for line in _COLOUR.sub("", text).splitlines() if line.strip() and not _BOOKKEEPING.match(line)
            )
            if _STEP.match(text):
                step = text.strip()
                complaints.clear()
            if why := _error_of(said):
                raise build_failed(why, step, [*lines, *complaints][-FAILED_BUILD_LINES:])
            image_id = (said.get("aux") or {}).get("ID", image_id)
            yield from_message(said)
        if not source.was_cut:
            yield Progress(image_id=image_id or self.get(tag).id)

    def _messages(self, source: ByteStream, verb: str, ref: str) -> Iterator[dict[str, Any]]:
        with docker_errors(self._connection.host, verb, "image", ref):
            for line in lines_of(source):
                yield json.loads(line)


def from_inspect(found: Mapping[str, Any]) -> Image:
    """Return our view of the engine's answer to an inspect of an image."""
    config = found.get("Config") or {}
    ports = config.get("ExposedPorts") or {}
    return Image(
        id=found["Id"],
        tags=tuple(found.get("RepoTags") or ()),
        exposed=tuple(sorted(_tcp_ports(ports))),
        created_at=epoch_s(found.get("Created")),
        size=int(found.get("Size") or 0),
        labels=dict(config.get("Labels") or {}),
        folder=config.get("WorkingDir") or "/",
    )


def from_message(said: Mapping[str, Any]) -> Progress:
    """Return one message of a build or a pull as progress."""
    detail = said.get("progressDetail") or {}
    status = str(said.get("status") or "")
    return Progress(
        text=str(said.get("stream") or status),
        id=str(said.get("id") or ""),
        status=status,
        current=int(detail.get("current") or 0),
        total=int(detail.get("total") or 0),
    )


def _tcp_ports(exposed: Mapping[str, object]) -> Iterator[int]:
    for spelled in exposed:
        port, _, protocol = spelled.partition("/")
        if protocol in ("", "tcp") and port.isdigit():
            yield int(port)


def _error_of(said: Mapping[str, Any]) -> str:
    return str((said.get("errorDetail") or {}).get("message") or said.get("error") or "")
