"""`jobs submit`: what a job is made of, what is shown of it, how the program exits."""

import base64
import json
import os
import signal
from datetime import datetime

import pytest

from tests.unit.ctl.run_records import ID, STORY, events, job
from tests.unit.ctl.test_jobs_command import ZIP, Archive
from tests.unit.ctl.test_run import endless

JOBS = "/api/v1/jobs"
JOB = f"{JOBS}/{ID}"
CANCEL = f"{JOB}/cancel"
EVENTS = f"/api/v1/runs/{ID}/events"
SHORT = ID[:8]
TOLD = [event["event"] for event in STORY]


@pytest.fixture
def run(run_here):
    return run_here


@pytest.fixture
def story(api):
    """A job that reads a file and answers."""
    api.on("POST", JOBS, job("queued", position=3), status=202)
    api.on("GET", JOB, job())
    api.on("GET", "/system/ping", {})
    api.on_events(EVENTS, *events({"type": "STEP_STARTED", "stepName": "analysis"}), *events(*TOLD, first=2))
    return api


def submitted(api):
    return [asked for asked in api.asked if asked.method == "POST"]


def test_its_id_is_what_is_printed(story, run):
    said = run("jobs", "submit", "Fix the tests")

    assert (said.code, said.out) == (0, f"{ID}\n")
    assert said.err == (
        f"Watch it: agentainerctl jobs logs --follow {SHORT}   then: agentainerctl jobs download {SHORT}\n"
    )
    assert submitted(story)[0].json == {"prompt": "Fix the tests"}
    assert len(submitted(story)[0].headers["Idempotency-Key"]) == 32
    assert run("jobs", "submit", "-q", "Fix the tests") == (0, f"{ID}\n", "")
    assert json.loads(run("jobs", "submit", "-o", "json", "Fix the tests").out)["status"] == "queued"


def test_the_secret_that_was_made_for_its_webhook_is_told_once(api, run, tmp_path):
    webhook = {"url": "https://x.example/h", "secret": "whsec_made"}
    api.on("POST", JOBS, job("queued", webhook=webhook), status=202)
    (tmp_path / "secret").write_text("whsec_mine\n")
    asks = ("jobs", "submit", "--webhook", "https://x.example/h")

    assert run(*asks, "-q", "x") == (0, f"{ID}\n", "Secret of its webhook, told once: whsec_made\n")
    assert run(*asks, "-q", "--webhook-secret-file", "secret", "x").err == ""
    assert json.loads(run(*asks, "-o", "json", "x").out)["webhook"]["secret"] == "whsec_made"


def test_all_that_can_be_said_of_a_job_is_sent(story, run, tmp_path):
    (tmp_path / "secret").write_text("whsec_abc\n")

    said = run(
        "jobs", "submit", "--image", "x:1", "--bridge", "exec", "--template", "review", "--param", "language=python",
        "-e", "A=1=2", "-e", "HERE", "--model", "m", "--memory", "512Mi", "--cpus", "0.5", "--pids", "64", "--disk", "1Gi",
        "--timeout", "10m", "--max-steps", "5", "--max-cost", "0.5", "--no-network", "--priority", "-3", "--after", "1h",
        "--retention", "0", "--webhook", "https://x.example/h", "--webhook-secret-file", "secret",
        "--idempotency-key", "mine", "Do it", "--", "sh", "-c", "true", env={"HERE": "there"},
    )  # fmt: skip

    assert said.code == 0
    assert submitted(story)[0].headers["Idempotency-Key"] == "mine"
    assert submitted(story)[0].json == {
        "prompt": "Do it",
        "image": "x:1",
        "command": ["sh", "-c", "true"],
        "bridge": "exec",
        "env": {"A": "1=2", "HERE": "there"},
        "limits": {
            "memory": 2**29, "cpus": 0.5, "pids": 64, "disk": 2**30, "wall_s": 600.0, "steps": 5, "cost_usd": 0.5,
            "network": False,
        },
        "retention": 0,
        "webhook": {"url": "https://x.example/h", "secret": "whsec_abc"},
        "priority": -3,
        "after": 3600.0,
        "template": {"name": "review", "parameters": {"language": "python"}},
        "model": "m",
    }  # fmt: skip


@pytest.mark.parametrize("given", ["2026-11-20T18:00:00Z", "2026-11-20T18:00:00+02:00", "2026-11-20T18:00:00"])
def test_it_may_be_held_back_until_a_time_which_is_local_without_a_zone(story, run, given):
    assert run("jobs", "submit", "--after", given, "x").code == 0

    sent = datetime.fromisoformat(submitted(story)[0].json["after"])
    assert sent.tzinfo is not None
    assert sent == datetime.fromisoformat(given).astimezone()


AWKWARD = "quotes \" ' $(touch x) `id` \\ \n newline — ünïcödé"


def test_a_prompt_comes_from_the_command_line_from_stdin_or_from_a_file(story, run, tmp_path):
    (tmp_path / "prompt.txt").write_text(f"{AWKWARD}\n")

    run("jobs", "submit", AWKWARD)
    run("jobs", "submit", "-", input=f"{AWKWARD}\n".encode())
    run("jobs", "submit", "@prompt.txt")
    run("jobs", "submit", "-", input=b"x" * 200_000)

    assert [asked.json["prompt"] for asked in submitted(story)] == [AWKWARD] * 3 + ["x" * 200_000]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 2, "Missing argument 'PROMPT'"),
        (("",), 2, "Missing argument 'PROMPT'"),
        (("@none.txt",), 3, "no file 'none.txt'\nhint: a prompt that begins with @ comes from standard input: -"),
        (("@latin1",), 2, "'latin1' is not UTF-8: byte 1"),
        (("--param", "a=b", "x"), 2, "there is no template for it\nhint: --template TEMPLATE"),
        (("--env", "=1", "x"), 2, "'=1' has no name"),
        (("--env", "UNKNOWN", "x"), 2, "UNKNOWN has no value"),
        (("--file", "none", "x"), 3, "no file 'none'"),
        (("--file", "pipe", "x"), 2, "'pipe' is neither a file nor a folder"),
        (("--webhook-secret-file", "latin1", "x"), 2, "there is no webhook to sign"),
        (("--webhook", "https://x", "--webhook-secret-file", "empty", "x"), 2, "the first line of empty is empty"),
        (("--download", "-", "x"), 2, "standard output has the answer"),
        (("--download", "latin1", "x"), 4, "there is a file 'latin1' already"),
        (("--priority", "11", "x"), 2, "11"),
        (("--after", "soon", "x"), 2, "'soon' is not a duration"),
        (("--after", "2026-13-01T00:00:00", "x"), 2, "is not a time"),
        (("--timeout", "soon", "x"), 2, "'soon' is not a duration"),
        (("--memory", "much", "x"), 2, "'much' is not a size"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_sent(story, run, tmp_path, arguments, code, text):
    (tmp_path / "latin1").write_bytes(b"a\xe9b")
    (tmp_path / "empty").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")

    said = run("jobs", "submit", *arguments)

    assert (said.code, said.out) == (code, "")
    assert text in said.err
    assert story.asked == []


def test_what_the_daemon_refuses_is_told(api, run):
    api.on("POST", JOBS, status=400, code="INVALID_PARAMETER", message="image: 'X' is not one", hint="lower case")

    assert run("jobs", "submit", "x") == (2, "", "error: image: 'X' is not one\nhint: lower case\n")


def files(api):
    return {file["name"]: base64.b64decode(file["content"]) for asked in submitted(api) for file in asked.json["files"]}


def test_files_go_with_it_under_their_names_or_others(story, run, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/data.csv").write_bytes(b"\x00\xff")
    (tmp_path / "a=b").write_bytes(b"odd")
    (tmp_path / "link").symlink_to("in/data.csv")

    said = run(
        "jobs",
        "submit",
        "--file",
        "in/data.csv",
        "--file",
        "in/data.csv=deep/x.csv",
        "--file",
        "a=b",
        "--file",
        "link",
        "x",
    )

    assert said.code == 0
    assert files(story) == {"data.csv": b"\x00\xff", "deep/x.csv": b"\x00\xff", "a=b": b"odd", "link": b"\x00\xff"}


@pytest.mark.parametrize(("given", "top"), [("src", "src"), ("src/", "src"), ("src=code/py", "code/py"), (".", "work")])
def test_a_folder_goes_with_all_that_is_in_it_but_links(story, run, tmp_path, given, top):
    folder = tmp_path / "work"
    (folder / "src/sub").mkdir(parents=True)
    (folder / "src/a.py").write_text("a")
    (folder / "src/sub/b.py").write_text("b")
    (folder / "src/secret").symlink_to("/etc/passwd")
    os.mkfifo(folder / "src/pipe")

    assert run("jobs", "submit", "--file", given, "x", cwd=folder).code == 0
    inside = "/src" if given == "." else ""
    assert files(story) == {f"{top}{inside}/a.py": b"a", f"{top}{inside}/sub/b.py": b"b"}


# ---- --wait


def test_waiting_shows_the_answer_on_stdout_and_what_the_job_does_on_stderr(story, run):
    said = run("jobs", "submit", "--wait", "Fix the tests")

    assert (said.code, said.out) == (0, "Fixed.\n")
    assert said.err.splitlines() == [
        f"--- job {ID} in my-agent:1.0 ---",
        "--- it waits for its turn, as number 3 of the queue ---",
        "--- analysis ---",
        "> read_file add.py",
        "  | a - b",
        "--- completed in 4.5 s: 3 steps, 512 tokens in, 80 out, $0.0123 ---",
    ]


def test_waiting_for_a_document(story, run):
    said = run("jobs", "submit", "--wait", "-o", "json", "Fix the tests")

    assert (said.code, said.err) == (0, "")
    assert json.loads(said.out) == job()


@pytest.mark.parametrize(
    ("ended", "code", "text"),
    [
        (job("failed", exit_code=3, error={"code": "error", "message": "exit status 3"}), 3, "failed: exit status 3"),
        (job("failed", exit_code=137, error={"code": "oom", "message": "no memory"}), 137, "failed (oom): no memory"),
        (job("failed", exit_code=0, error={"code": "timeout", "message": "late"}), 1, "failed (timeout): late"),
        (job("failed", error={"code": "model_error", "message": "no"}), 1, "failed (model_error): no"),
        (job("cancelled"), 10, "was cancelled"),
        (job("input_required"), 11, "waits for an answer"),
    ],
)
def test_it_ends_as_the_job_does(story, run, ended, code, text):
    story.forget("GET", JOB)
    story.on("GET", JOB, ended)

    said = run("jobs", "submit", "--wait", "x")

    assert said.code == code
    assert f"error: job {ID} {text}" in said.err
    machine = run("jobs", "submit", "--wait", "x", "-o", "json")
    assert (machine.code, json.loads(machine.out)["status"]) == (code, ended["status"])
    assert json.loads(machine.err)["exit_code"] == code


def test_what_is_needed_next_is_said(story, run):
    story.forget("GET", JOB)
    story.on("GET", JOB, job("failed", error={"code": "oom", "message": "no memory"}))

    assert run("jobs", "submit", "--wait", "x").err.endswith("hint: give it more memory: --memory\n")


def test_the_wait_goes_on_when_the_connection_breaks(story, run):
    story.forget("GET", EVENTS)
    story.on_events(EVENTS, *STORY[:7], ConnectionResetError())
    story.on_events(EVENTS, *STORY[7:])

    said = run("jobs", "submit", "--wait", "x")

    assert (said.code, said.out) == (0, "Fixed.\n")
    assert "--- the connection to agentainerd broke; reconnecting ---" in said.err
    assert len(submitted(story)) == 1


def test_a_connection_that_breaks_while_it_is_submitted_makes_one_job(api, run):
    def lose(handler, _):
        handler.close_connection = True
        handler.connection.close()

    api.on_raw("POST", JOBS, lose)
    api.on("POST", JOBS, job("queued"))
    api.on("GET", "/system/ping", {})

    assert run("jobs", "submit", "x").out == f"{ID}\n"
    first, second = submitted(api)
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]


def test_the_results_are_downloaded_when_it_has_ended(story, run, tmp_path):
    Archive(story)

    said = run("jobs", "submit", "--download", "results/", "x")

    assert (said.code, said.out) == (0, "Fixed.\n")
    assert said.err.endswith(f"--- results: results/job-{SHORT}.zip (256 kB) ---\n")
    assert (tmp_path / f"results/job-{SHORT}.zip").read_bytes() == ZIP


def test_those_of_a_failed_job_too_and_it_ends_as_the_job_did(story, run, tmp_path):
    story.forget("GET", JOB)
    story.on("GET", JOB, job("failed", exit_code=3, error={"code": "error", "message": "no"}))
    Archive(story)

    assert run("jobs", "submit", "--download", "x.zip", "x").code == 3
    assert (tmp_path / "x.zip").read_bytes() == ZIP


def test_where_a_failed_job_has_none_that_is_said(story, run):
    story.forget("GET", JOB)
    story.on("GET", JOB, job("failed", exit_code=3, error={"code": "error", "message": "no"}))
    story.on("GET", f"{JOB}/download", status=404, code="ARTIFACT_NOT_FOUND", message="it made nothing")

    said = run("jobs", "submit", "--download", "x.zip", "x")

    assert said.code == 3
    assert said.err.endswith("its results can't be had: it made nothing\n")


def test_where_a_completed_job_has_none_that_is_an_error(story, run):
    story.on("GET", f"{JOB}/download", status=410, code="JOB_EXPIRED", message="they are gone")

    assert run("jobs", "submit", "--download", "x.zip", "x").code == 3


# ---- Ctrl-C


def test_without_a_person_an_interrupt_leaves_the_job(story, start):
    story.forget("GET", EVENTS)
    story.on_raw("GET", EVENTS, endless(*STORY[:8]))
    process = start("jobs", "submit", "--wait", "x")
    assert process.stdout.read(3) == b"Fix"

    process.send_signal(signal.SIGINT)

    assert process.wait(10) == 130
    assert f"the job goes on: agentainerctl runs attach {ID}".encode() in process.stderr.read()
    assert CANCEL not in story.paths("POST")


@pytest.mark.parametrize(("keys", "is_cancelled"), [(b"y\n", True), (b"n\n", False)])
def test_a_person_is_asked_whether_to_cancel_it_or_to_leave_it(story, run_on_terminal, keys, is_cancelled):
    ended = events({"type": "RUN_ERROR", "message": "cancelled", "code": "cancelled"}, first=9)
    story.forget("GET", EVENTS)
    story.on_raw("GET", EVENTS, endless(*STORY[:8]))
    story.on_events(EVENTS, *ended)
    story.on("POST", CANCEL, job("cancelling"), cancelled=True)
    story.forget("GET", JOB)
    story.on("GET", JOB, job("cancelled"))

    said = run_on_terminal("jobs", "submit", "--wait", "x", answers=[(b"Fixed.", b"\x03"), (b"[y/N]", keys)])

    assert said.code == 130
    assert "Cancel the job? Otherwise it goes on without you [y/N]" in said.out
    assert (CANCEL in story.paths("POST")) == is_cancelled
    assert (f"job {ID} was cancelled" in said.out) == is_cancelled


def test_a_body_that_is_refused_before_it_was_read_is_told_as_that(api, run):
    def refuse(handler):
        handler.connection.sendall(
            b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 64\r\n\r\n"
            + json.dumps({"success": False, "message": "too large", "code": "TOO"}).encode().ljust(64)
        )
        handler.close_connection = True

    api.before_body[JOBS] = refuse

    assert run("jobs", "submit", "-", input=b"x" * 3_000_000) == (1, "", "error: too large\n")
