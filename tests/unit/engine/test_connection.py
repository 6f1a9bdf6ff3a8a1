"""An engine that can't be reached, for each reason that there is; nothing here needs Docker."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer

from agentainerd.engine.docker_engine import DockerEngine
from agentainerd.errors import InvalidParameter, Unavailable


def refusal_of(host: str, timeout_s: float = 5) -> Unavailable:
    """Return what an engine at this address says to a ping."""
    engine = DockerEngine(host, timeout_s=timeout_s)
    with pytest.raises(Unavailable) as failure:
        engine.ping()
    engine.close()
    assert failure.value.code == "ENGINE_UNAVAILABLE"
    assert failure.value.hint
    return failure.value


@contextmanager
def server(answer: bytes | None) -> Iterator[str]:
    """Serve `answer` to whatever is asked (None: nothing at all); give the address."""

    def serve(connection: socket.socket, _: object) -> None:
        connection.recv(65536)
        if answer is None:
            gevent.sleep(60)
        else:
            connection.sendall(answer)

    listening = StreamServer(("127.0.0.1", 0), serve)
    listening.start()
    try:
        yield f"tcp://127.0.0.1:{listening.server_port}"
    finally:
        listening.stop(timeout=0)


def test_a_socket_that_is_not_there(tmp_path):
    refused = refusal_of(f"unix://{tmp_path}/docker.sock")

    assert refused.message == f"cannot reach the Docker engine at unix://{tmp_path}/docker.sock: no such file"
    assert refused.hint.startswith("start it with: sudo systemctl start docker")


def test_a_socket_that_nobody_listens_on(tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "docker.sock"))

    refused = refusal_of(f"unix://{tmp_path}/docker.sock")

    assert "connection refused" in refused.message
    assert "systemctl start docker" in refused.hint


def test_a_file_that_is_not_a_socket(tmp_path):
    (tmp_path / "docker.sock").write_text("")

    assert refusal_of(f"unix://{tmp_path}/docker.sock").message.endswith(
        "refused (a socket that nobody listens on any more)"
    )


@pytest.fixture
def somebody() -> Iterator[None]:
    """Be an ordinary user for the test, where this process is root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_socket_without_permission(tmp_path: Path, request: pytest.FixtureRequest):
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):
        folder.chmod(folder.stat().st_mode | stat.S_IXOTH | stat.S_IXGRP)
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0)
        request.getfixturevalue("somebody")

        refused = refusal_of(f"unix://{path}")

    assert refused.message.startswith(f"no permission for {path} (owner ")
    assert "mode 0000" in refused.message
    assert f"runs as uid {os.geteuid()} (" in refused.message
    assert "usermod -aG docker" in refused.hint


def test_a_port_that_nobody_listens_on():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"tcp://127.0.0.1:{unused.getsockname()[1]}"

        refused = refusal_of(host)

    assert refused.message == f"cannot reach the Docker engine at {host}: connection refused"
    assert "docker.host" in refused.hint


def test_a_host_that_is_unknown():
    refused = refusal_of("tcp://no-such-host.invalid:2375")

    assert refused.message.endswith("the name 'no-such-host.invalid' is unknown")
    assert "docker.host" in refused.hint


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
def test_something_else_than_an_engine(answer):
    with server(answer) as host:
        assert "is not a Docker engine" in refusal_of(host).message


def test_an_engine_that_closes_the_connection():
    with server(b"") as host:
        assert "the connection broke off" in refusal_of(host).message


def test_an_engine_that_hangs():
    with server(None) as host:
        assert "no answer in time" in refusal_of(host, timeout_s=0.1).message


@pytest.mark.parametrize("host", ["", "docker", "ssh://root@host", "npipe:////./pipe/docker", "unix://", "tcp://"])
def test_an_address_that_can_be_none_is_refused_at_once(host):
    with pytest.raises(InvalidParameter) as failure:
        DockerEngine(host)

    assert failure.value.field == "docker.host"


def test_events_of_an_engine_that_is_away_wait_until_they_are_closed(tmp_path):
    events = DockerEngine(f"unix://{tmp_path}/docker.sock").events()
    reader = gevent.spawn(list, events)  # noqa: TID251 - a second greenlet is what is tested
    gevent.sleep(0.01)

    events.close()

    assert reader.get(timeout=2) == []
