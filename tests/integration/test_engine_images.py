"""Pulls from a registry of our own, and builds, with everything that goes wrong with them."""

import io
import os
import uuid
from collections.abc import Iterator

import gevent
import pytest
from gevent import socket

from agentainerd.engine.docker_engine import DockerEngine
from agentainerd.errors import Failed, NotFound, Unavailable
from tests.fakes import registry
from tests.fakes.docker import context

pytestmark = pytest.mark.docker


@pytest.fixture
def tag(docker_client) -> Iterator[str]:
    name = f"agentainer-test-{os.getpid()}:built-{uuid.uuid4().hex[:8]}"
    yield name
    if docker_client.images(name):
        docker_client.remove_image(name, force=True)


def built(engine: DockerEngine, tag: str, recipe: str, args: dict[str, str] | None = None, **files: bytes) -> list:
    packed = context({"Dockerfile": recipe.encode(), **files})
    return list(engine.build(packed, tag=tag, dockerfile="Dockerfile", args=args or {}))


def test_an_image_is_pulled_with_progress(docker_engine, docker_client):
    with registry.serving(uuid.uuid4().hex) as host:
        ref = f"{host}/agent:1"
        try:
            progress = list(docker_engine.pull(ref))

            image = docker_engine.image(ref)
            assert progress[-1].image_id == image.id
            assert image.exposed == (9000,)
            assert any(step.id and step.status for step in progress)
            assert list(docker_engine.pull(ref))[-1].image_id == image.id
        finally:
            docker_client.remove_image(ref, force=True)


@pytest.mark.parametrize("name", ["agent:2", "nothing:1", "locked:1"])
def test_a_pull_of_an_unknown_or_locked_image_is_not_found(docker_engine, name):
    with registry.serving("x") as host, pytest.raises(NotFound) as failure:
        list(docker_engine.pull(f"{host}/{name}"))

    assert failure.value.code == "IMAGE_NOT_FOUND"
    assert "or it needs a login" in failure.value.message


def test_a_registry_that_does_not_answer_is_unreachable(docker_engine):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        ref = f"127.0.0.1:{unused.getsockname()[1]}/agent:1"

        with pytest.raises(Unavailable) as failure:
            list(docker_engine.pull(ref))

    assert failure.value.code == "REGISTRY_UNREACHABLE"
    assert "connection refused" in failure.value.message


def test_a_registry_whose_name_is_unknown_is_unreachable(docker_engine):
    with pytest.raises(Unavailable) as failure:
        list(docker_engine.pull("no-such-registry.invalid/agent:1"))

    assert failure.value.code == "REGISTRY_UNREACHABLE"


def test_a_build_takes_arguments_and_files(docker_engine, base_image, tag):
    recipe = "ARG BASE\nFROM $BASE\nARG WORD\nCOPY note /note\nRUN echo $WORD $(cat /note)\n"

    progress = built(docker_engine, tag, recipe, {"BASE": base_image, "WORD": "hello"}, note=b"world")

    assert "hello world\n" in [step.text for step in progress]
    assert progress[-1].image_id == docker_engine.image(tag).id


def test_a_dockerfile_may_have_another_name_and_place(docker_engine, base_image, tag):
    packed = context({"deploy/Agent.docker": f"FROM {base_image}\n".encode()})

    list(docker_engine.build(packed, tag=tag, dockerfile="deploy/Agent.docker", args={}))

    assert docker_engine.image(tag).id


def test_a_context_may_come_without_a_length(docker_engine, base_image, tag):
    packed = context({"Dockerfile": f"FROM {base_image}\n".encode(), "large": b"x" * 300_000}).getvalue()

    class Upload(io.RawIOBase):
        """A body as it comes from a network: only `read`, in pieces of its own size."""

        def __init__(self) -> None:
            self.rest = packed

        def read(self, size: int = -1) -> bytes:
            piece, self.rest = self.rest[:1000], self.rest[1000:]
            return piece

    list(docker_engine.build(Upload(), tag=tag, dockerfile="Dockerfile", args={}))

    assert docker_engine.image(tag).id


def test_a_failing_step_says_its_last_lines(docker_engine, base_image, tag):
    recipe = f"FROM {base_image}\nRUN for i in $(seq 50); do echo line $i; done; nosuchcommand\n"

    with pytest.raises(Failed) as failure:
        built(docker_engine, tag, recipe)

    details = failure.value.details
    assert failure.value.code == "BUILD_FAILED"
    assert details["step"].startswith("Step 2/2 : RUN for i in")
    assert len(details["lines"]) == 30
    assert "nosuchcommand: not found" in details["lines"][-1]
    assert "returned a non-zero code: 127" in failure.value.message
    with pytest.raises(NotFound):
        docker_engine.image(tag)


@pytest.mark.parametrize(
    ("recipe", "word"),
    [
        ("FRM x\n", "unknown instruction"),
        ("", "empty"),
        ("FROM nosuchbase.invalid/x:1\n", "nosuchbase.invalid"),
        ("FROM scratch\nCOPY nosuchfile /\n", "nosuchfile"),
    ],
)
def test_a_bad_dockerfile_is_a_failed_build(docker_engine, tag, recipe, word):
    with pytest.raises(Failed) as failure:
        built(docker_engine, tag, recipe)

    assert failure.value.code == "BUILD_FAILED"
    assert word in failure.value.message


def test_a_build_that_nobody_waits_for_any_more_is_ended(docker_engine, docker_client, base_image, tag, eventually):
    marker = uuid.uuid4().hex
    packed = context({"Dockerfile": f"FROM {base_image}\nRUN echo {marker}; sleep 300\n".encode()})
    stream = docker_engine.build(packed, tag=tag, dockerfile="Dockerfile", args={})
    reader = gevent.spawn(list, stream)  # noqa: TID251 - closed from another greenlet

    def running() -> list[str]:
        return [box["Id"] for box in docker_client.containers() if marker in box["Command"]]

    eventually(running, what="the step's container")

    stream.close()

    reader.get(timeout=5)
    eventually(lambda: not running(), what="the end of the step's container")
