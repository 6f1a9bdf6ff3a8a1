"""What every `Engine` does: the same tests on Docker and on the fake."""

import io
import json
import os
import re
import secrets
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.client import HTTPConnection

import docker
import gevent
import pytest
from gevent import socket

from agentainerd.engine.docker_engine import DockerEngine
from agentainerd.engine.engine import Engine
from agentainerd.errors import Conflict, DeadlineExceeded, Failed, InvalidParameter, NotFound
from agentainerd.model.agents import Volume
from agentainerd.model.containers import Container, ContainerSpec, ContainerState
from tests.conftest import wait_until
from tests.fakes.docker import context
from tests.fakes.engine import FakeEngine
from tests.fakes.programs import Answer, Program, Request, Run, echo, http


class Bench:
    """One engine under test: its echo image, and what an outsider does to its containers."""

    engine: Engine
    image: str

    def kill(self, box: Container) -> None:
        raise NotImplementedError

    def unrunnable(self, spec: ContainerSpec) -> ContainerSpec:
        raise NotImplementedError

    def limits(self, box: Container) -> tuple[int, int]:
        raise NotImplementedError

    def spec(self, **changes: object) -> ContainerSpec:
        agent_id = f"agent-{uuid.uuid4().hex[:16]}"
        spec = ContainerSpec(
            name=f"agentainer-{agent_id}",
            hostname=agent_id,
            image=self.image,
            aliases=(agent_id,),
            labels={"agentainer.id": agent_id, "agentainer.name": "x"},
            env={"AGENT_ID": agent_id},
        )
        return replace(spec, **changes)

    def started(self, **changes: object) -> Container:
        box = self.engine.start(self.engine.create(self.spec(**changes)))
        wait_for_port(box)
        return box


class FakeBench(Bench):
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.fake = engine
        self.image = "agent"
        engine.add_image("agent", Program(http(echo_and_obey), prints=("listening",)))
        engine.add_image("broken", Program(fails=(127, "'nosuch' is not in the image")))

    def kill(self, box: Container) -> None:
        self.fake.kill(box.agent_id)

    def unrunnable(self, spec: ContainerSpec) -> ContainerSpec:
        return replace(spec, image="broken")

    def limits(self, box: Container) -> tuple[int, int]:
        found = self.fake._boxes[box.id].spec
        return found.cpu_limit, found.memory_limit


class DockerBench(Bench):
    def __init__(self, engine: DockerEngine, image: str, client: docker.APIClient) -> None:
        self.engine = engine
        self.image = image
        self.client = client

    def kill(self, box: Container) -> None:
        self.client.kill(box.id)

    def limits(self, box: Container) -> tuple[int, int]:
        found = self.client.inspect_container(box.id)["HostConfig"]
        assert found["MemorySwap"] == found["Memory"]
        return found["NanoCpus"], found["Memory"]

    def unrunnable(self, spec: ContainerSpec) -> ContainerSpec:
        return replace(spec, command=("nosuch",))


def echo_and_obey(request: Request, run: Run) -> Answer:
    verb, _, word = request.target.strip("/").partition("/")
    if verb == "exit":
        run.exit(int(word))
    elif verb in ("say", "shout"):
        run.say(word, stream="stdout" if verb == "say" else "stderr")
    return echo(request, run)


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.docker)])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "fake":
        return FakeBench(request.getfixturevalue("fake_engine"))
    return DockerBench(
        request.getfixturevalue("docker_engine"),
        request.getfixturevalue("agent_image"),
        request.getfixturevalue("docker_client"),
    )


def wait_for_port(box: Container) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            socket.create_connection((box.address, 8000), 1).close()
        except OSError:
            gevent.sleep(0.01)
        else:
            return
    pytest.fail(f"nothing listens at {box.address}:8000")


def ask(box: Container, target: str = "/") -> dict[str, object]:
    connection = HTTPConnection(box.address, 8000, timeout=5)
    try:
        connection.request("GET", target)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def told(engine: Engine, box: Container, **options: object) -> dict[str, str]:
    """Return what a container wrote, by stream."""
    said = {"stdout": "", "stderr": ""}
    stream = engine.logs(box.id, **options)
    for piece in stream:
        said[piece.stream] += piece.data.decode()
    stream.close()
    return said


def events_of(stream: Iterator, box_id: str, until: str) -> list:
    seen = []
    for event in stream:
        if event.container_id == box_id:
            seen.append(event)
            if event.action == until:
                return seen
    return seen


def test_the_engine_says_what_it_is(bench):
    bench.engine.ping()
    info = bench.engine.info()

    assert info.version
    assert re.fullmatch(r"1\.\d+", info.api_version)
    assert info.cgroup_version in ("1", "2")


def test_networks_are_made_once(bench):
    first = bench.engine.ensure_networks()

    assert bench.engine.ensure_networks() == first
    assert first.gateway
    assert first.isolated_gateway


def test_an_image_says_its_ports(bench):
    image = bench.engine.image(bench.image)

    assert image.exposed == (8000,)
    assert image.id.startswith("sha256:")
    assert bench.engine.image(image.id).id == image.id


def test_a_missing_image_is_not_found(bench):
    with pytest.raises(NotFound) as looked:
        bench.engine.image("no-such-image:1")
    with pytest.raises(NotFound) as created:
        bench.engine.create(bench.spec(image="no-such-image:1"))

    for failure in (looked, created):
        assert failure.value.code == "IMAGE_NOT_FOUND"
        assert failure.value.message == (
            "docker image 'no-such-image:1' not found. Please build or pull the image first"
        )


def test_a_created_container_is_there_and_does_not_run(bench):
    spec = bench.spec()
    container_id = bench.engine.create(spec)

    box = bench.engine.inspect(container_id)

    assert (box.state, box.agent_id, box.name, box.address) == (ContainerState.CREATED, spec.hostname, spec.name, "")
    assert (box.started_at, box.finished_at) == (0.0, 0.0)
    assert box.labels["agentainer.name"] == "x"
    assert box.image_id == bench.engine.image(bench.image).id
    listed = {found.id: found for found in bench.engine.containers()}[container_id]
    assert (listed.state, listed.agent_id, listed.name) == (box.state, box.agent_id, box.name)


def test_a_container_without_our_label_is_none_of_ours(bench):
    container_id = bench.engine.create(bench.spec(labels={"other": "1"}))

    assert container_id not in [box.id for box in bench.engine.containers()]


def test_a_name_can_be_had_once(bench):
    spec = bench.spec()
    bench.engine.create(spec)

    with pytest.raises(Conflict) as failure:
        bench.engine.create(spec)

    assert failure.value.code == "CONTAINER_NAME_TAKEN"


def test_a_container_is_called_otherwise_while_it_runs(bench):
    box = bench.started()
    other = bench.spec()
    bench.engine.create(other)

    bench.engine.rename(box.id, f"{box.name}-1")

    assert bench.engine.inspect(box.id).name == f"{box.name}-1"
    assert bench.engine.inspect(box.id).state is ContainerState.RUNNING
    with pytest.raises(Conflict) as failure:
        bench.engine.rename(box.id, other.name)
    assert failure.value.code == "CONTAINER_NAME_TAKEN"
    with pytest.raises(NotFound):
        bench.engine.rename("0" * 64, "agentainer-nobody")


def test_limits_can_be_changed_while_it_runs(bench):
    box = bench.started(memory_limit=64 * 2**20)

    bench.engine.limit(box.id, cpu_limit=500_000_000, memory_limit=128 * 2**20)
    bench.engine.limit(box.id, cpu_limit=0, memory_limit=0)

    assert bench.limits(box) == (500_000_000, 128 * 2**20)
    assert bench.engine.inspect(box.id).started_at == box.started_at
    with pytest.raises(NotFound):
        bench.engine.limit("0" * 64, cpu_limit=500_000_000, memory_limit=0)


def test_a_command_in_a_container_has_its_exit_code(bench):
    box = bench.started()

    assert bench.engine.execute(box.id, ["/bin/sh", "-c", "exit 0"], timeout_s=5) == 0
    assert bench.engine.execute(box.id, ["/bin/sh", "-c", "exit 3"], timeout_s=5) == 3


def test_a_command_that_takes_too_long_keeps_others_out_until_it_ends(bench):
    box = bench.started()
    began = time.monotonic()

    with pytest.raises(DeadlineExceeded):
        bench.engine.execute(box.id, ["/bin/sh", "-c", "sleep 3"], timeout_s=0.3)
    with pytest.raises(DeadlineExceeded):
        bench.engine.execute(box.id, ["/bin/sh", "-c", "exit 0"], timeout_s=0.3)

    assert time.monotonic() - began < 2.8
    wait_until(lambda: executes(bench.engine, box), limit_s=30)


def executes(engine, box) -> bool:
    try:
        return engine.execute(box.id, ["/bin/sh", "-c", "exit 0"], timeout_s=5) == 0
    except DeadlineExceeded:
        return False


def all_of(command) -> dict[str, bytes]:
    """What a command writes to its end."""
    said = {"stdout": b"", "stderr": b""}
    while pieces := command.read(10):
        for piece in pieces:
            said[piece.stream] += piece.data
    wait_until(lambda: command.exit_code() is not None)
    return said


def test_a_command_is_spoken_with(bench):
    command = bench.engine.attach(bench.started().id, ["/bin/cat"], {})

    command.send(b"one\n")
    [piece] = command.read(10)
    command.send(b"two\n" * 50_000)
    command.end_input()

    assert (piece.stream, piece.data) == ("stdout", b"one\n")
    assert all_of(command) == {"stdout": b"two\n" * 50_000, "stderr": b""}
    assert command.exit_code() == 0
    command.close()


def test_a_command_has_two_outputs_an_environment_and_an_exit_code(bench):
    script = 'echo "$WHO"; echo oh >&2; exit 3'
    command = bench.engine.attach(bench.started().id, ["/bin/sh", "-c", script], {"WHO": 'it\'s "me" $HOME'})

    assert all_of(command) == {"stdout": b'it\'s "me" $HOME\n', "stderr": b"oh\n"}
    assert command.exit_code() == 3
    command.close()


def test_a_command_that_is_not_there(bench):
    command = bench.engine.attach(bench.started().id, ["/no/such/program"], {})

    all_of(command)

    assert command.exit_code() == 127
    command.close()


@pytest.mark.parametrize(("signal", "code"), [("TERM", 143), ("KILL", 137)])
def test_a_command_gets_a_signal_with_all_its_processes(bench, signal, code):
    command = bench.engine.attach(bench.started().id, ["/bin/sh", "-c", "echo here; sleep 30; echo after"], {})
    command.read(10)

    began = time.monotonic()
    command.signal(signal)
    all_of(command)  # which ends when nothing has its output any more: neither the shell nor what it started

    assert time.monotonic() - began < 5
    assert command.exit_code() == code
    command.close()


def test_a_command_that_says_nothing_for_too_long(bench):
    command = bench.engine.attach(bench.started().id, ["/bin/sh", "-c", "echo here; sleep 3"], {})
    command.read(10)

    with pytest.raises(DeadlineExceeded):
        command.read(0.1)

    command.signal("KILL")
    command.close()


def test_a_reader_of_a_command_can_be_ended(bench):
    command = bench.engine.attach(bench.started().id, ["/bin/sh", "-c", "echo here; sleep 30"], {})
    command.read(10)
    reader = gevent.spawn(command.read, 30)  # noqa: TID251
    gevent.sleep(0.1)

    command.abort()

    assert reader.get(timeout=5) == []
    command.signal("KILL")
    command.close()


def test_a_command_needs_a_container_that_runs(bench):
    container_id = bench.engine.create(bench.spec())

    with pytest.raises(Conflict):
        bench.engine.execute(container_id, ["/bin/sh", "-c", "exit 0"], timeout_s=5)
    with pytest.raises(NotFound):
        bench.engine.execute("0" * 64, ["/bin/sh", "-c", "exit 0"], timeout_s=5)
    with pytest.raises(Conflict):
        bench.engine.attach(container_id, ["/bin/cat"], {})
    with pytest.raises(NotFound):
        bench.engine.attach("0" * 64, ["/bin/cat"], {})


@pytest.fixture
def volume(bench):
    """The name of a volume that is removed after the test, and is not there yet."""
    name = f"agentainer-test-{secrets.token_hex(6)}"
    yield name
    bench.engine.remove_volume(name)


def test_a_named_volume_is_made_found_and_removed(bench, volume):
    with pytest.raises(NotFound) as failure:
        bench.engine.volume_folder(volume)
    assert failure.value.code == "VOLUME_NOT_FOUND"

    folder = bench.engine.create_volume(volume)

    assert bench.engine.volume_folder(volume) == folder
    with pytest.raises(Conflict) as failure:
        bench.engine.create_volume(volume)
    assert failure.value.code == "VOLUME_EXISTS"
    bench.engine.remove_volume(volume)
    bench.engine.remove_volume(volume)
    with pytest.raises(NotFound):
        bench.engine.volume_folder(volume)


def tar(**files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mode, member.uid, member.gid = len(data), 0o640, os.geteuid(), os.getegid()
            archive.addfile(member, io.BytesIO(data))
    return iter([packed.getvalue()])


def contents(stream):
    data = b"".join(stream)
    stream.close()
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        return {
            member.name: archive.extractfile(member).read() if member.isfile() else None for member in archive
        }, archive.getmembers()


def test_what_is_in_a_volume_is_read_and_written(bench, volume):
    bench.engine.create_volume(volume)

    bench.engine.write_volume(volume, bench.image, tar(a=b"one", b=b"two"))
    bench.engine.write_volume(volume, bench.image, tar(b=b"three"))

    found, members = contents(bench.engine.read_volume(volume, bench.image))
    assert list(found)[0].rstrip("/") == "."
    assert {name.removeprefix("./"): data for name, data in list(found.items())[1:]} == {"a": b"one", "b": b"three"}
    assert oct(members[1].mode & 0o777) == "0o640"
    bench.engine.remove_volume(volume)  # nothing of ours has it any more


def test_a_folder_and_a_file_of_the_host_are_volumes_too(bench, tmp_path):
    folder = tmp_path / "not there yet"
    bench.engine.write_volume(str(folder), bench.image, tar(a=b"one"))

    assert (folder / "a").read_bytes() == b"one"
    assert b"one" in contents(bench.engine.read_volume(str(folder), bench.image))[0].values()
    alone, _ = contents(bench.engine.read_volume(str(folder / "a"), bench.image))
    assert list(alone.values()) == [b"one"]


def test_a_volume_needs_an_image(bench, tmp_path):
    with pytest.raises(NotFound):
        bench.engine.read_volume(str(tmp_path), "not-there:1")


def test_a_stream_of_a_volume_that_is_closed_leaves_nothing(bench, volume):
    bench.engine.create_volume(volume)
    stream = bench.engine.read_volume(volume, bench.image)

    stream.close()
    stream.close()

    bench.engine.tidy_volumes()
    bench.engine.remove_volume(volume)


def test_a_tar_that_breaks_off_raises_what_broke_it(bench, volume):
    bench.engine.create_volume(volume)

    def broken():
        yield next(tar(a=b"one"))[:512]
        raise Conflict("not any more")

    with pytest.raises(Conflict):
        bench.engine.write_volume(volume, bench.image, broken())

    bench.engine.remove_volume(volume)


def test_a_volume_that_a_container_has_is_not_removed(bench, volume):
    box = bench.engine.create(bench.spec(volumes=(Volume(volume, "/data"),)))
    bench.engine.volume_folder(volume)

    with pytest.raises(Conflict):
        bench.engine.remove_volume(volume)

    bench.engine.remove(box)


def test_a_volume_of_a_folder_that_is_not_there_is_refused(bench):
    spec = bench.spec(volumes=(Volume("/no/such/folder", "/data"),))

    with pytest.raises(InvalidParameter) as failure:
        bench.engine.create(spec)

    assert failure.value.code == "VOLUME_SOURCE_MISSING"
    assert "/no/such/folder" in failure.value.message
    assert all(box.name != spec.name for box in bench.engine.containers())


def test_a_started_container_answers_at_its_address(bench):
    before = time.time()
    box = bench.started()

    assert box.state is ContainerState.RUNNING
    assert before - 1 < box.started_at < time.time() + 1
    assert ask(box, "/x?a=1")["target"] == "/x?a=1"
    assert {found.id: found for found in bench.engine.containers()}[box.id].address == box.address


def test_starting_twice_changes_nothing(bench):
    box = bench.started()

    assert bench.engine.start(box.id).started_at == box.started_at


def test_two_agents_have_the_same_port(bench):
    one, two = bench.started(), bench.started()

    assert one.address != two.address
    assert ask(one)["agent_id"] == one.agent_id
    assert ask(two)["agent_id"] == two.agent_id


def test_stop_ends_it_and_may_be_repeated(bench):
    box = bench.started()

    bench.engine.stop(box.id, grace_s=5)
    bench.engine.stop(box.id, grace_s=5)

    after = bench.engine.inspect(box.id)
    assert (after.state, after.exit_code, after.address) == (ContainerState.EXITED, 143, "")
    assert after.finished_at >= box.started_at
    listed = {found.id: found for found in bench.engine.containers()}[box.id]
    assert (listed.state, listed.exit_code) == (ContainerState.EXITED, 143)


def test_the_next_run_has_another_start_time(bench):
    box = bench.started()
    bench.engine.stop(box.id, grace_s=0)

    again = bench.engine.start(box.id)

    assert again.started_at > box.started_at
    assert again.state is ContainerState.RUNNING


def test_a_killed_container_has_exit_code_137(bench, eventually):
    box = bench.started()

    bench.kill(box)

    eventually(lambda: bench.engine.inspect(box.id).state is ContainerState.EXITED)
    after = bench.engine.inspect(box.id)
    assert (after.exit_code, after.oom_killed) == (137, False)


def test_a_program_that_ends_has_its_exit_code(bench, eventually):
    box = bench.started()

    with pytest.raises(OSError):
        ask(box, "/exit/3")

    eventually(lambda: bench.engine.inspect(box.id).state is ContainerState.EXITED)
    assert bench.engine.inspect(box.id).exit_code == 3


def test_a_command_that_can_not_be_run_is_a_failed_start(bench):
    spec = bench.unrunnable(bench.spec())

    with pytest.raises(Failed, match="nosuch") as failure:
        bench.engine.start(bench.engine.create(spec))

    assert failure.value.code == "AGENT_START_FAILED"
    assert failure.value.details["exit_code"] == 127


def test_a_paused_container_accepts_and_answers_later(bench):
    box = bench.started()
    bench.engine.pause(box.id)
    assert bench.engine.inspect(box.id).state is ContainerState.PAUSED
    with socket.create_connection((box.address, 8000), 5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)

        bench.engine.unpause(box.id)

        connection.settimeout(5)
        assert connection.recv(4) == b"HTTP"
    assert bench.engine.inspect(box.id).state is ContainerState.RUNNING


def test_verbs_in_the_wrong_state_are_conflicts(bench):
    container_id = bench.engine.create(bench.spec())
    refused: list[Callable[[], object]] = [
        lambda: bench.engine.pause(container_id),
        lambda: bench.engine.unpause(container_id),
    ]
    for verb in refused:
        with pytest.raises(Conflict):
            verb()
    bench.engine.start(container_id)
    with pytest.raises(Conflict):
        bench.engine.unpause(container_id)
    bench.engine.pause(container_id)
    for verb in (lambda: bench.engine.pause(container_id), lambda: bench.engine.start(container_id)):
        with pytest.raises(Conflict):
            verb()


def test_a_paused_container_can_be_stopped(bench):
    box = bench.started()
    bench.engine.pause(box.id)

    bench.engine.stop(box.id, grace_s=5)

    assert bench.engine.inspect(box.id).state is ContainerState.EXITED


def test_remove_takes_a_running_container_and_may_be_repeated(bench):
    box = bench.started()

    bench.engine.remove(box.id)
    bench.engine.remove(box.id)

    assert box.id not in [found.id for found in bench.engine.containers()]
    with pytest.raises(NotFound):
        bench.engine.inspect(box.id)


def test_an_unknown_container_is_not_found(bench):
    unknown = "f" * 64
    verbs: list[Callable[[], object]] = [
        lambda: bench.engine.inspect(unknown),
        lambda: bench.engine.start(unknown),
        lambda: bench.engine.stop(unknown, grace_s=0),
        lambda: bench.engine.pause(unknown),
        lambda: bench.engine.unpause(unknown),
        lambda: bench.engine.logs(unknown),
    ]

    for verb in verbs:
        with pytest.raises(NotFound) as failure:
            verb()
        assert failure.value.code == "CONTAINER_NOT_FOUND"


def test_events_tell_what_happens_in_order(bench):
    events = bench.engine.events()
    assert next(events).action == "reconnected"
    box = bench.started()
    bench.engine.pause(box.id)
    bench.engine.unpause(box.id)
    bench.kill(box)
    bench.engine.remove(box.id)

    seen = events_of(events, box.id, until="destroy")
    events.close()

    assert [event.action for event in seen] == ["create", "start", "pause", "unpause", "die", "destroy"]
    assert {event.agent_id for event in seen} == {box.agent_id}
    assert [event.exit_code for event in seen if event.action == "die"] == [137]
    assert all(abs(event.at - time.time()) < 60 for event in seen)


def test_events_end_when_another_greenlet_closes_them(bench):
    events = bench.engine.events()
    assert next(events).action == "reconnected"
    reader = gevent.spawn(list, events)  # noqa: TID251 - a second greenlet is what is tested
    gevent.sleep(0)

    events.close()

    assert isinstance(reader.get(timeout=5), list)
    with pytest.raises(StopIteration):
        next(events)


def test_stdout_and_stderr_are_told_apart(bench):
    box = bench.started()
    ask(box, "/say/one")
    ask(box, "/shout/two")
    ask(box, "/say/three")

    assert told(bench.engine, box) == {"stdout": "listening\none\nthree\n", "stderr": "two\n"}


def test_logs_can_be_cut(bench, eventually):
    box = bench.started()
    ask(box, "/say/old")
    eventually(lambda: "old" in told(bench.engine, box)["stdout"])  # the engine stamps a line when it has read it
    middle = time.time()
    ask(box, "/say/new")

    eventually(lambda: told(bench.engine, box, tail=1) == {"stdout": "new\n", "stderr": ""})
    assert told(bench.engine, box, tail=0) == {"stdout": "", "stderr": ""}
    assert told(bench.engine, box, since=middle) == {"stdout": "new\n", "stderr": ""}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\S+Z new\n", told(bench.engine, box, tail=1, timestamps=True)["stdout"])


def test_followed_logs_come_as_they_are_written_and_end_with_the_run(bench):
    box = bench.started()
    stream = bench.engine.logs(box.id, follow=True)
    assert next(stream).data == b"listening\n"
    ask(box, "/say/later")
    assert next(stream).data == b"later\n"

    bench.engine.stop(box.id, grace_s=0)

    assert list(stream) == []
    stream.close()


def test_following_a_stopped_container_ends_at_once(bench):
    box = bench.started()
    bench.engine.stop(box.id, grace_s=0)

    assert told(bench.engine, box, follow=True)["stdout"] == "listening\n"


def test_followed_logs_end_when_another_greenlet_closes_them(bench):
    box = bench.started()
    stream = bench.engine.logs(box.id, follow=True, tail=0)
    reader = gevent.spawn(list, stream)  # noqa: TID251 - a second greenlet is what is tested
    gevent.sleep(0)

    stream.close()

    assert reader.get(timeout=5) == []


def test_an_image_is_built_from_a_context(bench):
    tag = f"agentainer-test-{os.getpid()}:built-{uuid.uuid4().hex[:8]}"
    recipe = f"FROM {bench.image}\nEXPOSE 9000\n".encode()

    progress = list(bench.engine.build(context({"Dockerfile": recipe}), tag=tag, dockerfile="Dockerfile", args={}))

    image = bench.engine.image(tag)
    assert progress[-1].image_id == image.id
    assert 9000 in image.exposed
    assert any("Step 1/2" in step.text for step in progress)
    if isinstance(bench, DockerBench):
        bench.client.remove_image(tag)


def test_a_failing_build_says_its_step(bench):
    recipe = f"FROM {bench.image}\nRUN exit 3\n".encode()

    with pytest.raises(Failed) as failure:
        list(
            bench.engine.build(
                context({"Dockerfile": recipe}), tag="agentainer-test:no", dockerfile="Dockerfile", args={}
            )
        )

    assert failure.value.code == "BUILD_FAILED"
    assert failure.value.details["step"] == "Step 2/2 : RUN exit 3"
    assert "Step 2/2 : RUN exit 3" in failure.value.details["lines"]


def test_a_context_without_its_dockerfile_can_not_be_built(bench):
    with pytest.raises(Failed) as failure:
        list(bench.engine.build(context({"a": b""}), tag="agentainer-test:no", dockerfile="Dockerfile", args={}))

    assert failure.value.code == "BUILD_FAILED"
    assert "Dockerfile" in failure.value.message


def test_a_context_that_is_no_tar_can_not_be_built(bench):
    with pytest.raises(Failed) as failure:
        list(bench.engine.build(io.BytesIO(b"x" * 2000), tag="agentainer-test:no", dockerfile="Dockerfile", args={}))

    assert failure.value.code == "BUILD_FAILED"


def test_closing_the_engine_ends_its_streams(bench):
    box = bench.started()
    events, logs = bench.engine.events(), bench.engine.logs(box.id, follow=True, tail=0)
    next(events)
    readers = [gevent.spawn(list, stream) for stream in (events, logs)]  # noqa: TID251
    gevent.sleep(0)

    bench.engine.close()

    for reader in readers:
        reader.get(timeout=5)


def test_what_containers_use_is_read_of_those_that_run(bench):
    boxes = [bench.started(), bench.started()]
    never_ran = bench.engine.create(bench.spec())
    bench.kill(boxes[1])
    wait_until(lambda: bench.engine.inspect(boxes[1].id).state is ContainerState.EXITED)

    usages = bench.engine.usages([boxes[0].id, boxes[1].id, never_ran, "f" * 64])

    assert set(usages) == {boxes[0].id}
    usage = usages[boxes[0].id]
    assert usage.cpu_s > 0
    assert usage.memory_bytes > 1_000_000
    assert usage.memory_limit_bytes > usage.memory_bytes
    assert usage.pids >= 1


def test_a_second_reading_is_later_and_counts_on(bench):
    box = bench.started()

    first = bench.engine.usages([box.id])[box.id]
    second = bench.engine.usages([box.id])[box.id]

    assert second.at > first.at
    assert second.cpu_s >= first.cpu_s


def test_no_containers_use_nothing(bench):
    assert bench.engine.usages([]) == {}
