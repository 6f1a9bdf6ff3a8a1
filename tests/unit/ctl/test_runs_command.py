"""`runs list show events attach cancel` as a process."""

import json

import pytest

from tests.unit.ctl.run_records import ID, STORY, events
from tests.unit.ctl.run_records import run as record

RUNS = "/api/v1/runs"
RUN = f"{RUNS}/{ID}"
EVENTS = f"{RUN}/events"
CANCEL = f"{RUN}/cancel"
NOT_THERE = {"status": 404, "code": "RUN_NOT_FOUND", "message": f"Run not found: {ID}"}


def test_runs_are_listed(api, run):
    failed = record(
        "failed", error={"code": "timeout", "message": "took more than 60 s"}, steps=0, usage={}, session_id="s1"
    )
    api.on("GET", RUNS, [record("running", finished_at=None), failed])

    said = run("runs", "list", "--agent", "web", "--status", "failed", "--session", "s1", "-n", "5", "--cursor", "c")

    head, first, second = said.out.splitlines()
    assert head.split() == ["ID", "AGENT", "STATUS", "CREATED", "INPUT"]
    assert first.split()[:3] == [ID, "web", "running"]
    assert first.endswith(" ago   Fix the tests")
    assert "failed" in second
    assert api.asked[0].query == {
        "agent_id": ["web"], "status": ["failed"], "session_id": ["s1"], "limit": ["5"], "cursor": ["c"],
    }  # fmt: skip
    wide = run("runs", "list", "-o", "wide").out.splitlines()
    assert wide[0].split()[-5:] == ["TOKENS", "COST", "TOOK", "SESSION", "ERROR"]
    assert "512 in, 80 out   $0.0123" in wide[1]
    assert wide[2].endswith("   took more than 60 s")


def test_what_was_asked_is_one_harmless_line(api, run):
    api.on("GET", RUNS, [record(input="one\ntwo \x1b[2J" + "x" * 500)])

    line = run("runs", "list").out.splitlines()[1]

    assert "one two \\x1b[2J" in line
    assert len(line) < 250


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), 'No runs yet. Begin one: agentainerctl run AGENT "PROMPT"\n'), (("--status", "failed"), "No such runs.\n")],
)
def test_no_runs(api, run, arguments, said):
    api.on("GET", RUNS, [])

    assert run("runs", "list", *arguments) == (0, said, "")


def test_there_are_more(api, run):
    api.on("GET", RUNS, [record()], next_cursor="abc")

    assert (
        run("runs", "list", "--agent", "web").err
        == "There are more: agentainerctl runs list --agent web --cursor abc\n"
    )
    assert run("runs", "list", "-q") == (0, f"{ID}\n", "")
    assert json.loads(run("runs", "list", "-o", "json").out) == [record()]


def test_a_run_is_shown_whole(api, run):
    api.on(
        "GET",
        RUN,
        record("failed", error={"code": "stuck", "message": "did the same"}, limits={"steps": 5, "wall_s": 90}),
    )

    said = run("runs", "show", ID)

    assert said.code == 0
    assert "Status:  failed" in said.out
    assert "Error:   did the same (stuck)" in said.out
    assert "Limits:  5 steps, 1 minute" in said.out
    assert "Took:    4.5 s" in said.out
    assert said.out.endswith("Input:\n  Fix the\n  tests\nAnswer:\n  Fixed.\n")
    assert json.loads(run("runs", "show", ID, "-o", "json").out)["status"] == "failed"


def test_a_run_that_is_not_there(api, run):
    api.on("GET", RUN, **NOT_THERE)

    for command in ("show", "attach"):
        done = run("runs", command, ID)
        assert (done.code, done.out) == (3, "")
        assert "Run not found" in done.err


def test_events_are_a_line_each(api, run):
    last = {
        **events({"type": "RUN_ERROR", "message": "\x1b[31mno", "code": "interrupted"}, first=3)[0],
        "synthetic": True,
    }
    api.on("GET", EVENTS, [*STORY[:2], last])
    api.on("GET", EVENTS, [])

    said = run("runs", "events", ID)

    assert [line.split() for line in said.out.splitlines()] == [
        ["1", "2026-01-01T10:00:00.000Z", "RUN_STARTED", f"threadId={ID}", f"runId={ID}"],
        ["2", "2026-01-01T10:00:00.000Z", "TOOL_CALL_START", "toolCallId=c", "toolCallName=read_file"],
        [
            "3",
            "2026-01-01T10:00:00.000Z",
            "RUN_ERROR",
            "message=\\x1b[31mno",
            "code=interrupted",
            "(by",
            "agentainerd)",
        ],
    ]
    assert [asked.query["after"] for asked in api.asked] == [["0"], ["3"]]


def test_events_of_a_type_as_lines_of_json(api, run):
    api.on("GET", EVENTS, STORY)
    api.on("GET", EVENTS, [])

    said = run("runs", "events", ID, "--type", "TOOL_CALL_END", "--type", "RUN_FINISHED", "-o", "json")

    assert [json.loads(line)["seq"] for line in said.out.splitlines()] == [4, 10]
    assert run("runs", "events", ID, "--after", "10") == (0, "", "No such events.\n")


def test_events_are_followed_to_the_end_of_the_run(api, run):
    api.on_events(EVENTS, *STORY[2:])

    said = run("runs", "events", ID, "--follow", "--after", "2", "-q")

    assert said.out.split() == [str(number) for number in range(3, 11)]
    assert api.asked[0].query == {"after": ["2"]}


def test_of_a_run_that_has_ended_the_last_event_is_told_to_those_who_have_seen_it_too(api, run):
    api.on_events(EVENTS, STORY[-1])

    assert run("runs", "events", ID, "--follow", "--after", "10") == (0, "", "No such events.\n")
    assert len(api.asked) == 1


def test_a_run_that_has_ended_is_told_from_its_beginning(api, run):
    api.on("GET", RUN, record())
    api.on_events(EVENTS, *STORY)

    said = run("runs", "attach", ID)

    assert (said.code, said.out) == (0, "Fixed.\n")
    assert "> read_file add.py" in said.err


def test_a_run_that_has_failed_has_its_exit_code_when_it_is_joined(api, run):
    api.on("GET", RUN, record("failed", error={"code": "timeout", "message": "60 s"}))
    api.on_events(EVENTS, *STORY[:5], *events({"type": "RUN_ERROR"}, first=6))

    assert run("runs", "attach", ID).code == 9


def test_runs_are_cancelled(api, run):
    api.on("POST", CANCEL, record("cancelled"), cancelled=True)
    api.on("POST", CANCEL, record("completed"), cancelled=False)

    assert run("runs", "cancel", ID) == (0, f"Run {ID} cancelled\n", "")
    assert run("runs", "cancel", "--kill", ID) == (0, f"Run {ID} had ended before: completed\n", "")
    assert [asked.json for asked in api.asked] == [{"mode": "interrupt"}, {"mode": "kill"}]


def test_of_several_one_may_not_be_there(api, run):
    api.on("POST", CANCEL, record("cancelling"), cancelled=True)
    api.on("POST", f"{RUNS}/other/cancel", **NOT_THERE)

    said = run("runs", "cancel", "other", ID)

    assert (said.code, said.out) == (8, f"Run {ID} is being cancelled\n")
    assert "Run not found" in said.err


def test_a_job_whose_turn_has_not_come_is_attached_to(api, run):
    api.on("GET", RUN, record("queued", kind="job", agent_id="", agent=""))
    api.on("GET", RUN, record())
    api.on_events(EVENTS, *STORY)

    assert run("runs", "attach", ID).out == "Fixed.\n"
