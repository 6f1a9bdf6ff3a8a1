"""Lines and endings of byte streams, on a real chunked answer over a real socket."""

from collections.abc import Iterator
from contextlib import contextmanager

import gevent
import pytest
import requests  # noqa: TID251 - what the streams are made of
from gevent.queue import Queue
from gevent.server import StreamServer

from agentainerd.engine.streams import ByteStream, ItemStream, lines_of


@contextmanager
def answer(*pieces: bytes, ends: bool = True, breaks: bool = False) -> Iterator[tuple[ByteStream, list[ByteStream]]]:
    """Give a stream of these chunks, and a list in which it is put when it is closed."""
    more: Queue = Queue()

    def serve(connection, _) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in pieces:
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        if breaks:
            return
        if ends:
            connection.sendall(b"0\r\n\r\n")
        more.get()

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    response = requests.get(f"http://127.0.0.1:{server.server_port}/", stream=True, timeout=5)
    closed: list[ByteStream] = []
    stream = ByteStream(response, response.raw._fp.fp.raw._sock, on_close=closed.append)
    try:
        yield stream, closed
    finally:
        stream.close()
        more.put(None)
        server.stop(timeout=0)


def test_pieces_come_as_they_were_flushed():
    with answer(b"one", b"two") as (stream, closed):
        assert list(stream) == [b"one", b"two"]

        assert stream.closed
        assert not stream.was_cut
        assert closed == [stream]


def test_a_reader_in_another_greenlet_ends_when_it_is_closed():
    with answer(b"one", ends=False) as (stream, closed):
        assert next(stream) == b"one"
        reader = gevent.spawn(list, stream)  # noqa: TID251 - a second greenlet is what is tested
        gevent.sleep(0)

        stream.close()
        stream.close()

        assert reader.get(timeout=2) == []
        assert stream.was_cut
        assert closed == [stream]


def test_a_broken_answer_is_an_error():
    with answer(b"one", breaks=True) as (stream, _):
        assert next(stream) == b"one"
        with pytest.raises(Exception, match="Connection broken|IncompleteRead|Response ended"):
            next(stream)


def test_lines_are_put_together_from_pieces():
    with answer(b"on", b"e\ntwo\n\nth", b"ree") as (stream, _):
        assert list(lines_of(stream)) == [b"one", b"two", b"three"]


def test_an_unfinished_line_of_a_stream_that_was_cut_is_left_out():
    with answer(b"one\ntw", ends=False) as (stream, _):
        lines = lines_of(stream)
        assert next(lines) == b"one"

        stream.close()

        assert list(lines) == []


def test_what_is_made_of_a_stream_closes_it_at_its_end():
    with answer(b"1\n2\n") as (stream, closed):
        assert list(ItemStream(stream, (int(line) for line in lines_of(stream)))) == [1, 2]
        assert closed == [stream]


def test_what_is_made_of_a_stream_closes_it_when_it_fails():
    with answer(b"x\n", ends=False) as (stream, closed):
        with pytest.raises(ValueError, match="invalid literal"):
            next(ItemStream(stream, (int(line) for line in lines_of(stream))))

        assert closed == [stream]
