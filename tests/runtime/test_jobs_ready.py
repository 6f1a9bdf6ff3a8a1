"""Jobs of the runtime image: in the flow of the document, and in containers that stand ready."""

import json
import zipfile

import pytest

from tests.fakes.jobs import Jobs

pytestmark = [pytest.mark.docker, pytest.mark.redis]


@pytest.fixture
def jobs(start_daemon, docker_sandbox, runtime_image):
    config = f"jobs:\n  image: {runtime_image}\n  warm: 1\n  max_running: 2\n"
    yield Jobs(start_daemon(sandbox=docker_sandbox, config=config), runtime_image)
    docker_sandbox.remove_containers()


def test_a_warm_container_takes_a_job_at_once_and_another_one_takes_its_place(jobs, eventually, tmp_path):
    eventually(lambda: len(jobs.containers()) == 1, limit_s=60, what="a container that stands ready")
    warm = jobs.containers()
    eventually(lambda: jobs.is_ready(warm[0]), limit_s=60)

    job = jobs.must("POST", "", {"prompt": "echo Hello World", "files": [jobs.file("in.txt", b"given")]})
    job = jobs.done(job["id"])

    assert (job["status"], job["error"]) == ("completed", None), jobs.daemon.tail()
    result = json.loads((jobs.output(job["id"]) / "result.json").read_text())
    assert {"task", "analysis", "shell_results", "python_results", "status"} <= result.keys()
    assert "Hello World" in jobs.log(job["id"])
    assert f"Starting agent for job {job['id']} with prompt: echo Hello World" in jobs.log(job["id"])
    assert jobs.download(job["id"], tmp_path / "x.zip") == 200
    assert "result.json" in zipfile.ZipFile(tmp_path / "x.zip").namelist()
    eventually(lambda: len(jobs.containers()) == 1 and jobs.containers() != warm, limit_s=60)
    warm = jobs.containers()

    other = jobs.done(jobs.must("POST", "", {"prompt": "echo again", "env": {"COLOUR": "blue"}})["id"])
    assert other["status"] == "completed"
    eventually(lambda: jobs.containers() == warm, limit_s=30, what="only the one that no job with variables takes")
