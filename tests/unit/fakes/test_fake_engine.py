"""What only the fake engine has: the controls that tests use. What it shares with Docker is in tests/contract."""

import json
from http.client import HTTPConnection

import pytest

from agentainerd.errors import Failed, NotFound, Unavailable
from agentainerd.model.containers import Container, ContainerSpec, ContainerState
from tests.fakes.engine import FakeEngine
from tests.fakes.programs import Answer, Program, http


def spec(image: str = "echo", name: str = "a") -> ContainerSpec:
    return ContainerSpec(
        name=f"agentainer-{name}",
        hostname=name,
        image=image,
        aliases=(name,),
        labels={"agentainer.id": name},
        env={"AGENT_ID": name},
    )


def started(engine: FakeEngine, image: str = "echo", name: str = "a") -> Container:
    return engine.start(engine.create(spec(image, name)))


def ask(box: Container, method: str = "GET", target: str = "/", body: str | None = None, port: int = 8000) -> bytes:
    connection = HTTPConnection(box.address, port, timeout=2)
    try:
        connection.request(method, target, body)
        return connection.getresponse().read()
    finally:
        connection.close()


def test_the_echo_agent_answers_what_it_was_asked(fake_engine):
    box = started(fake_engine)

    said = json.loads(ask(box, "POST", "/x?y=%20", "hello"))

    assert (said["agent_id"], said["method"], said["target"], said["body"]) == ("a", "POST", "/x?y=%20", "hello")


def test_two_agents_listen_on_the_same_port_at_their_own_addresses(fake_engine):
    one, two = started(fake_engine, name="a"), started(fake_engine, name="b")

    assert json.loads(ask(one))["agent_id"] == "a"
    assert json.loads(ask(two))["agent_id"] == "b"


def test_a_program_of_a_test_answers(fake_engine):
    fake_engine.add_image(
        "greet", Program(http(lambda request, run: Answer(200, b"hi from " + run.env["AGENT_ID"].encode())))
    )

    assert ask(started(fake_engine, "greet")) == b"hi from a"


def test_kill_resets_connections_and_refuses_new_ones(fake_engine):
    box = started(fake_engine)
    connection = HTTPConnection(box.address, 8000, timeout=2)
    connection.request("GET", "/")
    connection.getresponse().read()

    fake_engine.kill("a")

    with pytest.raises(ConnectionResetError):
        connection.sock.recv(1)
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        ask(box)
    assert fake_engine.inspect(box.id).exit_code == 137


def test_a_paused_agent_accepts_and_does_not_answer(fake_engine):
    box = started(fake_engine)
    fake_engine.pause(box.id)
    connection = HTTPConnection(box.address, 8000, timeout=0.1)
    connection.request("GET", "/")

    with pytest.raises(TimeoutError):
        connection.sock.recv(1)

    fake_engine.unpause(box.id)
    connection.sock.settimeout(2)
    assert connection.sock.recv(4) == b"HTTP"
    connection.close()


def test_an_agent_can_be_slow_to_listen(fake_engine):
    fake_engine.add_image("slow", Program(listens=False))
    box = started(fake_engine, "slow")
    with pytest.raises(ConnectionRefusedError):
        ask(box)

    fake_engine.listen("a")

    assert json.loads(ask(box))["agent_id"] == "a"


def test_oom_and_exit_are_told_as_events(fake_engine):
    events = fake_engine.events()
    assert next(events).action == "reconnected"
    box = started(fake_engine)
    fake_engine.oom("a")
    fake_engine.start(box.id)
    fake_engine.exit("a", 3)

    seen = [next(events) for _ in range(6)]

    assert [event.action for event in seen] == ["create", "start", "oom", "die", "start", "die"]
    assert [event.exit_code for event in seen if event.action == "die"] == [137, 3]


def test_an_engine_that_is_down_answers_nothing_and_its_events_reconnect(fake_engine):
    events = fake_engine.events()
    next(events)
    fake_engine.go_down("no such file")
    with pytest.raises(Unavailable, match="no such file") as failure:
        fake_engine.containers()

    fake_engine.come_back()

    assert failure.value.code == "ENGINE_UNAVAILABLE"
    assert next(events).action == "reconnected"
    assert fake_engine.containers() == []


def test_a_program_can_fail_to_start_or_exit_at_once(fake_engine):
    program = Program(fails=(127, "no such command"))
    fake_engine.add_image("bad", program)
    container_id = fake_engine.create(spec("bad"))
    with pytest.raises(Failed, match="no such command"):
        fake_engine.start(container_id)
    program.fails, program.exits = None, 1

    box = fake_engine.start(container_id)

    assert (box.state, box.exit_code) == (ContainerState.EXITED, 1)


def test_an_image_comes_from_the_registry(fake_engine):
    fake_engine.registry["far/away:1"] = Program()
    last = list(fake_engine.pull("far/away:1"))[-1]

    assert fake_engine.image("far/away:1").id == last.image_id
    with pytest.raises(NotFound):
        list(fake_engine.pull("far/nowhere:1"))
    fake_engine.registry_down = True
    with pytest.raises(Unavailable):
        list(fake_engine.pull("far/away:1"))
