"""Volumes: where they are kept, made, removed; and what is in them, read and written by the engine, which may do that everywhere.

For that a container is created which has the volume and is never started: the engine reads and unpacks tars in containers that
do not run, shut in their file system. It has no label of an agent, and is removed at the end.
"""

import base64
import json
import secrets
from collections.abc import Iterator
from typing import Any

from agentainerd.engine.connection import Connection
from agentainerd.engine.errors import docker_errors
from agentainerd.engine.streams import ByteStream
from agentainerd.errors import AgentainerError, Conflict, NotFound

HELPER_LABEL = "agentainer.volume"
_PLACE = "/volume"
_GO_FOLDER = 1 << 31
_UNPACK_TIMEOUT_S = 600.0  # after the last byte was sent


class VolumeStream:
    """The tar of a volume, piece by piece; closing it removes the container that it is read from."""

    def __init__(self, connection: Connection, container_id: str, source: ByteStream, volume: str) -> None:
        self._connection = connection
        self._container_id = container_id
        self._source = source
        self._volume = volume

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with docker_errors(self._connection.host, "read", "volume", self._volume):
            return next(self._source)

    def close(self) -> None:
        """End it. Safe to repeat."""
        self._source.close()
        if self._container_id:
            _remove(self._connection, self._container_id)
            self._container_id = ""


class Volumes:
    """The volumes of one engine. Stateless: safe from any greenlet. `owner`: marks the containers as this daemon's."""

    def __init__(self, connection: Connection, owner: str) -> None:
        self._connection = connection
        self._owner = owner

    def folder(self, name: str) -> str:
        """See Engine.volume_folder."""
        with self._connection.calling("inspect", "volume", name) as client:
            return str(client.inspect_volume(name)["Mountpoint"])

    def create(self, name: str) -> str:
        """See Engine.create_volume. The engine itself would give the one that is there."""
        try:
            self.folder(name)
        except NotFound:
            with self._connection.calling("create", "volume", name) as client:
                return str(client.create_volume(name)["Mountpoint"])
        raise Conflict(f"there is a volume '{name}' already", code="VOLUME_EXISTS", hint=f"docker volume rm {name}")

    def remove(self, name: str) -> None:
        """See Engine.remove_volume."""
        try:
            with self._connection.calling("remove", "volume", name) as client:
                client.remove_volume(name)
        except NotFound:
            return

    def read(self, source: str, image: str) -> VolumeStream:
        """See Engine.read_volume."""
        container_id = self._container(source, image, "ro")
        try:
            place = f"{_PLACE}/." if self._is_folder(container_id, source) else _PLACE
            with self._connection.calling("read", "volume", source):
                stream = self._connection.open_stream(
                    "GET", "/containers/{0}/archive", container_id,
                    params={"path": place}, headers={"Accept-Encoding": "identity"},
                )  # fmt: skip
        except BaseException:
            _remove(self._connection, container_id)
            raise
        return VolumeStream(self._connection, container_id, stream, source)

    def write(self, source: str, image: str, tar: Iterator[bytes]) -> None:
        """See Engine.write_volume."""
        container_id = self._container(source, image, "rw")
        try:
            with self._connection.calling("write", "volume", source):
                self._connection.unpack(container_id, _PLACE, tar, timeout_s=_UNPACK_TIMEOUT_S)
        finally:
            _remove(self._connection, container_id)

    def tidy(self) -> None:
        """Remove containers of ours that a daemon which died has left."""
        with self._connection.calling("list", "containers") as client:
            found = client.containers(all=True, filters={"label": f"{HELPER_LABEL}={self._owner}"})
        for container in found:
            _remove(self._connection, str(container["Id"]))

    def _container(self, source: str, image: str, mode: str) -> str:
        """Create the container; a folder of the host that is not there is made by the engine."""
        with self._connection.calling("create", "container", image) as client:
            host = client.create_host_config(
                binds=[f"{source}:{_PLACE}:{mode}"], network_mode="none", cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
            )  # fmt: skip
            made: dict[str, Any] = client.create_container(
                image, command=["never-run"], entrypoint=[], host_config=host, labels={HELPER_LABEL: self._owner},
                name=f"agentainer-volume-{secrets.token_hex(6)}",
            )  # fmt: skip
            return str(made["Id"])

    def _is_folder(self, container_id: str, source: str) -> bool:
        with self._connection.calling("read", "volume", source):
            known = self._connection.stat_in_container(container_id, _PLACE)
        if known is None:
            raise NotFound("volume", source)
        return bool(int(json.loads(base64.b64decode(known)).get("mode", 0)) & _GO_FOLDER)


def _remove(connection: Connection, container_id: str) -> None:
    try:
        with connection.calling("remove", "container", container_id) as client:
            client.remove_container(container_id, force=True, v=True)
    except AgentainerError:
        return  # it does nothing, and the next start of the daemon removes it
