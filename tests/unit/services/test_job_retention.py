"""What is kept of jobs and how long, beside who downloads it."""

import io
import time
import zipfile
from pathlib import Path

import pytest

from agentainerd.errors import Conflict, NotFound
from agentainerd.model.jobs import JobRequest
from agentainerd.services.audit import Actor
from tests.fakes.programs import Program

ME = Actor("unix:0(root)/pid 1", "unix")
DAY_S = 86400.0


@pytest.fixture
def done(world):
    """A job that is over and left one file."""
    world.services.jobs.load()
    world.engine.add_image("prints", Program(listens=False, ports=(), prints=("hello",), exits=0))
    job_id = world.services.jobs.submit(JobRequest(prompt="x", image="prints"), ME).job.id
    world.services.runs.wait(job_id, 10)
    return job_id


def spool(world):
    return Path(world.config.paths.state_dir) / "archives"


def test_what_is_being_downloaded_is_neither_removed_nor_expired(world, done):
    jobs = world.services.jobs
    _, download = jobs.archive(done)

    with pytest.raises(Conflict) as refused:
        jobs.remove(done, ME)
    jobs.sweep(time.time() + 400 * DAY_S)

    assert refused.value.code == "FILES_IN_USE"
    assert jobs.get(done).job.id == done
    assert zipfile.ZipFile(io.BytesIO(b"".join(download.pieces()))).testzip() is None
    download.close()
    assert [path.name.partition(".")[0] for path in spool(world).iterdir()] == [done]
    jobs.sweep(time.time() + 400 * DAY_S)
    with pytest.raises(NotFound):
        jobs.get(done)
    assert list(spool(world).iterdir()) == []


def test_one_that_can_not_be_forgotten_now_does_not_end_the_sweep(world, done):
    jobs = world.services.jobs

    with jobs._results.archives.alone(done):
        jobs.sweep(time.time() + 400 * DAY_S)

    assert jobs.get(done).job.id == done


def test_the_zip_of_a_job_that_is_gone_is_swept(world, done):
    _, download = world.services.jobs.archive(done)
    b"".join(download.pieces())
    download.close()
    (spool(world) / "0b8f2a5e-5c9d-4a0e-9d55-6a3f6f0f3c11.0123.zip").write_bytes(b"left")

    world.services.jobs.sweep(time.time())

    assert [path.name.partition(".")[0] for path in spool(world).iterdir()] == [done]
