"""Streams: callbacks in the hub, and what greenlets may wait for."""

import _socket
import socket

import gevent
import pytest

from agentainerd.proxy.wire import Stream, connect


@pytest.fixture
def pair():
    """A stream, and the other side of it."""
    ours, theirs = socket.socketpair()
    stream = Stream(_socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, ours.detach()))
    stream.sock.setblocking(False)
    yield stream, theirs
    stream.close()
    theirs.close()


def test_reading_waits_and_then_has_it(pair):
    stream, other = pair
    waiting = gevent.spawn(stream.read)
    gevent.sleep(0)
    other.sendall(b"abc")

    assert waiting.get(timeout=1) == b"abc"
    other.close()
    assert stream.read() == b""


def test_whoever_listens_is_called_for_each_arrival_and_for_the_end(pair, eventually):
    stream, other = pair
    got = []
    stream.listen(lambda: got.append(stream.receive(10)))
    other.sendall(b"one")
    eventually(lambda: got == [b"one"])

    stream.pause()
    other.sendall(b"two")
    gevent.sleep(0.01)
    assert got == [b"one"]

    stream.listen(lambda: got.append(stream.receive(10)) or (got[-1] or stream.pause()))
    other.close()
    eventually(lambda: got == [b"one", b"two", b""])


def test_writing_more_than_fits_goes_on_when_there_is_room(pair):
    stream, other = pair
    data = bytes(range(256)) * 20_000
    writing = gevent.spawn(stream.write, data)
    got = b""
    while len(got) < len(data):
        got += other.recv(65536)

    writing.get(timeout=1)
    assert got == data
    assert not stream.undrained


def test_what_is_pushed_after_a_full_socket_keeps_its_order(pair, eventually):
    stream, other = pair
    drained = []
    assert not stream.push(b"a" * 5_000_000)
    assert not stream.push(b"b")
    stream.on_drained = lambda: drained.append(True)

    got = b""
    while len(got) < 5_000_001:
        got += other.recv(65536)

    assert got.endswith(b"ab")
    eventually(lambda: drained == [True])


def test_a_broken_connection_is_an_error(pair):
    stream, other = pair
    other.close()

    with pytest.raises(OSError, match="pipe"):
        stream.push(b"x")


def test_closing_wakes_whoever_reads_or_writes(pair):
    stream, _ = pair
    reading, writing = gevent.spawn(stream.read), gevent.spawn(stream.write, b"x" * 5_000_000)
    gevent.sleep(0.01)

    stream.close()

    for waiting in (reading, writing):
        with pytest.raises(OSError, match="closed here"):
            waiting.get(timeout=1)
    stream.close()


def test_quiet_and_ended(pair, eventually):
    stream, other = pair
    assert stream.is_quiet()
    other.sendall(b"x")
    eventually(lambda: not stream.is_quiet())
    assert not stream.has_ended()
    stream.read()
    other.close()
    eventually(stream.has_ended)


def test_connecting_to_nobody_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
        connect(address, 1.0).close()
    with pytest.raises(ConnectionRefusedError):
        connect(address, 1.0)
    with pytest.raises(FileNotFoundError):
        connect("/nowhere.sock", 1.0)
