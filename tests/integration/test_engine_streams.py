"""An engine that comes, goes and hangs, made from the real one by a relay that can be cut; and silence."""

import itertools
import uuid
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent import socket
from gevent.pool import Group
from gevent.server import StreamServer

from agentainerd.engine.docker_engine import DockerEngine
from agentainerd.errors import Unavailable
from agentainerd.model.containers import ContainerSpec

pytestmark = pytest.mark.docker


class Relay:
    """A Unix socket that leads to the engine's, until it is cut."""

    def __init__(self, engine: str, path: Path) -> None:
        self.path = path
        self.connections = 0
        self._engine = engine.removeprefix("unix://")
        self._server: StreamServer | None = None
        self._pumps = Group()
        self._ends: list[socket.socket] = []

    def open(self) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen(64)
        self._server = StreamServer(listener, self._serve)
        self._server.start()

    def cut(self) -> None:
        """Be gone, as an engine that was killed."""
        if self._server is not None:
            self._server.stop(timeout=0)
            self._server = None
            self.path.unlink()
        for end in self._ends:
            end.close()
        self._ends.clear()
        self._pumps.kill()

    def _serve(self, near: socket.socket, _: object) -> None:
        self.connections += 1
        far = socket.socket(socket.AF_UNIX)
        far.connect(self._engine)
        self._ends += [near, far]
        back = self._pumps.spawn(_pump, far, near)
        _pump(near, far)
        back.join()
        far.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture
def relay(docker_host: str, tmp_path: Path) -> Iterator[Relay]:
    if not docker_host.startswith("unix://"):
        pytest.fail("the relay needs an engine on a Unix socket")
    relay = Relay(docker_host, tmp_path / "docker.sock")
    yield relay
    relay.cut()


@pytest.fixture
def engine(relay: Relay, docker_engine: DockerEngine, docker_sandbox) -> Iterator[DockerEngine]:
    engine = DockerEngine(
        f"unix://{relay.path}", network=docker_sandbox.network, isolated_network=docker_sandbox.isolated_network
    )
    yield engine
    engine.close()


def spec_of(image: str, *command: str) -> ContainerSpec:
    agent_id = f"agent-{uuid.uuid4().hex[:16]}"
    return ContainerSpec(
        name=f"agentainer-{agent_id}",
        hostname=agent_id,
        image=image,
        aliases=(agent_id,),
        labels={"agentainer.id": agent_id},
        env={},
        command=command,
    )


def next_of(events, container_id: str):
    """The next event of this container: others may be at work on the same engine."""
    return next(event for event in events if event.container_id == container_id)


def test_an_engine_that_comes_later_is_found_without_being_told(engine, relay):
    with pytest.raises(Unavailable, match="no such file"):
        engine.ping()

    relay.open()

    engine.ping()


def test_an_engine_that_was_restarted_is_found_again(engine, relay):
    relay.open()
    engine.ping()
    relay.cut()
    for _ in range(2):
        with pytest.raises(Unavailable):
            engine.containers()

    relay.open()

    engine.containers()


def test_events_go_on_after_the_engine_came_back(engine, relay, docker_engine, agent_image):
    relay.open()
    events = engine.events()
    assert next(events).action == "reconnected"
    first = docker_engine.create(spec_of(agent_image))
    assert next_of(events, first).action == "create"
    reader = gevent.spawn(next, events)  # noqa: TID251 - it waits while the engine is away
    gevent.sleep(0)
    relay.cut()
    docker_engine.remove(first)
    assert not reader.ready()

    relay.open()

    assert reader.get(timeout=10).action == "reconnected"
    second = docker_engine.create(spec_of(agent_image))
    assert next_of(events, second).action == "create"
    events.close()


def test_attempts_to_read_events_become_rarer(engine, relay, eventually):
    events = engine.events()
    reader = gevent.spawn(list, events)  # noqa: TID251 - it tries for ever
    attempts = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(relay.path))
    listener.listen()

    def refuse() -> None:
        while True:
            connection, _ = listener.accept()
            attempts.append(gevent.get_hub().loop.now())
            connection.close()

    refuser = gevent.spawn(refuse)  # noqa: TID251 - an engine that hangs up
    eventually(lambda: len(attempts) >= 6, limit_s=30)

    events.close()

    reader.get(timeout=5)
    refuser.kill()
    listener.close()
    gaps = [later - earlier for earlier, later in zip(attempts[1::2], attempts[3::2], strict=False)]
    assert all(later > earlier * 0.9 for earlier, later in itertools.pairwise(gaps)), gaps
    assert gaps[0] >= 0.1


def test_a_followed_log_that_breaks_off_says_so(engine, relay, docker_engine, agent_image, eventually):
    relay.open()
    box = docker_engine.start(docker_engine.create(spec_of(agent_image)))
    stream = engine.logs(box.id, follow=True)
    assert next(stream).data == b"listening\n"
    reader = gevent.spawn(next, stream)  # noqa: TID251 - it waits for the next line
    gevent.sleep(0)

    relay.cut()

    with pytest.raises(Unavailable) as failure:
        reader.get(timeout=5)
    assert failure.value.code == "ENGINE_UNAVAILABLE"
    assert "broke off" in failure.value.message


def test_silence_longer_than_the_timeout_breaks_no_stream(docker_host, docker_sandbox, docker_engine, agent_image):
    engine = DockerEngine(
        docker_host, network=docker_sandbox.network, isolated_network=docker_sandbox.isolated_network, timeout_s=2
    )
    quiet = ("python3", "-u", "-c", "import time; print('one'); time.sleep(3); print('two')")
    events = engine.events()
    assert next(events).action == "reconnected"
    box = docker_engine.start(docker_engine.create(spec_of(agent_image, *quiet)))
    stream = engine.logs(box.id, follow=True)

    assert [piece.data for piece in stream] == [b"one\n", b"two\n"]
    assert [next_of(events, box.id).action for _ in range(3)] == ["create", "start", "die"]
    stream.close()
    engine.close()


def test_many_greenlets_share_an_engine(docker_engine, agent_image):
    box_id = docker_engine.create(spec_of(agent_image))

    calls = [gevent.spawn(docker_engine.inspect, box_id) for _ in range(100)]  # noqa: TID251

    assert {call.get(timeout=20).id for call in calls} == {box_id}


def test_a_silent_container_is_followed_at_once(docker_engine, agent_image):
    silent = ("python3", "-c", "import time; time.sleep(60)")
    box = docker_engine.start(docker_engine.create(spec_of(agent_image, *silent)))

    stream = docker_engine.logs(box.id, follow=True)
    reader = gevent.spawn(list, stream)  # noqa: TID251
    gevent.sleep(0)
    docker_engine.stop(box.id, grace_s=0)

    assert reader.get(timeout=5) == []
