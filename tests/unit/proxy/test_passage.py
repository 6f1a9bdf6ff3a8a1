"""What is not for an agent goes to the control API's gateway socket."""

import socket

import pytest
from gevent.server import StreamServer

from tests.fakes.agents import answer, receive_all, whole


@pytest.fixture
def api(tmp_path):
    """A raw server on the gateway socket; `api.requests` is what it got."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "gateway.sock"))
    listener.listen()
    requests = []

    def serve(connection, _address):
        data = b""
        while piece := connection.recv(65536):
            data += piece
            if (end := whole(data)) is not None:
                requests.append(data[:end])
                data = data[end:]
                connection.sendall(answer(b'{"success":true}'))

    server = StreamServer(listener, serve)
    server.requests = requests
    server.start()
    yield server
    server.stop()
    listener.close()


def test_a_request_reaches_the_api_with_the_peers_address(api, plane):
    got = plane.ask(path="/agents?limit=1", fields={"Authorization": "Bearer t", "X-Forwarded-For": "6.6.6.6"})

    assert (got.status, got.body) == (200, b'{"success":true}')
    assert api.requests[0].startswith(b"GET /agents?limit=1 HTTP/1.1\r\n")
    assert b"Authorization: Bearer t\r\n" in api.requests[0]
    assert b"X-Forwarded-For: 127.0.0.1\r\n" in api.requests[0]
    assert b"6.6.6.6" not in api.requests[0]
    assert not plane.journal.settled


def test_a_large_body_is_passed_piece_by_piece(api, plane):
    body = b"t" * 2_000_000

    assert plane.ask("POST", "/images/build", body=body).status == 200
    assert api.requests[0].endswith(body)


def test_many_requests_share_a_connection(api, plane):
    with plane.connect() as connection:
        for _ in range(3):
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
            assert connection.recv(65536).endswith(b'{"success":true}')
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert receive_all(connection)


def test_without_an_api_it_is_503(plane):
    got = plane.ask(path="/agents")

    assert (got.status, got.json["code"]) == (503, "API_UNAVAILABLE")
