"""Jobs between the API and the engine."""

import pytest

from agentainerd.model.jobs import JobRequest
from agentainerd.model.runs import RunStatus
from agentainerd.services.audit import Actor
from tests.fakes.programs import Program
from tests.fakes.runs import AguiAgent

FIRST, SECOND = (Actor(f"unix:0(root)/pid {number}", "unix") for number in (11, 22))


@pytest.fixture
def jobs(world):
    world.engine.add_image("prints", Program(listens=False, ports=(), prints=("hello",), exits=0))
    return world.services.jobs


def request(prompt="do it", image="prints", **more):
    return JobRequest(prompt=prompt, image=image, **more)


def test_an_agent_is_told_that_it_is_a_job(world, jobs):
    agent = AguiAgent()
    world.engine.add_image("speaks", Program(agent.handle), labels={"agentainer.bridge": "agui"})

    job_id = jobs.submit(request(image="speaks"), FIRST).job.id

    assert world.services.runs.wait(job_id, 10).status is RunStatus.COMPLETED
    assert agent.inputs[0]["forwardedProps"]["job"] == {
        "id": job_id, "attempt": 1, "output_dir": "/workspace/output",
    }  # fmt: skip


def test_who_submits_is_a_user_whichever_of_their_programs_does(jobs):
    one, other = jobs.submit(request(), FIRST, key="k"), jobs.submit(request(), SECOND, key="k")

    assert one.job.submitter == "unix:0(root)"
    assert other.job.id == one.job.id
