"""Answers of the engine that go on: bytes as they come, ended from any greenlet, with no limit on silence.

The socket of such an answer has no timeout (docker-py#1057): a quiet agent's log may be followed for days. What ends
it is the engine, or `close`.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BufferedReader
from typing import Generic, TypeVar

import requests  # noqa: TID251 - the type of docker's answers
from gevent import socket

from agentainerd.engine.errors import DOCKER_ERRORS

Item = TypeVar("Item")
_PIECE_BYTES = 64 * 1024


class ByteStream:
    """The body of one answer, piece by piece, as the engine flushed it. One greenlet reads, any may close.

    `closed`: it was read to its end, or `close` was called. `was_cut`: `close` came first, so what was read is not all.
    """

    def __init__(
        self, response: requests.Response, sock: socket.socket, *, on_close: Callable[["ByteStream"], object]
    ) -> None:
        self.closed = self.was_cut = False
        self._response = response
        self._socket = sock
        self._pieces = response.raw.stream(_PIECE_BYTES)
        self._reading = False
        self._on_close = on_close
        self._socket.settimeout(None)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """Return the next piece; blocks its greenlet until there is one.

        Raises:
            DOCKER_ERRORS: the connection broke; for `docker_errors`.
        """
        if self.closed:
            raise StopIteration
        self._reading = True
        try:
            piece: bytes = next(self._pieces)
        except StopIteration:
            self._end()  # the connection may serve another call by now: it is not ours to shut down
            raise
        except DOCKER_ERRORS:
            if self.closed:
                raise StopIteration from None
            raise
        finally:
            self._reading = False
            if self.closed:
                self._response.close()
        return piece

    def close(self) -> None:
        """End it; a greenlet that reads gets StopIteration. Safe to repeat."""
        if self.closed:
            return
        self.was_cut = True
        self._end()
        with suppress(OSError):  # the engine may have closed it first
            self._socket.shutdown(socket.SHUT_RDWR)
        if not self._reading:
            self._response.close()

    def _end(self) -> None:
        self.closed = True
        self._on_close(self)


class Duplex:
    """A connection that was upgraded: bytes both ways. One greenlet reads, any may send or close."""

    def __init__(self, response: requests.Response, sock: socket.socket, reader: BufferedReader) -> None:
        self._response = response
        self._socket = sock
        self._reader = reader
        self._is_open = True

    def read(self, timeout_s: float) -> bytes:
        """Return what came, b"" at the end; after a TimeoutError there is nothing more to read. Raises OSError."""
        self._socket.settimeout(timeout_s)
        return self._reader.read1(_PIECE_BYTES) if self._is_open else b""

    def send(self, data: bytes) -> None:
        """Send all of it. Raises OSError."""
        self._socket.sendall(data)

    def end_input(self) -> None:
        """Say that nothing more is sent."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """End it, from any greenlet: who reads gets b"" or an OSError."""
        self._is_open = False
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it, and let go of it; for the greenlet that reads. Safe to repeat."""
        self.abort()
        self._response.close()  # and with it the reader
        self._socket.close()


class ItemStream(Generic[Item]):
    """What `items` makes of the bytes of `source`; closing it ends both. Nothing is read before the first `next`."""

    def __init__(self, source: ByteStream, items: Iterator[Item]) -> None:
        self._source = source
        self._items = items

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        try:
            return next(self._items)
        except BaseException:
            self._source.close()
            raise

    def close(self) -> None:
        """End it, from any greenlet. Safe to repeat."""
        self._source.close()


def lines_of(source: ByteStream) -> Iterator[bytes]:
    """Yield the lines of a stream, without empty ones; an unfinished last line is one too."""
    rest = b""
    for piece in source:
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line for line in lines if line.strip())
    if rest.strip() and not source.was_cut:
        yield rest
