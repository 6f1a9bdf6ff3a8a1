"""How a container is made: hardened, limited, with its volumes; seen from inside real ones."""

import json
import os
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gevent
import pytest

from agentainerd.engine.containers import CAPABILITIES
from agentainerd.engine.docker_engine import DockerEngine
from agentainerd.errors import Failed, InvalidParameter, NotFound
from agentainerd.model.agents import Volume
from agentainerd.model.containers import Container, ContainerSpec, ContainerState
from tests.fakes.docker import context, run_inside

pytestmark = pytest.mark.docker

MIB = 1024 * 1024
NUMBERS = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "KILL": 5, "SETGID": 6, "SETUID": 7, "NET_BIND_SERVICE": 10}


@pytest.fixture
def spec(agent_image: str) -> ContainerSpec:
    agent_id = f"agent-{uuid.uuid4().hex[:16]}"
    return ContainerSpec(
        name=f"agentainer-{agent_id}",
        hostname=agent_id,
        image=agent_image,
        aliases=(agent_id,),
        labels={"agentainer.id": agent_id},
        env={"AGENT_ID": agent_id},
    )


def run(engine: DockerEngine, spec: ContainerSpec) -> Container:
    return engine.start(engine.create(spec))


def printed(engine: DockerEngine, spec: ContainerSpec, program: str, eventually: Callable[..., object]) -> object:
    """Run Python text as the container's command and return what it printed, read as JSON."""
    box = run(engine, replace(spec, command=("python3", "-c", program)))
    eventually(lambda: engine.inspect(box.id).state is ContainerState.EXITED)
    stream = engine.logs(box.id)
    said = b"".join(piece.data for piece in stream)
    stream.close()
    return json.loads(said)


def test_a_container_is_hardened(docker_engine, docker_client, spec):
    box = run(docker_engine, spec)
    status = run_inside(
        docker_client,
        box.id,
        "import json; print(json.dumps(dict(l.rstrip().split(':\t', 1) for l in open('/proc/1/status') if ':\t' in l)))",
    )
    limits = run_inside(
        docker_client, box.id, "import json, resource as r; print(json.dumps(r.getrlimit(r.RLIMIT_NOFILE)))"
    )
    mounts = run_inside(
        docker_client, box.id, "import json; print(json.dumps([l.split()[1:4] for l in open('/proc/mounts')]))"
    )

    assert int(status["CapEff"], 16) == sum(1 << NUMBERS[name] for name in CAPABILITIES)
    assert int(status["CapBnd"], 16) == int(status["CapEff"], 16)
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert status["Name"] in ("docker-init", "tini")
    assert limits == [4096, 4096]
    tmp = next(options.split(",") for path, kind, options in mounts if path == "/tmp" and kind == "tmpfs")
    assert {"nosuid", "nodev", "size=65536k"} <= set(tmp)
    assert "noexec" not in tmp
    host = docker_client.inspect_container(box.id)["HostConfig"]
    assert host["PidsLimit"] == 256
    assert not host["Privileged"]
    assert not host["PortBindings"]
    assert host["RestartPolicy"]["Name"] in ("no", "")
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}


def test_a_container_has_its_name_host_name_and_environment(docker_engine, docker_client, spec):
    box = run(docker_engine, spec)
    program = "import json, os, socket; print(json.dumps([socket.gethostname(), os.environ['AGENT_ID']]))"

    assert run_inside(docker_client, box.id, program) == [spec.hostname, spec.hostname]
    assert docker_client.inspect_container(box.id)["Name"] == f"/{spec.name}"


def test_limits_are_the_containers(docker_engine, docker_client, spec):
    container_id = docker_engine.create(replace(spec, cpu_limit=500_000_000, memory_limit=64 * MIB))

    host = docker_client.inspect_container(container_id)["HostConfig"]

    assert (host["NanoCpus"], host["Memory"]) == (500_000_000, 64 * MIB)
    assert host["MemorySwap"] in (64 * MIB, 0, -1)  # a kernel without swap accounting has none


def test_a_container_that_needs_too_much_memory_is_killed_and_says_so(docker_engine, spec, eventually):
    events = docker_engine.events()
    next(events)
    hungry = replace(
        spec, memory_limit=16 * MIB, command=("python3", "-c", "x = bytearray(200_000_000); x[::4096] = x[::4096]")
    )
    box = run(docker_engine, hungry)

    actions = []
    for event in events:
        if event.container_id == box.id:
            actions.append(event.action)
            if event.action == "die":
                break
    events.close()

    eventually(lambda: docker_engine.inspect(box.id).state is ContainerState.EXITED)
    after = docker_engine.inspect(box.id)
    assert (after.exit_code, after.oom_killed) == (137, True)
    assert actions[-1] == "die"


def test_more_cpus_than_there_are_is_a_refused_value(docker_engine, spec):
    with pytest.raises(InvalidParameter) as failure:
        docker_engine.create(replace(spec, cpu_limit=1000 * 10**9))

    assert failure.value.field == "cpu_limit"


def test_volumes_are_mounted(docker_engine, docker_client, spec, tmp_path: Path, eventually):
    (tmp_path / "note").write_text("from the host")
    name = f"agentainer-test-{uuid.uuid4().hex[:8]}"
    volumes = (
        Volume(str(tmp_path), "/in", read_only=True),
        Volume(str(tmp_path), "/both"),
        Volume(name, "/kept"),
        Volume(str(tmp_path), "/tmp"),
    )
    program = """
import json
def written(path):
    try:
        open(path, "w").write("x")
    except OSError as error:
        return error.strerror
    return "ok"
print(json.dumps([open("/in/note").read(), written("/in/a"), written("/both/b"), written("/kept/c"), written("/tmp/d")]))
"""
    try:
        said = printed(docker_engine, replace(spec, volumes=volumes), program, eventually)

        assert said == ["from the host", "Read-only file system", "ok", "ok", "ok"]
        assert {entry.name for entry in tmp_path.iterdir()} == {"note", "b", "d"}
        docker_engine.remove(next(box.id for box in docker_engine.containers() if box.name == spec.name))
        assert docker_client.inspect_volume(name)["Name"] == name
    finally:
        docker_client.remove_volume(name, force=True)


def test_a_folder_that_goes_away_before_the_start_is_named(docker_engine, spec, tmp_path: Path):
    folder = tmp_path / "gone"
    folder.mkdir()
    container_id = docker_engine.create(replace(spec, volumes=(Volume(str(folder), "/data"),)))
    folder.rmdir()

    with pytest.raises(Failed) as failure:
        docker_engine.start(container_id)

    assert failure.value.code == "AGENT_START_FAILED"
    assert str(folder) in failure.value.message
    assert not folder.exists()


@pytest.mark.parametrize(
    ("command", "exit_code", "words"),
    [
        (("nosuch", "--help"), 127, "'nosuch' is not in the image"),
        (("/no/such",), 127, "'/no/such' is not in the image"),
        (("/etc/passwd",), 126, "'/etc/passwd' is not executable"),
        (("/etc",), 126, "'/etc' is not executable"),
    ],
)
def test_a_command_that_can_not_be_run_leaves_nothing(docker_engine, spec, command, exit_code, words):
    with pytest.raises(Failed, match=words) as failure:
        docker_engine.create(replace(spec, command=command))

    assert failure.value.details["exit_code"] == exit_code
    assert all(box.name != spec.name for box in docker_engine.containers())


def test_a_command_is_found_by_path_folder_and_environment(docker_engine, docker_client, spec, base_image):
    tag = f"agentainer-test-{os.getpid()}:work-{uuid.uuid4().hex[:8]}"
    recipe = f"FROM {base_image}\nWORKDIR /srv\nRUN printf '#!/bin/sh\\necho ran\\n' > go && chmod 755 go\n".encode()
    list(docker_engine.build(context({"Dockerfile": recipe}), tag=tag, dockerfile="Dockerfile", args={}))
    try:
        here = replace(spec, image=tag)
        for number, (command, env) in enumerate(
            (("./go", {}), ("/srv/go", {}), ("go", {"PATH": "/usr/bin:/srv"}), ("python3", {}))
        ):
            name = f"{spec.name}-{number}"
            container_id = docker_engine.create(replace(here, name=name, command=(command,), env=env))
            docker_engine.start(container_id)
        with pytest.raises(Failed):
            docker_engine.create(replace(here, command=("go",)))
    finally:
        for box in docker_engine.containers():
            if box.name.startswith(spec.name):
                docker_engine.remove(box.id)
        docker_client.remove_image(tag, force=True)


def test_an_image_without_a_command_wants_one(docker_engine, docker_client, spec):
    tag = f"agentainer-test-{os.getpid()}:empty-{uuid.uuid4().hex[:8]}"
    list(
        docker_engine.build(
            context({"Dockerfile": b"FROM scratch\nLABEL a=b\n"}), tag=tag, dockerfile="Dockerfile", args={}
        )
    )
    try:
        with pytest.raises(InvalidParameter) as failure:
            docker_engine.create(replace(spec, image=tag))
    finally:
        docker_client.remove_image(tag, force=True)

    assert failure.value.field == "command"


def test_the_command_of_an_image_that_can_not_be_run_is_explained_when_it_ends(
    docker_engine, docker_client, spec, base_image, eventually
):
    tag = f"agentainer-test-{os.getpid()}:bad-{uuid.uuid4().hex[:8]}"
    recipe = f'FROM {base_image}\nCMD ["nosuch"]\n'.encode()
    list(docker_engine.build(context({"Dockerfile": recipe}), tag=tag, dockerfile="Dockerfile", args={}))
    try:
        box = run(docker_engine, replace(spec, image=tag))
        eventually(lambda: docker_engine.inspect(box.id).state is ContainerState.EXITED)
        after = docker_engine.inspect(box.id)
        docker_engine.remove(box.id)
    finally:
        docker_client.remove_image(tag, force=True)

    assert after.exit_code == 127
    assert "command was not found" in after.error


def test_a_removal_under_way_is_waited_for(docker_engine, spec):
    box = run(docker_engine, spec)

    removers = [gevent.spawn(docker_engine.remove, box.id) for _ in range(4)]  # noqa: TID251
    for remover in removers:
        remover.get(timeout=20)

    with pytest.raises(NotFound):
        docker_engine.inspect(box.id)


def test_a_grace_is_kept_and_then_it_is_killed(docker_engine, spec, eventually):
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    box = run(docker_engine, replace(spec, command=("python3", "-u", "-c", stubborn)))
    stream = docker_engine.logs(box.id, follow=True)
    assert next(stream).data == b"deaf\n"

    docker_engine.stop(box.id, grace_s=0.5)

    stream.close()
    assert docker_engine.inspect(box.id).exit_code == 137
