"""The hot path's reading and writing."""

import socket

import gevent
import pytest

from agentainerd.proxy.wire import receive, send


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_reading_waits_and_then_has_it(pair):
    waiting = gevent.spawn(receive, pair[0])
    gevent.sleep(0)
    pair[1].sendall(b"abc")

    assert waiting.get(timeout=1) == b"abc"
    pair[1].close()
    assert receive(pair[0]) == b""


def test_writing_more_than_fits_goes_on_when_there_is_room(pair):
    data = bytes(range(256)) * 20_000
    writing = gevent.spawn(send, pair[0], data)
    got = b""
    while len(got) < len(data):
        got += pair[1].recv(65536)

    writing.get(timeout=1)
    assert got == data


def test_a_broken_connection_is_an_error(pair):
    pair[1].close()

    with pytest.raises(OSError, match="pipe"):
        send(pair[0], b"x")
