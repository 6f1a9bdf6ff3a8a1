"""`run` as a process: what is asked of the API, what is shown where, how it exits."""

import base64
import json
import os
import signal

import gevent
import pytest

from tests.unit.ctl.fake_api import NOT_FOUND, agent, begin_stream, end_stream, frame, send_line
from tests.unit.ctl.run_records import AGENT_ID, ID, SESSION_ID, STORY, events
from tests.unit.ctl.run_records import run as record

RUNS = "/api/v1/runs"
RUN = f"{RUNS}/{ID}"
EVENTS = f"{RUN}/events"
CANCEL = f"{RUN}/cancel"


@pytest.fixture
def story(api):
    """A run that reads a file and answers."""
    api.on("POST", RUNS, record("queued"), status=202)
    api.on("GET", RUN, record())
    api.on("GET", "/system/ping", {})
    api.on_events(EVENTS, *STORY)
    return api


def test_the_answer_is_on_stdout_and_what_the_agent_does_on_stderr(story, run):
    said = run("run", "web", "Fix the tests")

    assert (said.code, said.out) == (0, "Fixed.\n")
    assert said.err.splitlines() == [
        f"--- run {ID} on web ---",
        "> read_file add.py",
        "  | a - b",
        "--- completed in 4.5 s: 3 steps, 512 tokens in, 80 out, $0.0123 ---",
    ]
    assert story.asked[0].json == {"agent_id": "web", "input": "Fix the tests"}
    assert len(story.asked[0].headers["Idempotency-Key"]) == 32
    assert [asked.headers["Accept"] for asked in story.asked if asked.path == EVENTS] == ["text/event-stream"]


def test_on_one_terminal_they_come_in_order_and_never_on_one_line(story, run_on_terminal):
    said = run_on_terminal("run", "web", "Fix the tests", env={"NO_COLOR": "1"})

    assert said.out.splitlines() == [
        f"--- run {ID} on web ---",
        "> read_file add.py",
        "  | a - b",
        "Fixed.",
        "--- completed in 4.5 s: 3 steps, 512 tokens in, 80 out, $0.0123 ---",
    ]


def test_in_one_pipe_too(story, start):
    import subprocess

    process = start("run", "web", "x", stderr=subprocess.STDOUT)

    assert process.communicate(timeout=30)[0].decode().splitlines()[1:4] == [
        "> read_file add.py",
        "  | a - b",
        "Fixed.",
    ]


def test_text_is_shown_when_it_comes(story, start):
    story.forget("GET", EVENTS)
    story.on_raw("GET", EVENTS, endless(*STORY[:7]))
    process = start("run", "web", "x")

    assert process.stdout.read(3) == b"Fix"
    process.kill()


def test_every_option_is_in_the_request(story, run, tmp_path):
    (tmp_path / "shot.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")

    said = run(
        "run", "web", "-", "--session", SESSION_ID, "--image", "shot.png", "--image", "https://example.org/a.jpg",
        "--timeout", "2m", "--max-steps", "30", "--max-cost", "0.5", "--model", "small", "--on-busy", "reject",
        input="a long\nprompt ü\n".encode(),
    )  # fmt: skip

    assert said.code == 0
    assert story.asked[0].json == {
        "agent_id": "web",
        "input": "a long\nprompt ü",
        "session_id": SESSION_ID,
        "media": [
            {
                "type": "image",
                "url": "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\nrest").decode(),
                "content_type": "image/png",
                "name": "shot.png",
            },
            {"type": "image", "url": "https://example.org/a.jpg"},
        ],
        "limits": {"wall_s": 120.0, "steps": 30, "cost_usd": 0.5},
        "model": "small",
        "on_busy": "reject",
    }


def test_a_prompt_of_a_megabyte_goes_through_stdin(story, run):
    assert run("run", "web", "-", input=b"x" * 1024 * 1024).code == 0
    assert len(story.asked[0].json["input"]) == 1024 * 1024


@pytest.mark.parametrize(
    ("name", "content", "code", "said"),
    [
        ("none.png", None, 3, "no file 'none.png'"),
        ("text.png", b"hello", 2, "is no image"),
        ("large.png", b"\x89PNG\r\n\x1a\n" + bytes(7 * 1024 * 1024), 1, "is larger than 7 MiB"),
        (".", None, 1, "Is a directory"),
        ("pipe", "pipe", 2, "is not a file"),
    ],
)
def test_an_image_that_can_not_be_sent_is_refused_before_anything_is_asked(
    api, run, tmp_path, name, content, code, said
):
    if content == "pipe":
        os.mkfifo(tmp_path / name)
    elif content is not None:
        (tmp_path / name).write_bytes(content)

    done = run("run", "web", "look", "--image", name)

    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert not api.asked


def test_a_prompt_that_is_no_text_is_refused(api, run):
    done = run("run", "web", "-", input=b"caf\xe9")

    assert done.code == 2
    assert "is not UTF-8: byte 3 is 0xe9" in done.err
    assert not api.asked


def test_as_json_it_is_the_run_at_its_end(story, run):
    done = run("run", "web", "x", "-o", "json")

    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == record()


def test_as_json_stream_each_event_is_a_line(story, run):
    done = run("run", "web", "x", "-o", "json", "--stream")

    assert [json.loads(line) for line in done.out.splitlines()] == STORY


def test_without_a_stream_only_the_answer_comes(story, run):
    done = run("run", "web", "x", "--no-stream")

    assert (done.code, done.out) == (0, "Fixed.\n")
    assert "read_file" not in done.err


def test_quietly_it_is_the_id(story, run):
    assert run("run", "web", "x", "-q") == (0, f"{ID}\n", "")


def test_detached_it_is_the_id_at_once(api, run):
    api.on("POST", RUNS, record("queued"), status=202)

    done = run("run", "--detach", "web", "x")

    assert (done.code, done.out) == (0, f"{ID}\n")
    assert f"agentainerctl runs attach {ID}" in done.err
    assert len(api.asked) == 1
    assert json.loads(run("run", "-d", "web", "x", "-o", "json").out) == record("queued")


@pytest.mark.parametrize(
    ("status", "error", "code", "said"),
    [
        ("failed", {"code": "error", "message": "no such model"}, 9, f"run {ID} on web failed: no such model"),
        (
            "failed",
            {"code": "step_limit", "message": "30 steps"},
            9,
            "failed (step_limit): 30 steps\nhint: give it more steps",
        ),
        ("cancelled", {"code": "cancelled", "message": "by a user"}, 10, f"run {ID} was cancelled"),
    ],
)
def test_a_run_that_did_not_complete_has_an_exit_code_of_its_own(story, run, status, error, code, said):
    story.forget("GET", RUN)
    story.on("GET", RUN, record(status, error=error))

    done = run("run", "web", "x")

    assert (done.code, done.out) == (code, "Fixed.\n")
    assert said in done.err
    as_json = run("run", "web", "x", "-o", "json")
    assert as_json.code == code
    assert json.loads(as_json.out)["status"] == status
    assert json.loads(as_json.err)["details"] == {"run_id": ID, "reason": error["code"]}


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (
            {"status": 409, "code": "SESSION_BUSY", "message": "the session has a run under way"},
            4,
            "has a run under way",
        ),
        ({"status": 404, "code": "SESSION_NOT_FOUND", "message": "Session not found: s"}, 3, "Session not found"),
        ({"status": 400, "code": "INVALID_PARAMETER", "message": "input: is empty"}, 2, "input: is empty"),
        ({"status": 429, "code": "TOO_MANY_RUNS", "message": "1000 runs are under way"}, 1, "1000 runs"),
    ],
)
def test_a_refusal_is_told(api, run, answer, code, said):
    api.on("POST", RUNS, **answer)

    done = run("run", "web", "x", "--session", "s")

    assert (done.code, done.out) == (code, "")
    assert said in done.err


def test_the_beginning_of_an_agents_id_will_do(story, run):
    story.forget("POST", RUNS)
    story.on("POST", RUNS, **NOT_FOUND)
    story.on("POST", RUNS, record("queued"), status=202)
    story.on("GET", "/agents", [agent()])

    assert run("run", "agent-0000", "x").code == 0
    assert [asked.json["agent_id"] for asked in story.asked if asked.path == RUNS] == [
        "agent-0000",
        "agent-00000000000000a1",
    ]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"status": "stopped"}, "--- web is stopped; the run waits for it: agentainerctl start web ---"),
        ({"status": "paused"}, "--- web is paused; the run waits for it: agentainerctl resume web ---"),
        ({"status": "stopped", "reason": "idle"}, ""),
        ({"status": "running"}, ""),
    ],
)
def test_what_a_run_waits_for_is_told(story, run, state, said):
    story.on("GET", f"/agents/{AGENT_ID}", agent(**state))

    err = run("run", "web", "x").err

    assert said in err
    assert ("waits" in err) == bool(said)


def test_an_agent_that_is_not_there_is_said_to_be_so(api, run):
    api.on("GET", "/agents", [agent()])

    done = run("run", "wbe", "x")

    assert done.code == 3
    assert "did you mean 'web'?" in done.err


def test_no_control_character_of_an_agent_reaches_the_terminal(story, run_on_terminal):
    story.forget("GET", EVENTS)
    nasty = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "\x1b[2J\x1b]0;owned\x07\rgone\u202e"}
    story.on_events(EVENTS, *events(nasty, {"type": "RUN_FINISHED"}))

    said = run_on_terminal("run", "web", "x", env={"NO_COLOR": "1"})

    assert r"\x1b[2J\x1b]0;owned\x07\rgone\u202e" in said.out
    assert not [char for char in said.out if not char.isprintable() and char != "\n"]


# What breaks on the way


def test_a_stream_that_breaks_is_gone_on_with_where_it_was(story, run):
    story.forget("GET", EVENTS)
    story.on_events(EVENTS, *STORY[:7], frame(STORY[7])[:40], ConnectionError())
    story.on_events(EVENTS, *STORY[5:8])  # a daemon that sends again what was seen, and stops in good order
    story.on_events(EVENTS, b": still here\n", *STORY[8:])

    done = run("run", "web", "x")

    assert (done.code, done.out) == (0, "Fixed.\n")
    assert done.err.count("the connection to agentainerd broke; reconnecting") == 2
    assert [asked.query["after"] for asked in story.asked if asked.path == EVENTS] == [["0"], ["7"], ["8"]]


def test_a_daemon_that_is_starting_is_waited_for(story, run):
    story.forget("GET", EVENTS)
    story.on_events(EVENTS, *STORY[:3], ConnectionError())
    story.on("GET", EVENTS, status=503, code="STORE_UNAVAILABLE", message="Redis is starting")
    story.on_raw("GET", EVENTS, lambda handler, _: handler.connection.close())
    story.on_events(EVENTS, *STORY[3:])

    assert run("run", "web", "x")[:2] == (0, "Fixed.\n")


def test_a_start_whose_answer_is_lost_is_made_again_under_the_same_key(story, run):
    story.forget("POST", RUNS)
    story.on_raw("POST", RUNS, lambda handler, _: handler.connection.close())
    story.on("POST", RUNS, record("queued"), status=202)

    assert run("run", "web", "x").code == 0
    first, second = [asked.headers["Idempotency-Key"] for asked in story.asked if asked.path == RUNS]
    assert first == second


def test_a_run_that_is_gone_meanwhile_is_an_error(story, run):
    story.forget("GET", EVENTS)
    story.on_events(EVENTS, *STORY[:3], ConnectionError())
    story.on("GET", EVENTS, status=404, code="RUN_NOT_FOUND", message="Run not found")

    assert run("run", "web", "x").code == 3


def test_without_a_daemon_nothing_is_waited_for(run):
    done = run("run", "web", "x")

    assert done.code == 5
    assert "agentainerd is not running" in done.err


# Ctrl-C


def endless(*some):
    """Answer with some events, and then with nothing for a long time."""

    def answer(handler, _):
        begin_stream(handler, "text/event-stream")
        for event in some:
            send_line(handler, frame(event))
        gevent.sleep(20)
        end_stream(handler)

    return answer


def test_without_a_person_an_interrupt_leaves_the_run(story, start):
    story.forget("GET", EVENTS)
    story.on_raw("GET", EVENTS, endless(*STORY[:8]))
    process = start("run", "web", "x")
    assert process.stdout.read(3) == b"Fix"

    process.send_signal(signal.SIGINT)

    assert process.wait(10) == 130
    assert f"the run goes on: agentainerctl runs attach {ID}".encode() in process.stderr.read()
    assert CANCEL not in story.paths("POST")


@pytest.fixture
def unfinished(story):
    """A run that ends as cancelled when it is asked to, and else not."""
    ended = events({"type": "RUN_ERROR", "message": "cancelled", "code": "cancelled"}, first=9)
    story.forget("GET", EVENTS)
    story.on_raw("GET", EVENTS, endless(*STORY[:8]))
    story.on_events(EVENTS, *ended)
    story.on("POST", CANCEL, record("cancelling"), cancelled=True)
    story.forget("GET", RUN)
    story.on("GET", RUN, record("cancelled", error={"code": "cancelled", "message": ""}))
    return story


def test_a_person_is_asked_and_may_cancel(unfinished, run_on_terminal):
    said = run_on_terminal("run", "web", "x", answers=[(b"Fixed.", b"\x03"), (b"[y/N]", b"y\n")])

    assert said.code == 10
    assert "Cancel the run? Otherwise it goes on without you [y/N]" in said.out
    assert f"run {ID} was cancelled" in said.out
    assert [asked.json for asked in unfinished.asked if asked.path == CANCEL] == [{"mode": "interrupt"}]
    assert unfinished.asked[-2].query == {"after": ["8"]}


def test_a_person_sees_that_something_is_awaited(unfinished, run_on_terminal):
    unfinished.forget("GET", EVENTS)
    unfinished.on_raw("GET", EVENTS, endless(*STORY[:4]))

    said = run_on_terminal("run", "web", "x", answers=[(b"web is working ... 1 s", b"\x03"), (b"[y/N]", b"n\n")])

    assert said.code == 130
    assert "\x1b[1A\r\x1b[J\nCancel the run?" in said.out


@pytest.mark.parametrize("keys", [b"n\n", b"\n", b"\x03", b"\x04"])
def test_or_may_leave_it_running(unfinished, run_on_terminal, keys):
    said = run_on_terminal("run", "web", "x", answers=[(b"Fixed.", b"\x03"), (b"[y/N]", keys)])

    assert said.code == 130
    assert f"the run goes on: agentainerctl runs attach {ID}" in said.out
    assert CANCEL not in unfinished.paths("POST")


def test_after_that_an_interrupt_leaves_without_a_question(unfinished, run_on_terminal):
    unfinished.forget("GET", EVENTS)
    unfinished.on_raw("GET", EVENTS, endless(*STORY[:8]))
    unfinished.on_raw("GET", EVENTS, endless(*events({"type": "TEXT_MESSAGE_CONTENT", "delta": "going"}, first=9)))
    keys = [(b"Fixed.", b"\x03"), (b"[y/N]", b"y\n"), (b"going", b"\x03")]

    said = run_on_terminal("run", "web", "x", answers=keys)

    assert (said.code, said.out.count("[y/N]")) == (130, 1)
