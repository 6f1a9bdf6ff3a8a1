import http.client
import os
import socket

import gevent
import pytest
from gevent.event import Event

from agentainerd import listeners
from agentainerd.control_server import ControlServer


class Client(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(self._path)


@pytest.fixture
def serve(tmp_path):
    """Start a server for an application; returns (server, path)."""
    servers = []

    def start(application):
        path = str(tmp_path / "api.sock")
        server = ControlServer("test", listeners.unix(path, mode=0o600), application)
        server.start()
        servers.append(server)
        return server, path

    yield start
    for server in servers:
        server.stop_accepting()
        server.drain(1)


@pytest.fixture
def connect():
    opened = []

    def to(path: str) -> Client:
        opened.append(Client(path))
        return opened[-1]

    yield to
    for client in opened:
        client.close()


def answer(body: bytes):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    return application


def test_the_application_knows_who_calls(serve, connect):
    seen = {}

    def application(environ, start_response):
        seen.update(environ)
        return answer(b"hello")(environ, start_response)

    _, path = serve(application)
    client = connect(path)

    client.request("GET", "/a%20b?c=d")

    assert client.getresponse().read() == b"hello"
    assert seen["agentainer.peer"] == (os.getpid(), os.geteuid(), os.getegid())
    assert (seen["PATH_INFO"], seen["QUERY_STRING"]) == ("/a b", "c=d")


def test_the_application_can_ask_whether_who_called_has_left(serve, connect):
    seen, looked, over = [], Event(), Event()

    def application(environ, start_response):
        environ["wsgi.input"].read()
        seen.append(environ["agentainer.left"]())
        looked.set()
        while not environ["agentainer.left"]():
            gevent.sleep(0.01)
        over.set()
        return answer(b"")(environ, start_response)

    _, path = serve(application)
    client = connect(path)
    client.request("POST", "/", b"body")

    assert looked.wait(5)
    assert seen == [False]
    assert not over.is_set()
    client.close()
    assert over.wait(5)


def test_a_connection_serves_many_requests(serve, connect):
    _, path = serve(answer(b"x"))
    client = connect(path)

    for _ in range(3):
        client.request("GET", "/")
        assert client.getresponse().read() == b"x"


def test_pieces_arrive_as_they_are_made(serve, connect):
    go_on = Event()

    def application(environ, start_response):
        start_response("200 OK", [])
        yield b"first"
        go_on.wait()
        yield b"second"

    _, path = serve(application)
    client = connect(path)
    client.request("GET", "/")
    response = client.getresponse()

    assert response.read1() == b"first"
    go_on.set()
    assert response.read() == b"second"


def test_a_large_body_is_read_piece_by_piece(serve, connect):
    sizes = []

    def application(environ, start_response):
        body = environ["wsgi.input"]
        while piece := body.read(65536):
            sizes.append(len(piece))
        return answer(str(sum(sizes)).encode())(environ, start_response)

    _, path = serve(application)
    client = connect(path)

    client.request("POST", "/", body=(b"x" * 100_000 for _ in range(50)), encode_chunked=True,
                   headers={"Transfer-Encoding": "chunked"})  # fmt: skip

    assert client.getresponse().read() == b"5000000"
    assert max(sizes) <= 65536


def test_a_body_that_waits_is_asked_for_when_it_is_read(serve):
    def application(environ, start_response):
        return answer(environ["wsgi.input"].read())(environ, start_response)

    _, path = serve(application)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"body")
        assert client.recv(1000).endswith(b"\r\n\r\nbody")


def test_a_body_that_is_refused_is_not_waited_for(serve):
    def application(environ, start_response):
        start_response("413 Too Large", [("Content-Length", "0")])
        return [b""]

    _, path = serve(application)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")

        head = client.makefile("rb").read()

    assert head.startswith(b"HTTP/1.1 413 Too Large\r\n")
    assert b"Connection: close\r\n" in head


def test_a_client_that_leaves_ends_a_silent_stream(serve, connect, eventually):
    ended = Event()

    def application(environ, start_response):
        start_response("200 OK", [])
        try:
            yield b"line"
            Event().wait()
        finally:
            ended.set()

    _, path = serve(application)
    client = connect(path)
    client.request("GET", "/logs")
    response = client.getresponse()
    assert response.read1() == b"line"

    response.close()
    client.close()

    eventually(ended.is_set)


def test_a_client_that_leaves_after_its_upload_ends_the_stream_too(serve, connect, eventually):
    ended = Event()

    def application(environ, start_response):
        start_response("200 OK", [])
        try:
            yield environ["wsgi.input"].read()
            Event().wait()
        finally:
            ended.set()

    _, path = serve(application)
    client = connect(path)
    client.request("POST", "/build", body=b"context")
    response = client.getresponse()
    assert response.read1() == b"context"

    response.close()
    client.close()

    eventually(ended.is_set)


def test_a_client_that_leaves_does_not_break_off_an_operation(serve, connect, eventually):
    begun, go_on, done = Event(), Event(), Event()

    def application(environ, start_response):
        begun.set()
        go_on.wait()
        done.set()
        return answer(b"done")(environ, start_response)

    _, path = serve(application)
    client = connect(path)
    client.request("POST", "/agents/a/start")
    eventually(begun.is_set)
    client.close()
    gevent.sleep(0)
    go_on.set()

    eventually(done.is_set)


def test_a_pipelined_request_is_served_after_a_stream(serve):
    def application(environ, start_response):
        start_response("200 OK", [])
        yield environ["PATH_INFO"].encode()
        gevent.sleep(0)
        yield b"!"

    _, path = serve(application)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        client.sendall(b"GET /one HTTP/1.1\r\nHost: x\r\n\r\nGET /two HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        everything = client.makefile("rb").read()

    assert everything.index(b"/one") < everything.index(b"/two")


def test_an_error_of_the_application_is_logged_and_answered(serve, connect, caplog, capfd):
    def application(environ, start_response):
        raise ZeroDivisionError("on purpose")

    _, path = serve(application)
    client = connect(path)
    client.request("GET", "/")

    assert client.getresponse().status == 500
    assert "control request failed" in caplog.text
    assert capfd.readouterr().err == ""


def test_garbage_gets_400_and_no_traceback(serve, capfd):
    _, path = serve(answer(b"x"))
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        client.sendall(b"what is this\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 400")

    assert capfd.readouterr().err == ""


def test_queries_are_not_logged(serve, connect, caplog):
    caplog.set_level("DEBUG", "agentainerd.control_server")
    _, path = serve(answer(b"x"))
    client = connect(path)

    client.request("GET", "/agents?token=s3cret")
    client.getresponse().read()
    client.request("GET", "/")
    client.getresponse().read()

    assert caplog.records[0].path == "/agents"
    assert "s3cret" not in str([vars(record) for record in caplog.records])


def test_stopping_lets_a_request_finish_and_closes_its_connection(serve, connect, eventually):
    begun, go_on = Event(), Event()

    def application(environ, start_response):
        begun.set()
        go_on.wait()
        return answer(b"done")(environ, start_response)

    server, path = serve(application)
    client, idle = connect(path), connect(path)
    idle.connect()
    client.request("GET", "/")
    eventually(begun.is_set)

    server.stop_accepting()
    go_on.set()

    response = client.getresponse()
    assert response.read() == b"done"
    assert response.getheader("Connection") == "close"
    assert server.drain(5) == 0
    assert idle.sock.recv(1) == b""


def test_stopping_ends_what_only_watches(serve, connect):
    def application(environ, start_response):
        start_response("200 OK", [])
        yield b"line"
        Event().wait()

    server, path = serve(application)
    client = connect(path)
    client.request("GET", "/logs")
    assert client.getresponse().read1() == b"line"

    server.stop_accepting()

    assert server.drain(5) == 0


def test_what_does_not_end_in_time_is_broken_off_and_counted(serve, connect, eventually):
    begun = Event()

    def application(environ, start_response):
        begun.set()
        Event().wait()
        return answer(b"never")(environ, start_response)

    server, path = serve(application)
    client = connect(path)
    client.request("POST", "/")
    eventually(begun.is_set)

    server.stop_accepting()

    assert server.drain(0.05) == 1


def test_a_head_of_a_stream_has_no_body_that_the_next_answer_would_begin_with(serve, connect):
    def application(environ, start_response):
        start_response("200 OK", [])
        return iter(()) if environ["REQUEST_METHOD"] == "HEAD" else iter([b"streamed"])

    _, path = serve(application)
    client = connect(path)

    client.request("HEAD", "/")
    head = client.getresponse()
    nothing = head.read()
    client.request("GET", "/")

    assert (head.status, nothing, head.getheader("Content-Length")) == (200, b"", None)
    assert client.getresponse().read() == b"streamed"
