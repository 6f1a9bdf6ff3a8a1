"""A container's output: the engine's frames taken apart into stdout and stderr. Never a terminal."""

import struct
from collections.abc import Iterator

from agentainerd.engine.connection import Connection
from agentainerd.engine.errors import docker_errors
from agentainerd.engine.streams import ByteStream, ItemStream
from agentainerd.model.containers import LogPiece

_HEADER = struct.Struct(">BxxxL")
_STREAMS = {0: "stdout", 1: "stdout"}


class Demultiplexer:
    """Bytes as they come to whole frames; a frame may come in any number of pieces, and a piece may have many frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[LogPiece]:
        """Yield what is whole now; empty frames are left out."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(buffer)
            end = _HEADER.size + length
            if len(buffer) < end:
                return
            payload = bytes(buffer[_HEADER.size : end])
            del buffer[:end]
            if payload:
                yield LogPiece(_STREAMS.get(kind, "stderr"), payload)


def read(
    connection: Connection, container_id: str, *, follow: bool, tail: int | None, since: float, timestamps: bool
) -> ItemStream[LogPiece]:
    """See Engine.logs."""
    params: dict[str, str | int] = {
        "stdout": 1,
        "stderr": 1,
        "follow": int(follow),
        "timestamps": int(timestamps),
        "tail": "all" if tail is None else tail,
    }
    if since > 0:
        params["since"] = f"{since:.9f}"
    with connection.calling("read", "container", container_id):
        source = connection.open_stream("GET", "/containers/{0}/logs", container_id, params=params)
    return ItemStream(source, _pieces(connection, source, container_id))


def _pieces(connection: Connection, source: ByteStream, container_id: str) -> Iterator[LogPiece]:
    frames = Demultiplexer()
    with docker_errors(connection.host, "read", "container", container_id):
        for data in source:
            yield from frames.feed(data)
