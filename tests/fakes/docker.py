"""Fixtures on a real Docker Engine: one that must answer, a base image, an agent's image, and clean-up.

A `Sandbox` is a pair of networks with names of its own. Whatever is created on them is removed in the end, also after a
failure; what a killed run left behind is removed by the next one. Tests that start a daemon give it the sandbox's
networks (`docker.network`, `docker.isolated_network`) and need no other clean-up of containers.

    docker_host          address of the engine (DOCKER_HOST, or the default); the test fails where none answers
    base_image           a minimal Debian with python3; made by scripts/make-base-image where it is missing
    agent_image          built from it: tests/fakes/docker_agent.py, an echo server on port 8000
    storyteller_image    built from it: tests/fakes/docker_storyteller.py, an agent that takes runs
    docker_sandbox       a Sandbox for the whole session
    docker_engine        a DockerEngine in it; the containers of the sandbox are removed after the test
    docker_client        docker's own client: for what only an outsider does (kill, exec, look inside)
    new_sandbox(host)    context manager: another Sandbox, for tests that keep containers longer than one test
"""

import errno
import io
import json
import os
import re
import socket
import subprocess
import tarfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import docker
import docker.errors
import pytest

from agentainerd import defaults
from agentainerd.engine import firewall
from agentainerd.engine.docker_engine import DockerEngine
from agentainerd.engine.networks import bridge_of
from agentainerd.errors import NotFound, Unavailable

ROOT = Path(__file__).parent.parent.parent
BASE_IMAGE = os.environ.get("AGENTAINER_BASE_IMAGE", "agentainer-base:test")
LAYERS = "layers"
"""What only one session builds and removes at a time: a build may go on from a layer that a removal takes away."""
_PREFIX = "agentainer-test-"


@dataclass(frozen=True)
class Sandbox:
    """Two networks of one session's own, by name; they are made by whoever uses them first."""

    host: str
    network: str
    isolated_network: str

    def remove_containers(self) -> None:
        """Remove all containers that were created on these networks."""
        with docker_api(self.host) as client:
            for name in (self.network, self.isolated_network):
                for found in client.containers(all=True, filters={"network": name}):
                    _remove_container(client, found["Id"])

    def remove(self) -> None:
        """Remove the containers and the networks."""
        self.remove_containers()
        with docker_api(self.host) as client:
            for network in client.networks(names=[self.network, self.isolated_network]):
                if network["Name"] in (self.network, self.isolated_network):
                    firewall.lift(bridge_of(network))
                    with suppress(docker.errors.NotFound):
                        client.remove_network(network["Id"])


@contextmanager
def new_sandbox(host: str) -> Iterator[Sandbox]:
    """Give a new sandbox and remove all of it in the end."""
    name = f"{_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}"
    sandbox = Sandbox(host, f"{name}-network", f"{name}-isolated")  # in the order of the real names
    try:
        yield sandbox
    finally:
        sandbox.remove()


@pytest.fixture(scope="session")
def docker_host() -> str:
    host = os.environ.get("DOCKER_HOST", defaults.DOCKER_HOST)
    engine = DockerEngine(host)
    try:
        engine.ping()
    except Unavailable as error:
        pytest.fail(f"this test needs a Docker Engine: {error.message}; {error.hint}")
    finally:
        engine.close()
    _remove_leftovers(host)
    return host


@pytest.fixture(scope="session")
def base_image(docker_host: str) -> str:
    engine = DockerEngine(docker_host)
    try:
        engine.image(BASE_IMAGE)
    except NotFound:
        script = ROOT / "scripts/make-base-image"
        made = subprocess.run([script, "--tag", BASE_IMAGE], capture_output=True, text=True, check=False)
        if made.returncode != 0:
            pytest.fail(f"this test needs the image {BASE_IMAGE}, and {script} failed:\n{made.stdout}{made.stderr}")
    finally:
        engine.close()
    return BASE_IMAGE


@pytest.fixture(scope="session")
def agent_image(docker_host: str, base_image: str) -> Iterator[str]:
    with build_image(docker_host, base_image, f"{_PREFIX}{os.getpid()}:agent") as tag:
        yield tag


@pytest.fixture(scope="session")
def storyteller_image(docker_host: str, base_image: str) -> Iterator[str]:
    """An agent that takes runs, of the native tier, and does what its prompt says."""
    with build_image(docker_host, base_image, f"{_PREFIX}{os.getpid()}:storyteller", "docker_storyteller.py") as tag:
        yield tag


@contextmanager
def build_image(host: str, base_image: str, tag: str, program: str = "docker_agent.py") -> Iterator[str]:
    """Build the image of an agent of this folder under a tag, and remove that tag in the end."""
    recipe = f'FROM {base_image}\nCOPY agent.py /agent.py\nEXPOSE 8000\nCMD ["/usr/bin/python3", "-u", "/agent.py"]\n'.encode()
    source = (Path(__file__).parent / program).read_bytes()
    engine = DockerEngine(host)
    with only_user_of(LAYERS):
        for _ in engine.build(
            context({"Dockerfile": recipe, "agent.py": source}), tag=tag, dockerfile="Dockerfile", args={}
        ):
            pass
    engine.close()
    yield tag
    with only_user_of(LAYERS), docker_api(host) as client, suppress(docker.errors.APIError):
        client.remove_image(tag, force=True)


@contextmanager
def only_user_of(name: str, limit_s: float = 200.0) -> Iterator[None]:
    """Keep other sessions on this machine away from something of the engine, an image of that name for example. A name is held by a
    socket that is called so, which ends with its session.
    """
    end = time.monotonic() + limit_s
    with socket.socket(socket.AF_UNIX) as holder:
        while True:
            try:
                holder.bind(f"\0{_PREFIX}{name}")
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                    raise
            time.sleep(0.05)
        yield


@pytest.fixture(scope="session")
def docker_sandbox(docker_host: str) -> Iterator[Sandbox]:
    with new_sandbox(docker_host) as sandbox:
        yield sandbox


@pytest.fixture
def docker_engine(docker_sandbox: Sandbox) -> Iterator[DockerEngine]:
    engine = DockerEngine(
        docker_sandbox.host, network=docker_sandbox.network, isolated_network=docker_sandbox.isolated_network
    )
    engine.ensure_networks()
    yield engine
    engine.close()
    docker_sandbox.remove_containers()


@pytest.fixture
def docker_client(docker_host: str) -> Iterator[docker.APIClient]:
    with docker_api(docker_host) as client:
        yield client


def context(files: dict[str, bytes]) -> io.BytesIO:
    """Return a build context: a tar with these files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    packed.seek(0)
    return packed


def run_inside(client: docker.APIClient, container_id: str, program: str) -> object:
    """Run Python text in a container and return what it prints, read as JSON."""
    execution = client.exec_create(container_id, ["/usr/bin/python3", "-c", program])["Id"]
    printed = client.exec_start(execution)
    code = client.exec_inspect(execution)["ExitCode"]
    assert code == 0, f"exit {code}: {printed.decode()}"
    return json.loads(printed)


@contextmanager
def docker_api(host: str) -> Iterator[docker.APIClient]:
    client = docker.APIClient(host, version="auto", timeout=60)
    try:
        yield client
    finally:
        client.close()


def _remove_container(client: docker.APIClient, container_id: str) -> None:
    try:
        client.remove_container(container_id, force=True, v=True)
    except docker.errors.NotFound:
        pass
    except docker.errors.APIError as error:
        if "already in progress" not in str(error):
            raise
        with suppress(docker.errors.NotFound):
            client.wait(container_id, condition="removed")


def _remove_leftovers(host: str) -> None:
    """Remove what sessions made that were killed before they could."""
    with docker_api(host) as client:
        for container in client.containers(all=True):
            if _is_of_a_dead_session(container["Image"]):
                _remove_container(client, container["Id"])
        for tag in [tag for image in client.images() for tag in image["RepoTags"] or ()]:
            if _is_of_a_dead_session(tag):
                with suppress(docker.errors.APIError):  # another session does the same at this moment
                    client.remove_image(tag)
        names = [network["Name"] for network in client.networks(filters={"name": _PREFIX})]
    for name in names:
        if _is_of_a_dead_session(name):
            # Another session does the same at this moment; or the engine lost count of the network's containers, till its restart.
            with suppress(docker.errors.APIError):
                Sandbox(host, name, name).remove()


def _is_of_a_dead_session(name: str) -> bool:
    session = re.match(rf"{_PREFIX}(\d+)[-:]", name)
    return session is not None and not Path(f"/proc/{session[1]}").exists()
