"""Jobs on a real daemon and a real engine: a container each, whose program is the job, or an agent that is given it."""

import base64
import json
import os
import signal
import subprocess
import time
import zipfile
from pathlib import Path

import gevent
import pytest

from tests.fakes.jobs import Jobs

COUNT = 20 if os.environ.get("SOAK_KILLS") else 6  # jobs in flight at a kill
pytestmark = [pytest.mark.docker, pytest.mark.redis]


@pytest.fixture
def start_jobs(start_daemon, docker_sandbox, base_image):
    def start(**settings) -> Jobs:
        lines = "".join(f"  {name}: {value}\n" for name, value in {"max_running": 2, **settings}.items())
        return Jobs(start_daemon(sandbox=docker_sandbox, config=f"jobs:\n{lines}"), base_image)

    yield start
    docker_sandbox.remove_containers()


@pytest.fixture
def jobs(start_jobs):
    return start_jobs()


def test_a_job_has_its_prompt_and_files_and_leaves_its_output_and_no_container(jobs, eventually):
    prompt = 'say "it"\'s\n$(touch /tmp/x) `id` \\ %s ü'
    script = """printf %s "$JOB_PROMPT"; printf %s "$JOB_PROMPT" | cmp - "$JOB_PROMPT_FILE" || exit 9
        echo aside >&2; cat /workspace/in/data.txt > "$JOB_OUTPUT_DIR/copy.txt"; echo "$JOB_ID $JOB_ATTEMPT" > output/id"""
    files = [{"name": "in/data.txt", "content": base64.b64encode(b"a\0b").decode()}]

    job = jobs.submit(f"cd /workspace; {script}", prompt, files=files, env={"COLOUR": "blue"}, priority=3)
    assert job["status"] in ("queued", "starting", "running")
    assert job["env"] == ["COLOUR"]
    job = jobs.done(job["id"])

    assert (job["status"], job["exit_code"], job["attempt"], job["error"]) == ("completed", 0, 1, None)
    assert job["output"] == prompt == job["prompt"]
    assert jobs.log(job["id"]) == prompt
    assert jobs.log(job["id"], "stderr") == "aside\n"
    assert (jobs.output(job["id"]) / "copy.txt").read_bytes() == b"a\0b"
    assert (jobs.output(job["id"]) / "id").read_text() == f"{job['id']} 1\n"
    types = [event["type"] for event in jobs.events(job["id"])]
    assert (types[0], types[-1]) == ("RUN_STARTED", "RUN_FINISHED")
    assert {"type": "CUSTOM", "name": "log", "value": {"stream": "stderr", "text": "aside\n"}} in jobs.events(job["id"])
    eventually(lambda: not jobs.containers(), limit_s=30, what="the end of its container")
    assert jobs.daemon.control("GET", "/agents")[1]["data"] == []


def test_a_prompt_of_200_kb_comes_by_file(jobs):
    prompt = "long " * 40_000

    job = jobs.submit('test -z "$JOB_PROMPT" && wc -c < "$JOB_PROMPT_FILE"', prompt)

    assert jobs.done(job["id"])["output"].strip() == "200000"


def test_an_end_that_is_none_of_its_own_is_said(jobs):
    failed = jobs.submit("echo partial > /workspace/output/part; exit 3")
    fat = jobs.submit("python3 -c 'x=[]\nwhile True: x.append(bytearray(1<<20))'", limits={"memory": 32 * 2**20})
    forks = jobs.submit("for i in $(seq 100); do sleep 30 & done; wait", limits={"pids": 16, "wall_s": 60})
    late = jobs.submit("trap '' TERM; echo begun; sleep 60 & wait; sleep 60", limits={"wall_s": 1})
    large = jobs.submit("head -c 40000000 /dev/zero > /workspace/output/big; sleep 60", limits={"disk": 8 * 2**20})
    absent = jobs.submit("", command=["/no/such/program"])

    ended = {each["id"]: jobs.done(each["id"]) for each in (failed, fat, forks, late, large, absent)}

    def end(job):
        job = ended[job["id"]]
        return job["status"], job["error"]["code"], job["exit_code"]

    assert end(failed) == ("failed", "error", 3)
    assert (jobs.output(failed["id"]) / "part").read_text() == "partial\n"
    assert end(fat)[:2] == ("failed", "oom")
    assert end(forks)[:2] == ("failed", "error")
    assert "fork" in jobs.log(forks["id"], "stderr").lower()
    assert end(late) == ("failed", "timeout", None)
    assert jobs.log(late["id"]) == "begun\n"
    assert end(large)[:2] == ("failed", "disk_limit")
    assert end(absent) == ("failed", "agent_unavailable", 127)


def test_cancelled_before_during_twice_and_after(jobs, eventually):
    running = [jobs.submit("trap 'echo told; exit 0' TERM; echo begun; sleep 60 & wait") for _ in range(2)]
    waiting = jobs.submit("echo never")
    assert jobs.get(waiting["id"])["position"] == 1
    eventually(lambda: jobs.log(running[0]["id"]) == "begun\n", limit_s=30)

    for job in (waiting, running[0]):
        assert jobs.ask("POST", f"/{job['id']}/cancel", {})[1]["cancelled"] is True
        assert jobs.ask("POST", f"/{job['id'][:8]}/cancel", {})[1]["cancelled"] is False

    first = jobs.done(running[0]["id"])
    assert (first["status"], first["error"]["code"]) == ("cancelled", "cancelled")
    assert jobs.log(first["id"]) == "begun\ntold\n"
    assert jobs.done(waiting["id"])["attempt"] == 0
    assert jobs.follow(waiting["id"]) == ""
    assert jobs.follow(first["id"]) == "begun\ntold\n"
    status, answer = jobs.ask("POST", f"/{first['id']}/cancel", {})
    assert (status, answer["cancelled"], answer["data"]["status"]) == (200, False, "cancelled")
    assert jobs.get(running[1]["id"])["status"] == "running"


def test_jobs_in_flight_at_a_kill_end_once_each(start_jobs, start_daemon, docker_sandbox, eventually, tmp_path):
    """Those that run are joined, those that wait wait on; nothing runs twice and nothing is lost."""
    jobs = start_jobs(max_running=COUNT // 2)
    script = 'echo begun >> /workspace/output/ledger; for i in 1 2 3 4 5 6; do echo $i; sleep 0.5; done; exit "$EXIT"'
    ids = [jobs.submit(script, env={"EXIT": str(number % 2)})["id"] for number in range(COUNT)]
    eventually(lambda: any("2" in jobs.log(job_id) for job_id in ids), limit_s=30)

    jobs.daemon.kill()
    again = Jobs(start_daemon(like=jobs.daemon, sandbox=docker_sandbox), jobs.image)

    for number, job_id in enumerate(ids):
        job = again.done(job_id, limit_s=90)
        assert (job["status"], job["exit_code"]) == (("failed", 1) if number % 2 else ("completed", 0)), job
        assert job["attempt"] == 1
        assert again.log(job_id).split() == ["1", "2", "3", "4", "5", "6"]
        assert (again.output(job_id) / "ledger").read_text() == "begun\n"
        kinds = [event["type"] for event in again.events(job_id)]
        assert kinds.count("RUN_STARTED") == 1
        assert sum(kind in ("RUN_FINISHED", "RUN_ERROR") for kind in kinds) == 1
        assert again.download(job_id, tmp_path / "output.zip") == 200
        assert zipfile.ZipFile(tmp_path / "output.zip").read("ledger") == b"begun\n"
        text = "".join(event.get("delta", "") for event in again.events(job_id))
        assert text.split() == ["1", "2", "3", "4", "5", "6"]
    eventually(lambda: not again.containers(), limit_s=30)


def test_a_job_whose_container_is_lost_is_run_once_more_and_no_more(jobs, docker_client, eventually):
    script = "echo attempt $JOB_ATTEMPT; test -e /workspace/left && exit 8; touch /workspace/left; sleep 60"
    job = jobs.submit(script)
    follower = gevent.spawn(jobs.follow, job["id"])
    eventually(lambda: "attempt 1" in jobs.log(job["id"]), limit_s=30)

    docker_client.remove_container(jobs.containers()[0], force=True)
    eventually(lambda: "attempt 2" in jobs.log(job["id"]), limit_s=30)
    docker_client.remove_container(jobs.containers()[0], force=True)

    job = jobs.done(job["id"])
    assert (job["status"], job["error"]["code"], job["attempt"]) == ("failed", "container_lost", 2)
    attempts = [event["value"]["attempt"] for event in jobs.events(job["id"]) if event.get("name") == "job.attempt"]
    assert attempts == [2]
    assert follower.get(timeout=10) == "attempt 1\nattempt 2\n"


def test_an_agents_image_is_given_the_job_when_it_is_ready(start_jobs, storyteller_image):
    jobs = start_jobs()

    job = jobs.must("POST", "", {"prompt": "fix", "image": storyteller_image, "bridge": "native"})

    job = jobs.done(job["id"])
    assert (job["status"], job["output"]) == ("completed", "Fixed.\n\x1b[2JIt subtracted.")


def test_what_is_no_job_is_refused_and_leaves_nothing(jobs):
    refused = {
        "prompt": [{"prompt": ""}, {"prompt": " \n"}, {"prompt": 3}, {}],
        "image": [{"prompt": "x", "image": "No Image"}, {"prompt": "x", "image": "no-such-image:1"}],
        "files": [
            {"prompt": "x", "files": [{"name": name, "content": ""}]} for name in ("/etc/x", "a/../../x", "", ".job/x")
        ],
        "env": [{"prompt": "x", "env": {"JOB_ID": "1"}}, {"prompt": "x", "env": {"a b": "1"}}],
        "limits": [{"prompt": "x", "limits": {"memory": 1}}, {"prompt": "x", "limits": {"wall_s": 0}}],
        "command": [{"prompt": "x", "command": ["a\0b"]}],
        "after": [{"prompt": "x", "after": after} for after in (-1, "soon", "2026-01-01", 1e12)],
        "retention": [{"prompt": "x", "retention": "for ever"}],
        "priority": [{"prompt": "x", "priority": 11}],
    }
    for field, bodies in refused.items():
        for body in bodies:
            status, answer = jobs.ask("POST", "", {"image": jobs.image, **body})
            assert status in (400, 404), (field, body, answer)
            assert answer["success"] is False
    assert jobs.must("GET", "") == []
    assert os.listdir(jobs.daemon.state_dir / "jobs") == []
    for path in ("/not-a-job", "/12345678-1234-4234-8234-123456789012"):
        for method, more in (("GET", ""), ("POST", "/cancel"), ("GET", "/logs"), ("GET", "/events"), ("DELETE", "")):
            assert jobs.ask(method, path + more, {} if method == "POST" else None)[0] == 404, (method, path, more)


def test_a_thousand_jobs_at_once_are_accepted_in_five_seconds_and_none_is_lost(
    start_jobs, start_daemon, docker_sandbox
):
    """In five seconds: the quicker of two thousands, because what else this machine does costs time too."""
    jobs = start_jobs(max_running=1)
    jobs.submit("sleep 60")
    took_s, ids = [], set()
    while not took_s or (took_s[-1] >= 5 and len(took_s) < 2):
        began = time.monotonic()
        submissions = [gevent.spawn(jobs.submit, "true", after="1h") for _ in range(1000)]
        gevent.joinall(submissions, timeout=60)
        took_s.append(time.monotonic() - began)
        ids |= {each.get(block=False)["id"] for each in submissions}

    jobs.daemon.kill()
    again = Jobs(start_daemon(like=jobs.daemon, sandbox=docker_sandbox), jobs.image)

    cursor, found = "", set()
    while True:
        _, answer = again.ask("GET", f"?status=queued&limit=500{cursor}")
        found |= {job["id"] for job in answer["data"]}
        if not (following := answer.get("next_cursor")):
            break
        cursor = f"&cursor={following}"
    assert ids <= found
    assert took_s[-1] < 5, took_s


def test_results_are_kept_as_long_as_they_are_to_be_and_no_longer(start_jobs, eventually):
    jobs = start_jobs(max_bytes="3Mi")
    brief = jobs.done(jobs.submit("true", retention=0)["id"])
    large = [jobs.done(jobs.submit("head -c 2000000 /dev/urandom > /workspace/output/x")["id"]) for _ in range(2)]

    jobs.daemon.signal(signal.SIGHUP)

    gone = [brief["id"], large[0]["id"]]
    eventually(lambda: all(jobs.ask("GET", f"/{job_id}")[0] == 404 for job_id in gone), limit_s=45)
    assert jobs.get(large[1]["id"])["status"] == "completed"
    assert [json.loads(json.dumps(each)) for each in os.listdir(jobs.daemon.state_dir / "jobs")] == [large[1]["id"]]
    assert jobs.ask("DELETE", f"/{large[1]['id']}")[0] == 200
    assert os.listdir(jobs.daemon.state_dir / "jobs") == []


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_is_full_is_said_and_nothing_is_left_of_what_was_refused(start_jobs, small_disk):
    jobs = start_jobs(output_dir=f"{small_disk}/jobs")

    status, answer = jobs.ask("POST", "", {"prompt": "x", "image": jobs.image, "files": [jobs.file("a", b"x" * 2**21)]})
    assert (status, answer["code"]) == (503, "NO_SPACE")
    assert "no space left on device" in answer["error"].lower()
    assert jobs.must("GET", "") == [] == os.listdir(small_disk / "jobs")

    job = jobs.done(jobs.submit("head -c 2000000 /dev/zero > /workspace/output/x || exit 4")["id"])
    assert (job["status"], job["exit_code"]) == ("failed", 4)
    assert "No space left" in jobs.log(job["id"], "stderr") or jobs.daemon.log.count("could not be kept whole")
    assert jobs.ask("DELETE", f"/{job['id']}")[0] == 200
    assert jobs.done(jobs.submit("true")["id"])["status"] == "completed"


def test_a_job_is_bounded_as_it_asks(jobs, docker_client, docker_sandbox, eventually):
    limits = {"memory": 64 * 2**20, "cpus": 0.5, "pids": 40, "network": False, "wall_s": 30}
    job = jobs.submit("sleep 30 & wait", limits=limits)
    eventually(lambda: jobs.get(job["id"])["status"] == "running", limit_s=20)
    eventually(jobs.containers, limit_s=20)

    made = docker_client.inspect_container(jobs.containers()[0])

    host = made["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (64 * 2**20,) * 2 + (
        5 * 10**8,
        40,
    )
    assert list(made["NetworkSettings"]["Networks"]) == [docker_sandbox.isolated_network]
    shown = jobs.get(job["id"])["limits"]
    assert {name: shown[name] for name in limits} == limits
    jobs.ask("POST", f"/{job['id']}/cancel", {"mode": "kill"})
    assert jobs.done(job["id"])["status"] == "cancelled"


def test_what_a_vanished_job_left_is_removed_and_nothing_of_anybody_else(
    jobs, start_daemon, docker_client, docker_sandbox, base_image, eventually
):
    jobs.done(jobs.submit("true")["id"])
    jobs.daemon.kill()
    folders = jobs.daemon.state_dir / "jobs"
    lost = folders / "0f8fad5b-d9cb-469f-a165-70867728950e" / "workspace"
    lost.mkdir(parents=True)
    (folders / "mine").mkdir()
    strays = {
        place: docker_client.create_container(
            base_image,
            labels={"agentainer.id": "agent-00000000deadbeef", "agentainer.workspace": str(place)},
            host_config=docker_client.create_host_config(network_mode=docker_sandbox.network),
        )["Id"]
        for place in (lost, folders.parent / "elsewhere")
    }

    again = Jobs(start_daemon(like=jobs.daemon, sandbox=docker_sandbox), jobs.image)

    def are_left():
        return {one["Id"] for one in docker_client.containers(all=True, filters={"label": "agentainer.workspace"})}

    eventually(lambda: strays[lost] not in are_left(), limit_s=45, what="the container of a job that is none")
    eventually(lambda: not lost.parent.exists(), limit_s=45)
    assert strays[folders.parent / "elsewhere"] in are_left()
    assert (folders / "mine").is_dir()
    assert len(again.must("GET", "")) == 1


@pytest.mark.parametrize("tier", ["agui", "agentcore", "openai"])
def test_a_program_of_any_tier_is_given_the_job_when_it_listens(jobs, tier):
    program = (Path(__file__).parents[2] / "examples/bridges" / tier / "agent.py").read_bytes()

    job = jobs.must("POST", "", {
        "prompt": "count these three", "image": jobs.image, "bridge": tier, "command": ["python3", "/workspace/agent.py"],
        "env": {"PORT": "8000"}, "files": [jobs.file("agent.py", program)],
    })  # fmt: skip

    job = jobs.done(job["id"])
    assert (job["status"], job["error"]) == ("completed", None), jobs.daemon.tail()
    assert job["output"].strip()
    assert jobs.download(job["id"], jobs.daemon.folder / "output.zip") == 200
