"""Runs that wait for an answer, as `run`, `runs answer`, `runs cancel` and `chat` show them and answer them, as processes."""

import json

import pytest

from tests.unit.ctl.fake_api import agent, send
from tests.unit.ctl.run_records import AGENT_ID, ID, SESSION_ID, STORY, events, session
from tests.unit.ctl.run_records import run as record

RUNS = "/api/v1/runs"
RUN = f"{RUNS}/{ID}"
EVENTS = f"{RUN}/events"
INPUT = f"{RUN}/input"
QUESTION = {
    "id": "i1", "reason": "tool_call", "message": "May the agent run this command?\nrm \x1b[2Jold",
    "responseSchema": {"type": "object", "properties": {"approved": {"type": "boolean"}, "reason": {"type": "string"}}},
}  # fmt: skip
ASKED = events(
    {"type": "RUN_STARTED", "threadId": ID, "runId": ID},
    {"type": "RUN_FINISHED", "threadId": ID, "runId": ID, "outcome": {"type": "interrupt", "interrupts": [QUESTION]}},
)
REST = events(*(event["event"] for event in STORY), first=3)
WAITING = record("input_required", interrupts=[QUESTION], answer_by="2026-01-02T10:00:00.000Z", output="", last_seq=2)
SHOWN = ["? May the agent run this command?", r"  rm \x1b[2Jold"]


@pytest.fixture
def asking(api):
    """A run that asks for something, and goes on when it was answered."""
    api.on("GET", "/system/ping", {})
    api.on("POST", RUNS, record("queued"), status=202)
    api.on("GET", RUN, WAITING)
    api.on_events(EVENTS, *ASKED)
    return api


@pytest.fixture
def answered(asking):
    asking.on("GET", RUN, record())
    asking.on_events(EVENTS, *REST)
    asking.on("POST", INPUT, record("running"), status=202)
    return asking


def answers(api):
    return [each.json for each in api.asked if each.path == INPUT]


def test_without_a_person_it_is_said_how_to_answer(asking, run):
    said = run("run", "web", "x")

    assert (said.code, said.out) == (11, "")
    assert said.err.splitlines() == [
        f"--- run {ID} on web ---",
        *SHOWN,
        rf"error: run {ID} on web waits for an answer: May the agent run this command? rm \x1b[2Jold",
        f"hint: agentainerctl runs answer {ID} TEXT",
    ]


def test_as_json_it_is_the_run_that_waits(asking, run):
    said = run("run", "web", "x", "-o", "json")

    assert said.code == 11
    assert json.loads(said.out)["interrupts"] == [QUESTION]
    assert json.loads(said.err)["code"] == "RUN_WAITING"


def test_a_person_is_asked_and_the_run_goes_on(answered, run_on_terminal):
    said = run_on_terminal("run", "web", "x", answers=[(b"(yes or no, and why): ", b"yes\n")], env={"NO_COLOR": "1"})

    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[1:4] == [*SHOWN, "Your answer (yes or no, and why): yes"]
    assert "Fixed." in lines
    assert answers(answered) == [{"resume": [{"interruptId": "i1", "text": "yes"}]}]
    assert [asked.query["after"] for asked in answered.asked if asked.path == EVENTS] == [["0"], ["2"]]


def test_what_is_no_answer_is_asked_again(answered, run_on_terminal):
    answered.forget("POST", INPUT)
    wrong = {"status": 400, "code": "INVALID_PARAMETER", "message": "text: 'hm' is neither yes nor no"}
    answered.on("POST", INPUT, **wrong)
    answered.on("POST", INPUT, record("running"), status=202)

    said = run_on_terminal("run", "web", "x", answers=[(b"why): ", b"hm\n"), (b"why): ", b"no\n")])

    assert said.code == 0
    assert "is neither yes nor no" in said.out
    assert len(answers(answered)) == 2


@pytest.mark.parametrize("keys", [b"\x03", b"\x04"])
def test_who_does_not_answer_leaves_it_waiting(asking, run_on_terminal, keys):
    said = run_on_terminal("run", "web", "x", answers=[(b"why): ", keys)])

    assert said.code == 11
    assert f"runs answer {ID} TEXT" in said.out
    assert answers(asking) == []


def test_somebody_else_may_be_faster(answered, run_on_terminal):
    answered.forget("POST", INPUT)
    answered.on("POST", INPUT, status=409, code="RUN_NOT_WAITING", message="it does not wait")

    assert run_on_terminal("run", "web", "x", answers=[(b"why): ", b"yes\n")]).code == 0


def test_a_run_that_was_answered_before_is_shown_whole(answered, run):
    answered.forget("GET", RUN)
    answered.on("GET", RUN, record())
    answered.forget("GET", EVENTS)
    answered.on_events(EVENTS, *ASKED, *REST)

    said = run("runs", "attach", ID)

    assert (said.code, said.out) == (0, "Fixed.\n")
    assert "reconnecting" not in said.err


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (("yes",), {"text": "yes"}),
        (("--payload", '{"approved": false}'), {"resume": [{"interruptId": "i1", "payload": {"approved": False}}]}),
        (("--decline",), {"resume": [{"interruptId": "i1", "status": "cancelled"}]}),
    ],
)
def test_an_answer_from_the_command_line(answered, run, arguments, body):
    said = run("runs", "answer", ID, *arguments)

    assert (said.code, said.out) == (0, f"Run {ID} goes on\n")
    assert f"agentainerctl runs attach {ID}" in said.err
    assert answers(answered) == [body]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "TEXT: is missing, and there is nobody to ask"),
        (("yes", "--decline"), "one of them"),
        (("--payload", "{"), "--payload: is not JSON"),
    ],
)
def test_answers_that_are_none(asking, run, arguments, said):
    done = run("runs", "answer", ID, *arguments)

    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_a_run_that_does_not_wait(asking, run):
    asking.on("POST", INPUT, status=409, code="RUN_NOT_WAITING", message="run x does not wait for an answer")

    assert run("runs", "answer", ID, "yes").code == 4


def test_a_person_is_asked_by_the_command_too(answered, run_on_terminal):
    said = run_on_terminal("runs", "answer", ID, answers=[(b"why): ", b"no\n")], env={"NO_COLOR": "1"})

    assert said.code == 0
    assert said.out.splitlines()[:2] == ["May the agent run this command?", r"rm \x1b[2Jold"]
    assert answers(answered) == [{"resume": [{"interruptId": "i1", "text": "no"}]}]


def test_what_it_waits_for_is_on_its_page(asking, run):
    said = run("runs", "show", ID)

    assert "Status:    input_required" in said.out
    assert said.out.splitlines()[-3:] == ["Waits for:", "  May the agent run this command?", r"  rm \x1b[2Jold"]


def test_in_a_conversation_what_is_said_next_is_the_answer(answered, run):
    answered.on("GET", "/agents/web", agent(id=AGENT_ID))
    answered.on_raw("POST", "/api/v1/sessions", lambda handler, _: send(handler, 201, json.dumps(session()).encode()))

    said = run("chat", "web", input=b"tidy up\nyes\n")

    assert (said.code, said.out) == (0, "Fixed.\n")
    assert answers(answered) == [{"text": "yes"}]
    starts = [each.json for each in answered.asked if each.method == "POST" and each.path == RUNS]
    assert starts == [{"agent_id": AGENT_ID, "session_id": SESSION_ID, "input": "tidy up"}]


def test_a_conversation_may_end_with_a_question(asking, run):
    asking.on("GET", "/agents/web", agent(id=AGENT_ID))
    asking.on_raw("POST", "/api/v1/sessions", lambda handler, _: send(handler, 201, json.dumps(session()).encode()))

    said = run("chat", "web", input=b"tidy up\n")

    assert said.code == 11
    assert f"runs answer {ID} TEXT" in said.err


def test_all_runs_that_match_are_cancelled(api, run):
    api.on("POST", f"{RUNS}/cancel", [record("cancelling")])

    said = run("runs", "cancel", "--agent", "web", "--status", "queued", "--kill")

    assert said == (0, f"Run {ID} is being cancelled\n", "")
    assert api.asked[0].json == {"agent_id": "web", "status": "queued", "mode": "kill"}
    assert run("runs", "cancel", "--session", "s1", "-q").out == f"{ID}\n"
    assert json.loads(run("runs", "cancel", "--agent", "web", "-o", "json").out)[0]["id"] == ID


@pytest.mark.parametrize("arguments", [(), (ID, "--agent", "web")])
def test_runs_are_named_or_described(api, run, arguments):
    assert run("runs", "cancel", *arguments).code == 2
    assert not api.asked


def test_no_run_may_match(api, run):
    api.on("POST", f"{RUNS}/cancel", [])

    assert run("runs", "cancel", "--agent", "web") == (0, "", "No such runs.\n")


def test_a_run_may_begin_later(api, run):
    api.on("POST", RUNS, record("queued", starts_at="2026-01-01T18:00:00.000Z"), status=202)

    assert run("run", "-d", "--delay", "8h", "web", "x").code == 0
    assert api.asked[0].json == {"agent_id": "web", "input": "x", "after_seconds": 28800.0}


def test_a_run_that_asks_for_nothing_is_not_answered(api, run_on_terminal):
    api.on("GET", RUN, record())

    said = run_on_terminal("runs", "answer", ID)

    assert said.code == 4
    assert "does not wait for an answer: it is completed" in said.out
