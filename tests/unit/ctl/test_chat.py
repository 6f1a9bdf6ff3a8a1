"""`chat` as a process, in a pipe and on a terminal."""

import json
import signal
import stat
import subprocess

import gevent
import pytest

from tests.unit.ctl.fake_api import NOT_FOUND, agent, begin_stream, end_stream, frame, send, send_line
from tests.unit.ctl.run_records import AGENT_ID, ID, MESSAGES, SESSION_ID, STORY, events, session
from tests.unit.ctl.run_records import run as record

RUNS = "/api/v1/runs"
SESSIONS = "/api/v1/sessions"
EVENTS = f"{RUNS}/{ID}/events"
PROMPT = b"web> "
SESSION = f"chat --session {SESSION_ID} web"


@pytest.fixture
def talk(api):
    """An agent that answers everything with "Fixed."."""
    api.on("GET", "/agents/web", agent(id=AGENT_ID))
    api.on("GET", "/system/ping", {})
    flat(api, "POST", SESSIONS, session(), 201)
    api.on("POST", RUNS, record("queued"), status=202)
    api.on("GET", f"{RUNS}/{ID}", record())
    api.on_events(EVENTS, *STORY)
    return api


def flat(api, method, path, body, status=200):
    api.on_raw(method, path, lambda handler, _: send(handler, status, json.dumps(body).encode()))


def asked(api, path=RUNS):
    return [each.json for each in api.asked if each.method == "POST" and each.path == path]


def test_each_line_of_a_pipe_is_something_said_in_one_session(talk, run):
    done = run("chat", "web", "--model", "small", input=b"Which tests fail?\n\nFix \\\nthem\n")

    assert (done.code, done.out) == (0, "Fixed.\nFixed.\n")
    assert asked(talk, SESSIONS) == [{"agent_id": AGENT_ID, "name": "Which tests fail?"}]
    said = {"agent_id": AGENT_ID, "session_id": SESSION_ID, "model": "small"}
    assert asked(talk) == [{**said, "input": "Which tests fail?"}, {**said, "input": "Fix \nthem"}]


def test_a_text_between_quotes_has_many_lines(talk, run):
    assert run("chat", "web", input=b'"""\none\n\n  two\\\n"""\n').code == 0
    assert asked(talk)[0]["input"] == "one\n\n  two\\"


def test_where_nothing_is_said_no_session_is_made(talk, run):
    assert run("chat", "web", input=b"\n/exit\nnot read\n") == (0, "", "")
    assert not asked(talk, SESSIONS)


def test_in_a_pipe_the_first_failure_ends_it(talk, run):
    talk.forget("POST", RUNS)
    talk.on("POST", RUNS, status=409, code="AGENT_PAUSED", message="web is paused")

    done = run("chat", "web", input=b"one\ntwo\n")

    assert done.code == 4
    assert len(asked(talk)) == 1


def test_an_image_goes_with_what_is_said_next(talk, run, tmp_path):
    (tmp_path / "a b.png").write_bytes(b"\x89PNG\r\n\x1a\n")

    assert run("chat", "web", input=b"/image a b.png\nlook\nand now\n").code == 0
    assert [len(each.get("media", ())) for each in asked(talk)] == [1, 0]
    assert run("chat", "web", input=b"/image\n").code == 2


def test_in_a_pipe_an_interrupt_ends_it(talk, start, eventually):
    process = start("chat", "web", stdin=subprocess.PIPE)
    process.stdin.write(b"one\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"Fixed.\n"
    eventually(lambda: f"{RUNS}/{ID}" in talk.paths("GET"))

    process.send_signal(signal.SIGINT)

    assert process.wait(10) == 130


def test_what_is_no_text_is_refused_and_not_sent(talk, run):
    done = run("chat", "web", input=b"one\ncaf\xe9\n")

    assert (done.code, done.out) == (2, "Fixed.\n")
    assert "is not UTF-8" in done.err
    assert len(asked(talk)) == 1


def test_an_agent_that_is_not_there(api, run):
    api.on("GET", "/agents/wbe", **NOT_FOUND)
    api.on("GET", "/agents", [agent()])

    assert run("chat", "wbe", input=b"x\n").code == 3


def test_the_newest_conversation_is_resumed_with_what_is_under_way(talk, run):
    flat(talk, "GET", SESSIONS, {"sessions": [session()], "count": 1, "total": 1})
    flat(talk, "GET", f"{SESSIONS}/{SESSION_ID}/history", {"messages": MESSAGES})
    talk.on("GET", RUNS, [record("running")])

    done = run("chat", "--resume", "web", input=b"and?\n")

    assert (done.code, done.out) == (0, "Fixed.\nFixed.\n")
    assert asked(talk)[0]["session_id"] == SESSION_ID
    assert not asked(talk, SESSIONS)
    assert [each.query for each in talk.asked if each.path == SESSIONS] == [{"agent_id": [AGENT_ID], "limit": ["1"]}]


def test_there_may_be_none_to_resume(talk, run):
    flat(talk, "GET", SESSIONS, {"sessions": [], "count": 0, "total": 0})

    done = run("chat", "--resume", "web", input=b"")

    assert done.code == 3
    assert "there is no conversation with web yet" in done.err


# On a terminal


def person(run_on_terminal, home, *keys, arguments=("web",)):
    return run_on_terminal("chat", *arguments, answers=keys, env={"XDG_STATE_HOME": str(home), "NO_COLOR": "1"})


def test_a_person_talks_and_is_told_how_to_go_on(talk, run_on_terminal, tmp_path):
    said = person(run_on_terminal, tmp_path, (PROMPT, b"Which?\n"), (PROMPT, b"/session\n"), (PROMPT, b"\x04"))

    assert said.code == 0
    assert "> read_file add.py\n  | a - b\nFixed.\n" in said.out
    assert f"\n{SESSION_ID}\n" in said.out
    assert f"To go on with it: agentainerctl {SESSION}" in said.out
    assert ID not in said.out


def test_what_was_typed_is_kept_for_the_person_alone(talk, run_on_terminal, tmp_path):
    person(run_on_terminal, tmp_path, (PROMPT, b"first\n"), (PROMPT, b" secret\n"), (PROMPT, b"\x04"))
    said = person(run_on_terminal, tmp_path, (PROMPT, b"\x1b[A\n"), (PROMPT, b"\x04"))

    kept = tmp_path / "agentainer" / "chat_history"
    assert said.code == 0
    assert [each["input"] for each in asked(talk)] == ["first", " secret", "first"]
    assert kept.read_text() == '"first"\n'
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_lines_come_by_a_key_and_by_pasting(talk, run_on_terminal, tmp_path):
    pasted = b"\x1b[200~three\nfour\x1b[201~\n"

    person(run_on_terminal, tmp_path, (PROMPT, b"one\x1b\rtwo\n"), (PROMPT, pasted), (PROMPT, b"\x04"))

    assert [each["input"] for each in asked(talk)] == ["one\ntwo", "three\nfour"]
    assert (tmp_path / "agentainer" / "chat_history").read_text() == '"one\\ntwo"\n"three\\nfour"\n'


def test_an_interrupt_ends_the_answer_and_the_talk_goes_on(talk, run_on_terminal, tmp_path):
    def unfinished(handler, _):
        begin_stream(handler, "text/event-stream")
        for event in STORY[:8]:
            send_line(handler, frame(event))
        gevent.sleep(20)

    talk.forget("GET", EVENTS)
    talk.on_raw("GET", EVENTS, unfinished)
    talk.on_events(EVENTS, *events({"type": "RUN_ERROR", "code": "cancelled", "message": ""}, first=9))
    talk.on("POST", f"{RUNS}/{ID}/cancel", record("cancelling"))
    talk.forget("GET", f"{RUNS}/{ID}")
    talk.on("GET", f"{RUNS}/{ID}", record("cancelled", error={"code": "cancelled", "message": ""}))

    said = person(
        run_on_terminal, tmp_path, (PROMPT, b"Fix it\n"), (b"Fixed.", b"\x03"), (PROMPT, b"\x03"), (PROMPT, b"\x04")
    )

    assert said.code == 0
    assert f"run {ID} was cancelled" in said.out
    assert "[y/N]" not in said.out


def test_what_is_typed_ahead_is_not_shown_inside_the_answer_and_is_said_next(talk, run_on_terminal, tmp_path):
    def thoughtful(handler, _):
        begin_stream(handler, "text/event-stream")
        for event in STORY:
            if event["event"]["type"] == "TEXT_MESSAGE_START":
                gevent.sleep(0.3)  # while the person types
            send_line(handler, frame(event))
        end_stream(handler)

    talk.forget("GET", EVENTS)
    talk.on_raw("GET", EVENTS, thoughtful)

    said = person(run_on_terminal, tmp_path, (PROMPT, b"one\n"), (b"> read_file", b"ahead\n"), (PROMPT, b"/exit\n"))

    assert [each["input"] for each in asked(talk)] == ["one", "ahead"]
    assert "ahead" not in said.out.partition("Fixed.")[0]
    assert "web> ahead" in said.out


def test_a_failure_is_told_and_the_talk_goes_on(talk, run_on_terminal, tmp_path):
    talk.forget("POST", RUNS)
    talk.on("POST", RUNS, status=429, code="TOO_MANY_RUNS", message="too many")
    talk.on("POST", RUNS, record("queued"), status=202)

    said = person(run_on_terminal, tmp_path, (PROMPT, b"one\n"), (PROMPT, b"one\n"), (PROMPT, b"/exit\n"))

    assert said.code == 0
    assert "error: too many" in said.out
    assert "Fixed." in said.out


def test_a_person_may_write_in_any_language(talk, run_on_terminal, tmp_path):
    person(run_on_terminal, tmp_path, (PROMPT, "naïve 日本 👩\n".encode()), (PROMPT, b"\x04"))

    assert [each["input"] for each in asked(talk)] == ["naïve 日本 👩"]


def test_a_conversation_that_is_resumed_is_shown(talk, run_on_terminal, tmp_path):
    flat(talk, "GET", f"{SESSIONS}/{SESSION_ID}/history", {"messages": MESSAGES})
    talk.on("GET", RUNS, [])

    said = person(
        run_on_terminal, tmp_path, (PROMPT, b"/help\n"), (PROMPT, b"\x04"), arguments=("web", "-s", SESSION_ID)
    )

    assert "you:\n  Which tests fail?\nweb:\n  > run_command pytest -q\n" in said.out
    assert "/image FILE" in said.out
