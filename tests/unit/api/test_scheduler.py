"""The routes of the containerized-agent document: its shapes, states and status codes, and every error of its."""

import io
import json
import uuid
import zipfile

import pytest

from agentainerd.api.access import Door
from tests.conftest import wait_until
from tests.fakes.programs import Program

UNKNOWN = "5b1f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f"
IMAGE = "echoes"
BASE = "http://localhost"


@pytest.fixture
def world(make_world):
    world = make_world(jobs={"image": IMAGE, "max_running": 2})
    world.services.jobs.load()
    return world


@pytest.fixture
def client(world):
    return world.client()


@pytest.fixture
def image(world):
    """Return a function that says what the image of all jobs does."""

    def put(**program):
        world.engine.add_image(IMAGE, Program(listens=False, ports=(), **program))

    put(prints=("Starting agent for job x with prompt: say hello", "hello"), exits=0)
    return put


def schedule(client, prompt="say hello"):
    status, said = client.call("POST", "/schedule", json={"prompt": prompt})
    assert status == 200, said
    return said["job_id"]


def ended(world, job_id):
    run = world.services.runs.wait(job_id, 10)
    assert run.status.is_final
    return run


def done(world, client):
    job_id = schedule(client)
    ended(world, job_id)
    return job_id


@pytest.fixture
def hanging(client, image):
    """A job that runs until it is cancelled or the test ends it."""
    image(prints=("working",))
    job_id = schedule(client)
    wait_until(lambda: client.call("GET", f"/logs/{job_id}")[1].get("last_1000_lines") == "working\n")
    return job_id


def refused(answer, status, message):
    """An error as both versions of the document call it."""
    assert answer[0] == status, answer
    assert (answer[1]["error"], answer[1]["detail"]) == (message, message)


def test_somebody_is_there_and_nobody_needs_a_token_to_hear_it(world):
    for door in Door:
        assert world.client(door).call("GET", "/") == (200, {"message": "orchestration server is running."})


def test_a_job_is_scheduled(client, image):
    status, said = client.call("POST", "/schedule", json={"prompt": "say hello"})

    assert (status, said) == (200, {"job_id": said["job_id"], "status": "scheduled"})
    assert str(uuid.UUID(said["job_id"], version=4)) == said["job_id"]


def test_the_same_key_schedules_one_job(client, image):
    said = [
        client.call("POST", "/schedule", json={"prompt": "x"}, headers={"Idempotency-Key": "k"})[1] for _ in range(2)
    ]

    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("body", "kind", "loc"),
    [
        (b"{}", "missing", ["body", "prompt"]),
        (b"", "missing", ["body"]),
        (b'{"prompt": 5}', "string_type", ["body", "prompt"]),
        (b'{"prompt": null}', "string_type", ["body", "prompt"]),
        (b'{"prompt": "  "}', "value_error", ["body", "prompt"]),
        (b'["prompt"]', "model_attributes_type", ["body"]),
        (b"{", "json_invalid", ["body"]),
        (b"\xff", "json_invalid", ["body"]),
        (b"[" * 100_000, "json_invalid", ["body"]),
    ],
)
def test_without_a_prompt_nothing_is_scheduled(client, image, body, kind, loc):
    status, said = client.call("POST", "/schedule", data=body)

    assert status == 422
    assert [(one["type"], one["loc"]) for one in said["detail"]] == [(kind, loc)]
    assert said["error"].startswith(".".join(loc) + ": ")
    assert client.call("GET", "/jobs") == (200, {"jobs": []})


def test_other_fields_and_no_media_type_are_fine(client, image):
    assert client.call("POST", "/schedule", data=b'{"prompt": "x", "more": 1}')[0] == 200


def test_an_image_that_is_missing_is_said(client):
    status, said = client.call("POST", "/schedule", json={"prompt": "x"})

    assert (status, said["code"]) == (404, "IMAGE_NOT_FOUND")
    assert said["error"] == said["detail"] == f"image '{IMAGE}' is not on the engine"


def test_a_body_that_is_too_large_is_refused(client, image):
    status, said = client.call("POST", "/schedule", data=b"x" * (10 * 2**20 + 1))

    assert (status, said["code"], said["detail"]) == (413, "BODY_TOO_LARGE", said["error"])


def test_a_job_that_ended_has_its_results_and_links(world, client, image):
    job_id = done(world, client)

    status, said = client.call(
        "GET", f"/status/{job_id}", headers={"Host": "localhost:9000", "X-Forwarded-Proto": "https"}
    )

    assert status == 200
    assert said == {
        "job_id": job_id,
        "status": "complete",
        "output": str(world.state_dir / "jobs" / job_id / "workspace/output"),
        "download_link": f"https://localhost:9000/download/{job_id}",
        "logs_link": f"https://localhost:9000/logs/{job_id}",
    }


def test_one_that_runs_has_none_yet(client, hanging):
    assert client.call("GET", f"/status/{hanging}") == (
        200,
        {
            "job_id": hanging,
            "status": "running",
            "output": None,
            "download_link": None,
            "logs_link": f"{BASE}/logs/{hanging}",
        },
    )


def test_one_that_waits_is_scheduled_and_has_no_log(client, image):
    image()
    waiting = [schedule(client) for _ in range(3)][-1]

    assert client.call("GET", f"/status/{waiting}")[1]["status"] == "scheduled"
    for path in (f"/logs/{waiting}", f"/logs/{waiting}/stdout"):
        refused(client.call("GET", path), 404, "Log file not found: the job has not started")


def test_one_that_failed_is_an_error_and_keeps_its_results(world, client, image):
    image(exits=3)
    job_id = done(world, client)

    said = client.call("GET", f"/status/{job_id}")[1]
    assert (said["status"], said["download_link"]) == ("error", f"{BASE}/download/{job_id}")
    job = client.call("GET", f"/job/{job_id}")[1]
    assert (job["status"], job["exit_code"]) == ("error", 3)
    assert job["error"]


def test_all_jobs_are_listed_the_oldest_first(world, client, image):
    jobs = [done(world, client), done(world, client)]

    status, said = client.call("GET", "/jobs")

    assert status == 200
    assert [one["job_id"] for one in said["jobs"]] == jobs
    for one in said["jobs"]:
        assert set(one) == {"job_id", "status", "created", "started", "completed", "error"}
        assert (one["status"], one["error"]) == ("complete", None)
        assert one["created"] <= one["started"] <= one["completed"]


def test_a_job_is_told_whole(world, client, image):
    job_id = done(world, client)

    status, said = client.call("GET", f"/job/{job_id}")

    assert status == 200
    assert set(said) == {
        "container_id", "status", "output_path", "logs_path", "error", "created", "started", "completed", "cancelled",
        "exit_code",
    }  # fmt: skip
    assert (said["status"], said["error"], said["cancelled"], said["exit_code"]) == ("complete", None, False, 0)
    assert said["output_path"] == client.call("GET", f"/status/{job_id}")[1]["output"]
    assert (said["container_id"], said["logs_path"]) == (None, str(world.state_dir / "jobs" / job_id))


def test_the_container_of_a_job_that_runs_is_told(world, client, hanging):
    said = client.call("GET", f"/job/{hanging}")[1]

    assert said["container_id"] in {container.id for container in world.engine.containers()}
    assert (said["completed"], said["exit_code"], said["output_path"]) == (None, None, None)


def test_a_job_is_cancelled_and_may_be_again(client, hanging):
    assert client.call("POST", f"/cancel/{hanging}") == (
        200, {"job_id": hanging, "cancelled": True, "status": "cancelled"},
    )  # fmt: skip
    assert client.call("POST", f"/cancel/{hanging}") == (
        200, {"job_id": hanging, "cancelled": True, "status": "cancelled"},
    )  # fmt: skip
    job = client.call("GET", f"/job/{hanging}")[1]
    assert (job["status"], job["cancelled"]) == ("cancelled", True)


def test_one_that_waits_is_cancelled_before_it_began(client, image):
    image()
    waiting = [schedule(client) for _ in range(3)][-1]

    assert client.call("POST", f"/cancel/{waiting}")[1]["status"] == "cancelled"
    said = client.call("GET", f"/status/{waiting}")[1]
    assert (said["output"], said["download_link"]) == (None, None)


def test_one_that_is_over_is_not_cancelled_and_keeps_what_it_has(world, client, image):
    job_id = done(world, client)

    assert client.call("POST", f"/cancel/{job_id}") == (
        200, {"job_id": job_id, "cancelled": False, "status": "complete"},
    )  # fmt: skip
    assert client.call("GET", f"/status/{job_id}")[1]["download_link"]


def test_the_last_lines_of_the_log_are_told(world, client, image):
    image(prints=tuple(f"line {number}" for number in range(1500)), exits=0)
    job_id = done(world, client)

    status, said = client.call("GET", f"/logs/{job_id}")

    assert (status, set(said)) == (200, {"job_id", "log_type", "last_1000_lines", "full_log"})
    lines = said["last_1000_lines"].splitlines()
    assert (len(lines), lines[0], lines[-1]) == (1000, "line 500", "line 1499")
    assert (said["job_id"], said["log_type"], said["full_log"]) == (job_id, "stdout", f"{BASE}/logs/{job_id}/stdout")
    assert client.call("GET", f"/logs/{job_id}?log_type=stderr") == (
        200,
        {
            "job_id": job_id, "log_type": "stderr", "last_1000_lines": None, "full_log": f"{BASE}/logs/{job_id}/stderr",
        },
    )  # fmt: skip


def test_a_log_is_a_text(world, client, image):
    job_id = done(world, client)

    answer = client.open(f"/logs/{job_id}/stdout")

    assert (answer.status_code, answer.mimetype) == (200, "text/plain")
    assert answer.get_data(as_text=True).endswith("with prompt: say hello\nhello\n")
    assert client.open(f"/logs/{job_id}/stderr").get_data() == b""


def test_a_log_of_another_kind_is_refused(world, client, image):
    job_id = done(world, client)

    status, said = client.call("GET", f"/logs/{job_id}?log_type=both")
    assert (status, said["detail"][0]["loc"]) == (422, ["query", "log_type"])
    assert said["error"] == "query.log_type: Input should be 'stdout' or 'stderr'"
    refused(client.call("GET", f"/logs/{job_id}/both"), 404, "Log file not found: there are stdout and stderr")


def test_the_results_are_a_zip(world, client, image):
    job_id = done(world, client)
    (world.state_dir / "jobs" / job_id / "workspace/output/result.txt").write_bytes(b"done")

    answer = client.open(f"/download/{job_id}")
    content = answer.get_data()

    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/zip")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="output.zip"'
    assert zipfile.ZipFile(io.BytesIO(content)).read("result.txt") == b"done"
    again = {"Range": "bytes=4-", "If-Range": answer.headers["ETag"]}
    part = client.open(f"/download/{job_id}", headers=again)
    assert (part.status_code, part.get_data()) == (206, content[4:])
    head = client.open(f"/download/{job_id}", method="HEAD")
    assert (head.status_code, head.content_length, head.get_data()) == (200, len(content), b"")


def test_nothing_in_the_output_is_a_zip_too(world, client, image):
    assert zipfile.ZipFile(io.BytesIO(client.open(f"/download/{done(world, client)}").get_data())).namelist() == []


def test_a_job_that_is_not_over_has_no_zip(client, hanging):
    refused(client.call("GET", f"/download/{hanging}"), 404, "Output zip not found or job not complete")


def test_one_that_never_began_has_none(client, image):
    image()
    waiting = [schedule(client) for _ in range(3)][-1]
    client.call("POST", f"/cancel/{waiting}")

    refused(client.call("GET", f"/download/{waiting}"), 404, "Output zip not found or job not complete")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/status/{}"), ("GET", "/logs/{}"), ("GET", "/logs/{}?log_type=both"), ("GET", "/logs/{}/stdout"),
        ("GET", "/logs/{}/both"), ("GET", "/job/{}"), ("POST", "/cancel/{}"), ("GET", "/download/{}"),
    ],
)  # fmt: skip
def test_what_is_no_uuid_is_refused(client, method, path):
    refused(client.call(method, path.format("not-a-uuid")), 400, "Invalid job_id format (must be UUID)")


@pytest.mark.parametrize("path", ["/logs/{}", "/logs/{}/stdout", "/job/{}", "/download/{}"])
def test_a_job_that_is_not_there(client, path):
    refused(client.call("GET", path.format(UNKNOWN)), 404, "Job not found")


def test_the_status_of_a_job_that_is_not_there_has_its_shape_too(client):
    answer = client.call("GET", f"/status/{UNKNOWN}")

    refused(answer, 404, "Job not found")
    assert {name: answer[1][name] for name in ("job_id", "status", "output", "download_link", "logs_link")} == {
        "job_id": UNKNOWN,
        "status": "not_found",
        "output": None,
        "download_link": None,
        "logs_link": f"{BASE}/logs/{UNKNOWN}",
    }


def test_nothing_is_cancelled_of_a_job_that_is_not_there(client):
    assert client.call("POST", f"/cancel/{UNKNOWN}") == (
        200, {"job_id": UNKNOWN, "cancelled": False, "status": "not_found"},
    )  # fmt: skip


def test_a_uuid_may_be_written_in_any_form(world, client, image):
    job_id = done(world, client)

    for form in (job_id.upper(), job_id.replace("-", "")):
        assert client.call("GET", f"/status/{form}")[1]["job_id"] == job_id


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/schedule"), ("GET", "/jobs"), ("GET", f"/status/{UNKNOWN}"), ("GET", f"/job/{UNKNOWN}"),
        ("POST", f"/cancel/{UNKNOWN}"), ("GET", f"/logs/{UNKNOWN}"), ("GET", f"/logs/{UNKNOWN}/stdout"),
        ("GET", f"/download/{UNKNOWN}"),
    ],
)  # fmt: skip
def test_over_tcp_a_token_is_asked_for_unless_the_path_is_open(world, method, path):
    body = json.dumps({"prompt": "x"})
    assert world.client(Door.GATEWAY).call(method, path, data=body)[0] == 401
    client = world.client(
        Door.GATEWAY, open_prefixes=("/schedule", "/jobs", "/status", "/job", "/cancel", "/logs", "/download")
    )
    assert client.call(method, path, data=body, headers={"X-Forwarded-For": "127.0.0.1"})[0] in (200, 404)
