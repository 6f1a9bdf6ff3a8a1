"""`jobs list show logs events cancel download rm open webhook templates` against an API that the test makes up."""

import hashlib
import json
import os
import re
import signal

import pytest
from gevent.event import Event

from tests.unit.ctl.fake_api import send
from tests.unit.ctl.run_records import ID, STORY, job

JOBS = "/api/v1/jobs"
JOB = f"{JOBS}/{ID}"
SHORT = ID[:8]
LOGS = f"{JOB}/logs"
CANCEL = f"{JOB}/cancel"
DOWNLOAD = f"{JOB}/download"
NOT_THERE = {
    "status": 404,
    "code": "JOB_NOT_FOUND",
    "message": "Job not found: 5b1f",
    "hint": "agentainerctl jobs list",
}
ZIP = bytes(range(256)) * 1000


@pytest.fixture
def run(run_here):
    return run_here


def test_jobs_are_listed_with_short_ids(api, run):
    waiting = job("queued", position=4, started_at=None, finished_at=None, image="x", prompt="a\nb \x1b[2J" + "x" * 500)
    failed = job("failed", exit_code=3, error={"code": "error", "message": "exit 3"}, usage={}, priority=5)
    api.on("GET", JOBS, [waiting, job(), failed])

    head, first, second, third = run("jobs", "list", "--status", "failed", "-n", "5", "--cursor", "c").out.splitlines()

    assert head.split() == ["ID", "IMAGE", "STATUS", "CREATED", "TOOK", "PROMPT"]
    assert first.split()[:5] == [SHORT, "x", "queued", "(#4)", first.split()[4]]
    assert "a b \\x1b[2J" in first
    assert len(first) < 200
    assert second.split()[:3] == [SHORT, "my-agent:1.0", "completed"]
    assert second.endswith(" ago   4.5 s   Fix the tests")
    assert "failed (3)" in third
    assert api.asked[0].query == {"status": ["failed"], "limit": ["5"], "cursor": ["c"]}
    wide = run("jobs", "list", "-o", "wide").out.splitlines()
    assert wide[0].split()[-6:] == ["PRIORITY", "ATTEMPT", "SUBMITTER", "COST", "EXPIRES", "ERROR"]
    assert wide[2].startswith(f"{ID}   ")
    assert wide[3].endswith("   exit 3")


def test_one_that_is_held_back_says_for_how_long(api, run):
    api.on("GET", JOBS, [job("queued", position=2, after="2126-01-01T10:00:00.000Z")])

    assert re.search(r" queued \(in \d+ \w+\) ", run("jobs", "list").out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), 'No jobs yet. Submit one: agentainerctl jobs submit "PROMPT"\n'),
        (("--status", "failed"), "No such jobs.\n"),
        (("-q",), ""),
        (("-o", "json"), "[]\n"),
    ],
)
def test_no_jobs(api, run, arguments, said):
    api.on("GET", JOBS, [])

    assert run("jobs", "list", *arguments) == (0, said, "")


def test_there_are_more(api, run):
    api.on("GET", JOBS, [job()], next_cursor="abc")

    said = run("jobs", "list", "--status", "completed", "-n", "1")

    assert said.err == "There are more: agentainerctl jobs list --status completed --limit 1 --cursor abc\n"
    assert run("jobs", "list", "-q") == (0, f"{ID}\n", "")
    assert json.loads(run("jobs", "list", "-o", "json").out) == [job()]


def test_a_job_is_shown_whole_by_the_beginning_of_its_id(api, run):
    shown = job(
        "failed",
        error={"code": "oom", "message": "it ran out of memory"},
        attempt=2,
        exit_code=137,
        expires_at="2026-01-02T10:00:00.000Z",
        webhook={"url": "https://x.example/h", "state": "dead", "attempts": 5, "last_error": "HTTP 500"},
    )
    api.on("GET", f"{JOBS}/{SHORT}", shown)

    said = run("jobs", "show", SHORT)

    assert said.code == 0
    facts = {line.partition(":")[0]: line.partition(":")[2].strip() for line in said.out.splitlines()}
    assert facts["ID"] == ID
    assert facts["Status"] == "failed (137)"
    assert facts["Error"] == "it ran out of memory (oom)"
    assert facts["Attempt"] == "2"
    assert facts["Limits"] == "30 minutes, 2 GiB of memory, 1 CPU, 512 processes, 4 GiB of disk"
    assert facts["Kept"].startswith("expired ")
    assert facts["Webhook"] == "dead after 5 attempts: HTTP 500 (https://x.example/h)"
    assert "Priority" not in facts
    assert said.out.endswith("Prompt:\n  Fix the\n  tests\nAnswer:\n  Fixed.\n")
    assert json.loads(run("jobs", "show", SHORT, "-o", "json").out) == shown


@pytest.mark.parametrize("arguments", [("show",), ("logs",), ("events",), ("cancel",), ("download",), ("rm", "-f")])
def test_a_job_that_is_not_there(api, run, arguments):
    api.on("GET", f"{JOBS}/5b1f", **NOT_THERE)

    said = run("jobs", *arguments, "5b1f")

    assert (said.code, said.out) == (3, "")
    assert said.err == "error: Job not found: 5b1f\nhint: agentainerctl jobs list\n"
    assert [asked.path for asked in api.asked] == [f"{JOBS}/5b1f"]


@pytest.mark.parametrize("ref", ["", "..", "a/b", "x" * 35 + "/"])
def test_what_cannot_be_an_id_is_no_job(api, run, ref):
    assert run("jobs", "show", ref).code == run("jobs", "download", ref).code == 3
    assert api.asked == []


# ---- logs


def said_by(*pieces):
    return [{"stream": stream, "data": data} for stream, data in pieces]


def test_both_streams_go_to_their_own_file_descriptors_as_they_are(api, start):
    api.on_lines("GET", LOGS, *said_by(("stdout", "out \x1b[1m\udcff\n"), ("stderr", "err\u00e9")))

    process = start("jobs", "logs", "--stream", "stdout", "--tail", "7", ID)

    assert process.communicate(timeout=30) == (b"out \x1b[1m\xff\n", b"err\xc3\xa9")
    assert api.asked[-1].query == {"stream": ["stdout"], "tail": ["7"]}


def test_following_goes_on_where_it_was_when_the_connection_breaks_and_when_the_job_is_run_again(api, run):
    api.on_lines("GET", LOGS, *said_by(("stdout", "one\n"), ("stderr", "err 1\n")), ConnectionResetError())
    pieces = (("stdout", "on"), ("stderr", "err 1\nerr 2\n"), ("stdout", "e\ntwo\n"))
    api.on_lines("GET", LOGS, *said_by(*pieces))
    api.on_lines("GET", LOGS, *said_by(*pieces, ("stdout", "again\n")))
    api.on("GET", JOB, job("running", attempt=2))
    api.on("GET", JOB, job())
    api.on("GET", "/system/ping", {})

    said = run("jobs", "logs", "--follow", ID)

    assert said == (0, "one\ntwo\nagain\n", "err 1\nerr 2\n")
    assert [asked.query for asked in api.asked if asked.path == LOGS] == [{"follow": ["true"]}] * 4


def test_what_is_written_between_the_end_of_a_log_and_that_of_the_job_is_shown(api, run):
    api.on_lines("GET", LOGS)
    api.on_lines("GET", LOGS, *said_by(("stdout", "late\n")))
    api.on("GET", JOB, job())

    assert run("jobs", "logs", "--follow", ID) == (0, "late\n", "")


@pytest.mark.parametrize(("tail", "shown"), [("0", "e\n"), ("2", "c\nd\ne\n"), ("9", "a\nb\nc\nd\ne\n")])
def test_following_from_the_last_lines(api, run, tail, shown):
    api.on_lines("GET", LOGS, *said_by(("stdout", "a\nb"), ("stdout", "\nc\nd\n")))
    api.on_lines("GET", LOGS, *said_by(("stdout", "a\nb"), ("stdout", "\nc\nd\ne\n")))
    api.on("GET", JOB, job())

    assert run("jobs", "logs", "-f", "--tail", tail, "--stream", "stdout", ID) == (0, shown, "")


# ---- events


def test_events_are_those_of_the_run(api, run):
    api.on("GET", f"/api/v1/runs/{ID}/events", STORY[:2])
    api.on("GET", f"/api/v1/runs/{ID}/events", [])

    lines = run("jobs", "events", "--type", "RUN_STARTED", ID).out.splitlines()

    assert [line.split()[2] for line in lines] == ["RUN_STARTED"]


# ---- cancel, rm


def test_several_are_cancelled_each_with_its_line(api, run):
    other = "0" + ID[1:]
    api.on("GET", f"{JOBS}/{SHORT}", job("running"))
    api.on("POST", CANCEL, job("cancelling"), cancelled=True)
    api.on("POST", f"{JOBS}/{other}/cancel", job("completed", id=other), cancelled=False)

    said = run("jobs", "cancel", "--kill", SHORT, other)

    assert said.out == f"Job {SHORT} is being cancelled\nJob {other} had ended before: completed\n"
    assert [asked.json for asked in api.asked if asked.method == "POST"] == [{"mode": "kill"}] * 2


def test_removing_is_asked_for_first(api, run, run_on_terminal):
    api.on("DELETE", JOB, {"id": ID})

    refused = run("jobs", "rm", ID)
    assert (refused.code, refused.err) == (2, f"error: refusing to remove job {ID}\nhint: add --force\n")
    assert run_on_terminal("jobs", "rm", ID, typed=b"n\n").code == 2
    assert api.asked == []
    assert f"Job {ID} removed" in run_on_terminal("jobs", "rm", ID, typed=b"y\n").out
    assert run("jobs", "rm", "--force", "-q", ID) == (0, f"{ID}\n", "")


def test_a_job_that_runs_is_not_removed(api, run):
    api.on("DELETE", JOB, status=409, code="JOB_ACTIVE", message="job is running", hint="cancel it")

    assert run("jobs", "rm", "-f", ID).code == 4


# ---- download


class Archive:
    """A ZIP behind GET and HEAD. `cut`: after how many bytes of an answer the connection breaks, one number for each."""

    def __init__(self, api, content=ZIP, etag='"v1"', cut=()):
        self.content, self.etag, self.cut = content, etag, list(cut)
        self.ranges = []
        api.on_raw("GET", DOWNLOAD, self.get)
        api.on("GET", "/system/ping", {})

    def get(self, handler, asked):
        given = asked.headers.get("Range", "")
        first = int(given[6:-1]) if given and asked.headers["If-Range"] == self.etag else 0
        self.ranges.append(given)
        part = self.content[first:]
        self._begin(handler, 206 if first else 200, len(part))
        if self.cut:
            part, handler.close_connection = part[: self.cut.pop(0)], True
        handler.wfile.write(part)

    def _begin(self, handler, status, length):
        handler.send_response(status)
        handler.send_header("Content-Type", "application/zip")
        handler.send_header("Content-Length", str(length))
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.end_headers()


def left(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "agentainer.sock")


def test_the_zip_is_a_file_with_the_name_of_the_job(api, run, tmp_path):
    Archive(api)

    assert run("jobs", "download", ID) == (0, f"job-{SHORT}.zip (256 kB)\n", "")
    assert (tmp_path / f"job-{SHORT}.zip").read_bytes() == ZIP
    assert left(tmp_path) == [f"job-{SHORT}.zip"]


@pytest.mark.parametrize("target", ["sub/", "there", "sub/x.zip"])
def test_the_zip_goes_where_it_is_told_to(api, run, tmp_path, target):
    Archive(api)
    (tmp_path / "there").mkdir()

    said = run("jobs", "download", "-o", target, "--json", ID)

    file = target if target.endswith(".zip") else f"{target.rstrip('/')}/job-{SHORT}.zip"
    assert json.loads(said.out) == {"id": ID, "file": file, "size": len(ZIP)}
    assert (tmp_path / file).read_bytes() == ZIP


def test_the_zip_can_be_standard_output(api, start):
    Archive(api)

    process = start("jobs", "download", "-o", "-", ID)

    assert process.communicate(timeout=30) == (ZIP, b"")


def test_what_is_there_is_not_written_over(api, run, tmp_path):
    Archive(api)
    (tmp_path / "x.zip").write_bytes(b"mine")

    said = run("jobs", "download", "-o", "x.zip", ID)

    assert (said.code, said.out) == (4, "")
    assert said.err == "error: there is a file 'x.zip' already\nhint: --force writes over it\n"
    assert (tmp_path / "x.zip").read_bytes() == b"mine"
    assert run("jobs", "download", "-o", "x.zip", "--force", ID).code == 0
    assert (tmp_path / "x.zip").read_bytes() == ZIP
    assert left(tmp_path) == ["x.zip"]


def test_what_comes_there_meanwhile_is_not_written_over_either(api, run, tmp_path):
    archive = Archive(api)
    original = archive.get

    def get(handler, asked):
        (tmp_path / "x.zip").write_bytes(b"mine")
        original(handler, asked)

    api.forget("GET", DOWNLOAD)
    api.on_raw("GET", DOWNLOAD, get)

    assert run("jobs", "download", "-o", "x.zip", ID).code == 4
    assert (tmp_path / "x.zip").read_bytes() == b"mine"


def test_a_connection_that_breaks_is_made_again(api, run, tmp_path):
    archive = Archive(api, cut=[1000, 70_000])

    assert run("jobs", "download", "-o", "x.zip", ID).code == 0
    assert archive.ranges == ["", "bytes=1000-", "bytes=71000-"]
    assert (tmp_path / "x.zip").read_bytes() == ZIP


def test_a_zip_that_changed_meanwhile_is_begun_again(api, run, tmp_path):
    archive = Archive(api, cut=[1000])
    api.forget("GET", DOWNLOAD)
    api.on_raw("GET", DOWNLOAD, archive.get)

    def changed(handler, asked):
        archive.content, archive.etag = ZIP[::-1], '"v2"'
        api.forget("GET", DOWNLOAD)
        api.on_raw("GET", DOWNLOAD, archive.get)
        archive.get(handler, asked)

    api.on_raw("GET", DOWNLOAD, changed)

    assert run("jobs", "download", "-o", "x.zip", ID).code == 0
    assert archive.ranges == ["", "bytes=1000-"]
    assert (tmp_path / "x.zip").read_bytes() == ZIP[::-1]


def test_without_an_etag_nothing_is_gone_on_with(api, run, tmp_path):
    archive = Archive(api, etag="", cut=[1000])

    assert run("jobs", "download", "-o", "x.zip", ID).code == 0
    assert archive.ranges == ["", ""]
    assert (tmp_path / "x.zip").read_bytes() == ZIP


def partial(folder, etag='"v1"', name="x.zip"):
    return folder / f".{name}.{hashlib.sha256(etag.encode()).hexdigest()[:16]}.part"


@pytest.mark.parametrize("kept", [1000, len(ZIP)])
def test_the_same_command_goes_on_with_what_another_one_left(api, run, tmp_path, kept):
    archive = Archive(api)
    partial(tmp_path).write_bytes(ZIP[:kept])

    assert run("jobs", "download", "-o", "x.zip", ID).code == 0
    assert archive.ranges == ["", *([f"bytes={kept}-"] if kept < len(ZIP) else [])]
    assert (tmp_path / "x.zip").read_bytes() == ZIP


def test_ctrl_c_leaves_what_has_come_and_no_file(api, start, tmp_path, eventually):
    sent = Event()
    archive = Archive(api)

    def hang(handler, asked):
        archive._begin(handler, 200, len(ZIP))
        handler.wfile.write(ZIP[:100_000])
        handler.wfile.flush()
        sent.wait(20)

    api.forget("GET", DOWNLOAD)
    api.on_raw("GET", DOWNLOAD, hang)
    process = start("jobs", "download", "-o", "x.zip", ID)
    eventually(lambda: partial(tmp_path).exists() and partial(tmp_path).stat().st_size)

    process.send_signal(signal.SIGINT)

    assert process.wait(20) == 130
    sent.set()
    assert not (tmp_path / "x.zip").exists()
    assert 0 < partial(tmp_path).stat().st_size <= 100_000


def test_a_link_in_the_place_of_what_has_come_is_not_followed(api, start, tmp_path):
    Archive(api)
    os.symlink(tmp_path / "elsewhere", partial(tmp_path))

    assert start("jobs", "download", "-o", "x.zip", ID).wait(30) == 1
    assert not (tmp_path / "elsewhere").exists()


def test_a_job_that_is_not_over_has_no_zip(api, run, tmp_path):
    api.on("GET", DOWNLOAD, status=409, code="JOB_ACTIVE", message="job is running", hint="wait for it")

    said = run("jobs", "download", ID)

    assert (said.code, said.err) == (4, "error: job is running\nhint: wait for it\n")
    assert left(tmp_path) == []


# ---- artifacts, open, webhook, templates


def entry(name, size=5):
    return {"name": name, "kind": "file", "size": size, "modified_at": "2026-01-01T10:00:00.000Z"}


def test_what_a_job_left_is_listed_page_by_page(api, run):
    api.on("GET", f"{JOB}/artifacts", {"artifacts": [entry("a\n.txt"), entry("b/c", 2000)]}, next_cursor="2")
    api.on("GET", f"{JOB}/artifacts", {"artifacts": [entry("d")]})

    lines = run("jobs", "artifacts", ID).out.splitlines()

    assert [line.split()[:4] for line in lines] == [
        ["NAME", "KIND", "SIZE", "MODIFIED"], ["a\\n.txt", "file", "5", "B"], ["b/c", "file", "2", "kB"], ["d", "file", "5", "B"],
    ]  # fmt: skip
    assert [asked.query for asked in api.asked] == [{}, {"cursor": ["2"]}]


def test_a_job_that_made_nothing(api, run):
    api.on("GET", f"{JOB}/artifacts", {"artifacts": []})

    assert run("jobs", "artifacts", ID).out == "It has made no files.\n"


def test_one_file_of_it_is_printed_as_it_is(api, start):
    api.on_raw("GET", f"{JOB}/artifacts/b/c%20d", lambda handler, _: send(handler, 200, b"\x00\xff", "x/y"))

    assert start("jobs", "artifacts", ID, "b/c d").communicate(timeout=30) == (b"\x00\xff", b"")


def test_a_running_job_is_opened(api, run):
    api.on("GET", JOB, job("running", agent=f"job-{SHORT}"))
    api.on("POST", f"/agents/job-{SHORT}/ports/open", [{"port": "gui", "url": "http://gui.x.localhost:8081/?t=1"}])

    assert run("jobs", "open", ID, "gui") == (0, "http://gui.x.localhost:8081/?t=1\n", "")
    assert api.asked[-1].query == {"port": ["gui"]}


@pytest.mark.parametrize(("status", "hint"), [("queued", "logs --follow"), ("completed", "show")])
def test_one_that_does_not_run_is_not(api, run, status, hint):
    api.on("GET", JOB, job(status))

    said = run("jobs", "open", ID)

    assert said.code == 4
    assert said.err == (
        f"error: job {ID} is {status}: it can be opened while it runs\nhint: agentainerctl jobs {hint} {SHORT}\n"
    )


def test_an_end_is_told_again(api, run):
    api.on("POST", f"{JOB}/webhook/retry", job())

    assert run("jobs", "webhook", "retry", ID) == (0, f"The end of job {ID} is told again\n", "")


TEMPLATE = {
    "name": "summarize",
    "description": "Sum up a page",
    "parameters": {
        "url": {"description": "Which", "required": True, "default": None, "choices": []},
        "sentences": {"description": "", "required": False, "default": "5", "choices": ["5", "9"]},
    },
    "file": "/etc/agentainer/templates/summarize.yaml",
}


def test_templates_are_listed_and_shown(api, run):
    api.on("GET", "/api/v1/templates", [TEMPLATE], problems=["bad.yaml: line 3: no prompt"])
    api.on("GET", "/api/v1/templates/summarize", {**TEMPLATE, "prompt": "Fetch ${url}\nnow"})

    listed = run("jobs", "templates")
    assert listed.out.splitlines()[1].split(maxsplit=3) == ["summarize", "url,", "sentences=5", "Sum up a page"]
    assert listed.err == "warning: bad.yaml: line 3: no prompt\n"
    assert run("jobs", "templates", "summarize").out.splitlines() == [
        "Name:        summarize",
        "Description: Sum up a page",
        "File:        /etc/agentainer/templates/summarize.yaml",
        "Parameters:",
        "  url: required - Which",
        "  sentences (5 | 9): else '5'",
        "Prompt:",
        "  Fetch ${url}",
        "  now",
    ]
