"""Jobs in the runtime image behind a real daemon: the flow of the document, with a script in the place of a model."""

import json

import pytest

from tests.fakes.jobs import Jobs

pytestmark = [pytest.mark.docker, pytest.mark.redis]
PLAN = {
    "actions": [
        {"type": "shell_command", "description": "Look", "command": 'echo "data: $DATA" | tee seen.txt; cat ../numbers.csv'},
        {"type": "python_code", "description": "Add", "code": "print(sum(map(int, open('../numbers.csv'))))", "output_file": "sum.txt"},
    ],
    "estimated_time": "1 s",
    "requirements": ["python3"],
}  # fmt: skip
SLOW = {"actions": [{"type": "shell_command", "command": "echo begun | tee begun.txt; sleep 100"}]}
TURNS = [{"text": json.dumps(PLAN), "when": {"user": "sum"}}, {"text": json.dumps(SLOW)}]


@pytest.fixture
def jobs(start_daemon, docker_sandbox, runtime_image):
    yield Jobs(start_daemon(sandbox=docker_sandbox, config="jobs:\n  max_running: 2\n"), runtime_image)
    docker_sandbox.remove_containers()


def test_a_job_is_carried_out_in_the_flow_of_the_document_and_a_cancelled_one_leaves_its_result(jobs, eventually):
    def submit(prompt):
        files = [jobs.file("turns.json", json.dumps(TURNS).encode()), jobs.file("numbers.csv", b"1\n2\n39\n")]
        asked = {
            "prompt": prompt,
            "image": jobs.image,
            "model": "script/turns.json",
            "files": files,
            "env": {"DATA": "x y"},
        }
        return jobs.must("POST", "", asked)["id"]

    def result(job):
        return json.loads((jobs.output(job) / "result.json").read_text())

    slow = submit("for ever")
    summing = submit("the sum, please")
    done = jobs.done(summing)
    eventually(lambda: (jobs.output(slow) / "begun.txt").exists(), limit_s=30)
    jobs.must("POST", f"/{slow}/cancel")
    cancelled = jobs.done(slow)

    assert (done["status"], done["steps"], done["error"]) == ("completed", 4, None)
    assert "2. Add: worked" in done["output"]
    assert (jobs.output(summing) / "sum.txt").read_text() == "42\n"
    assert (jobs.output(summing) / "seen.txt").read_text() == "data: x y\n"
    found = result(summing)
    assert (found["job_id"], found["attempt"], found["status"], found["analysis"]) == (summing, 1, "complete", PLAN)
    told = jobs.events(summing)
    steps = [event["stepName"] for event in told if event["type"] == "STEP_STARTED"]
    assert steps == ["analysis", "shell commands", "Python code", "result"]
    assert [event["toolCallName"] for event in told if event["type"] == "TOOL_CALL_START"] == [
        "shell_command",
        "python_code",
    ]
    beginning = [f"Starting agent for job {summing} with prompt: the sum, please", "data: x y"]
    assert jobs.log(summing).splitlines()[:2] == beginning
    assert cancelled["status"] == "cancelled"
    assert (result(slow)["status"], result(slow)["shell_results"][0]["success"]) == ("cancelled", False)
