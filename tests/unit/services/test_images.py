"""Builds and pulls."""

import io

import pytest

from agentainerd.errors import Failed, InvalidParameter, NotFound, TooLarge, TooManyRequests, Unavailable
from agentainerd.services import images as module
from agentainerd.services.images import ImageResult, ImageService
from tests.fakes.docker import context
from tests.fakes.programs import Program
from tests.fakes.world import ADMIN

RECIPE = b"FROM echo\nEXPOSE 9000\n"


@pytest.fixture
def images(world):
    return world.services.images


def build(images, *, recipe=RECIPE, tag="mine:1", dockerfile="Dockerfile", args=None):
    return images.build(context({"Dockerfile": recipe}), tag=tag, dockerfile=dockerfile, args=args or {}, actor=ADMIN)


def results(world) -> list[str]:
    return [line.split('"result":"')[1].split('"')[0] for line in world.log_of("audit.log").splitlines()]


def test_a_build_tells_how_it_goes_on_and_ends_with_the_image(world, images):
    job = build(images)
    *steps, result = job
    job.close()
    job.close()

    assert steps
    assert result == ImageResult("mine:1", images.get("mine:1").id)
    assert results(world) == ["ok"]


def test_a_build_that_fails_says_so_and_frees_its_place(world, images):
    for _ in range(module.MAX_JOBS + 1):
        job = build(images, recipe=b"FROM echo\nRUN exit 3\n")
        with pytest.raises(Failed):
            list(job)
        job.close()

    assert set(results(world)) != {"ok"}


@pytest.mark.parametrize("dockerfile", ["", "/etc/passwd", "../Dockerfile", "a/../../b", "a\0b"])
def test_a_dockerfile_lies_in_the_context(images, dockerfile):
    with pytest.raises(InvalidParameter) as failure:
        build(images, dockerfile=dockerfile)
    assert failure.value.message.startswith("dockerfile")


@pytest.mark.parametrize("tag", ["", "UPPER", "-x", "a b", "a\n", "x" * 300, "--privileged"])
def test_a_tag_is_an_images_name(images, tag):
    with pytest.raises(InvalidParameter):
        build(images, tag=tag)


@pytest.mark.parametrize("name", ["", "a b", "1x", "x-y", "é"])
def test_a_build_argument_has_a_name(images, name):
    with pytest.raises(InvalidParameter):
        build(images, args={name: "v"})


def test_a_context_that_is_too_large_is_stopped_while_it_is_read(world):
    limited = ImageService(world.engine, world.services.audit, max_context_bytes=1000)

    with pytest.raises(TooLarge) as failure:
        limited.build(io.BytesIO(b"x" * 5000), tag="mine:1", dockerfile="Dockerfile", args={}, actor=ADMIN)

    assert failure.value.code == "CONTEXT_TOO_LARGE"
    assert limited._slots.counter == module.MAX_JOBS


def test_a_few_run_at_once_and_no_more(images):
    jobs = [build(images, tag=f"mine:{number}") for number in range(module.MAX_JOBS)]

    with pytest.raises(TooManyRequests) as failure:
        build(images)

    assert failure.value.code == "IMAGE_JOBS_BUSY"
    for job in jobs:
        job.close()
    build(images).close()


@pytest.mark.parametrize("policy", ["missing", "never"])
def test_what_is_there_is_not_pulled(world, images, policy):
    assert images.pull("echo", policy=policy, actor=ADMIN) == ImageResult("echo", images.get("echo").id)
    assert world.engine.calls["pull"] == 0


def test_what_is_missing_is_pulled_unless_that_is_never(world, images):
    world.engine.registry["far/away:1"] = Program()
    with pytest.raises(NotFound):
        images.pull("far/away:1", policy="never", actor=ADMIN)

    job = images.pull("far/away:1", policy="missing", actor=ADMIN)
    *_, result = job
    job.close()

    assert result.image_id == images.get("far/away:1").id


def test_an_image_that_nobody_has_is_not_found_and_audited(world, images):
    job = images.pull("far/away:2", policy="always", actor=ADMIN)
    with pytest.raises(NotFound):
        list(job)
    job.close()

    assert results(world) == ["IMAGE_NOT_FOUND"]


def test_policies_are_known(images):
    with pytest.raises(InvalidParameter, match="always, missing, never"):
        images.pull("echo", policy="sometimes", actor=ADMIN)


def test_an_engine_that_is_away_keeps_no_place(world, images):
    world.engine.go_down()
    for _ in range(module.MAX_JOBS + 1):
        with pytest.raises(Unavailable):
            build(images)


def test_a_job_that_is_closed_early_is_cancelled(world, images):
    job = build(images)

    job.close()

    assert results(world) == ["CANCELLED"]
