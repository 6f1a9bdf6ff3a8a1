"""Upgrades pass as raw tunnels."""

import socket

import pytest

from tests.fakes.agents import RawAgent, answer, receive_all
from tests.fakes.planes import Answered

ASK = b"GET /agent/web/ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\n"
)


def echo(connection, _request):
    connection.sendall(SWITCH + b"hello")
    while data := connection.recv(65536):
        connection.sendall(data.upper())
    connection.shutdown(socket.SHUT_WR)


def read_until(connection, end):
    data = b""
    while not data.endswith(end):
        piece = connection.recv(65536)
        assert piece, data
        data += piece
    return data


def test_bytes_pass_both_ways_untouched(make_plane):
    plane = make_plane(agent=RawAgent(echo))
    with plane.connect() as connection:
        connection.sendall(ASK + b"early")
        first = read_until(connection, b"EARLY")
        assert first.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert b"Upgrade: websocket\r\n" in first
        assert b"Sec-WebSocket-Accept: a\r\n" in first
        assert b"\r\n\r\nhelloEARLY" in first
        connection.sendall(b"\x00\xff frames")
        assert read_until(connection, b"FRAMES") == b"\x00\xff FRAMES"
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection) == b""

    seen = plane.agent.requests[0]
    assert seen.startswith(b"GET /ws HTTP/1.1\r\n")
    assert b"Connection: Upgrade\r\nUpgrade: websocket\r\n" in seen
    assert not plane.journal.live
    assert not plane.journal.pending


def test_the_end_of_the_agent_is_the_end_of_the_client(make_plane):
    def hang_up(connection, _request):
        connection.sendall(SWITCH)
        connection.close()

    plane = make_plane(agent=RawAgent(hang_up))
    with plane.connect() as connection:
        connection.sendall(ASK)
        assert receive_all(connection).endswith(b"\r\n\r\n")


def test_an_agent_that_does_not_switch_answers(make_plane):
    plane = make_plane(agent=RawAgent(lambda c, r: c.sendall(answer(b"no", status=b"426 Upgrade Required"))))

    got = Answered(plane.send(ASK))

    assert (got.status, got.body) == (426, b"no")


def test_an_absent_agent_is_503(plane):
    plane.agent.close()

    got = Answered(plane.send(ASK))

    assert got.status == 503
    assert "retry-after" in got.fields
    assert not plane.journal.pending


def test_h2c_is_not_an_upgrade_that_passes(plane):
    got = Answered(plane.send(ASK.replace(b"websocket", b"h2c")))

    assert got.status == 200
    assert b"h2c" not in plane.agent.requests[0]


@pytest.mark.parametrize("reply", [b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"nonsense"])
def test_garbage_is_502(make_plane, reply):
    plane = make_plane(agent=RawAgent(lambda c, r: (c.sendall(reply), c.shutdown(socket.SHUT_WR))))

    assert Answered(plane.send(ASK)).status == 502
