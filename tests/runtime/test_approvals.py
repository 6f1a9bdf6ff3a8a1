"""AGENT_COMMANDS=confirm: what is not on the list is run when a person has allowed it, in that conversation, and no sooner."""

import json
import signal
import tomllib
import uuid
from pathlib import Path

import pytest
from ag_ui.core import RunFinishedEvent
from agentainer_runtime.approvals import MAX_SHOWN_CHARS, InvalidAnswer, Pending, decide

from tests.fakes.models import KEY, MODEL, ModelServer, ToolCall, Turn, When
from tests.fakes.runtime import ROOT, answer_of, runtimes

COMMAND = "id -u > who"
CALL = {"name": "run_command", "arguments": {"command": COMMAND}}
AFTER = {"name": "run_command", "arguments": {"command": "echo after"}}


def installed(folder: Path) -> str:
    """A folder for PYTHONPATH in which the runtime's package is installed, as far as its entry points go."""
    points = tomllib.loads((ROOT / "agentainerd/runtime/pyproject.toml").read_text())["project"]["entry-points"]
    record = folder / "agentainer_runtime-0.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: agentainer-runtime\nVersion: 0\n")
    lines = [
        f"[{group}]\n" + "\n".join(f"{name} = {value}" for name, value in of.items()) for group, of in points.items()
    ]
    (record / "entry_points.txt").write_text("\n".join(lines))
    return str(folder)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts a runtime that asks a person, and plays these turns."""
    place = tmp_path_factory.mktemp("approvals")
    turns = [
        {"when": {"user": "go$", "tool": "^$"}, "calls": [CALL], "times": 0},
        {"when": {"user": "both$", "tool": "^$"}, "calls": [CALL, AFTER], "times": 0},
        {"text": "{{tool}}|{{input}}", "times": 0},
    ]
    environment = {"PYTHONPATH": installed(place / "installed"), "AGENT_COMMANDS": "confirm"}
    with runtimes(place) as begin:
        yield lambda **more: begin(turns, **environment, **more)


@pytest.fixture(scope="module")
def shared(start):
    return start()


@pytest.fixture
def runtime(shared):
    """One for all tests, which have threads of their own."""
    (shared.workspace / "who").unlink(missing_ok=True)
    return shared


@pytest.fixture
def thread():
    return str(uuid.uuid4())


def asked(events) -> dict:
    """The one question that a run ended with."""
    outcome = RunFinishedEvent.model_validate(events[-1]).outcome
    assert outcome.type == "interrupt", events[-1]
    (question,) = events[-1]["outcome"]["interrupts"]
    return question


def results(events) -> dict[str, dict]:
    return {
        event["toolCallId"]: json.loads(event["content"]) for event in events if event["type"] == "TOOL_CALL_RESULT"
    }


def answer(question, **entry):
    return [{"interruptId": question["id"], "status": "resolved", **entry}]


def test_a_run_ends_with_the_question_and_the_next_one_does_what_was_allowed(runtime, thread):
    question = asked(events := runtime.run("go", thread=thread))
    who = runtime.workspace / "who"
    assert question["reason"] == "tool_call"
    assert COMMAND in question["message"]
    assert (results(events), who.exists()) == ({}, False)
    call_id = question["toolCallId"]

    events = runtime.run("go", waiting=[call_id], thread=thread, resume=answer(question, payload={"approved": True}))

    assert results(events)[call_id]["success"] is True
    assert who.exists()
    assert events[-1]["type"] == "RUN_FINISHED"
    assert "outcome" not in events[-1]
    assert [event["type"] for event in events].count("TOOL_CALL_START") == 0
    who.unlink()
    again = runtime.run("go", thread=thread)  # it was allowed in this conversation
    assert who.exists()
    assert "outcome" not in again[-1]
    asked(runtime.run("go", thread=f"{thread}-another"))


def test_what_was_not_allowed_is_not_done_and_the_model_learns_why(runtime, thread):
    question = asked(runtime.run("go", thread=thread))

    events = runtime.run(
        "go",
        waiting=[question["toolCallId"]],
        thread=thread,
        resume=answer(question, payload={"approved": False, "reason": "use whoami"}),
    )

    assert results(events)[question["toolCallId"]] == {"error": "The user did not allow it. use whoami"}
    assert "use whoami" in answer_of(events)
    assert not (runtime.workspace / "who").exists()


def test_a_question_outlives_the_container(start, thread):
    runtime = start()
    question = asked(runtime.run("go", thread=thread))
    runtime.stop(signal.SIGKILL)

    again = start(folder=runtime.folder)
    events = again.run("go", waiting=[question["toolCallId"]], thread=thread, resume=answer(question, payload=True))

    assert results(events)[question["toolCallId"]]["success"] is True


def test_a_client_that_knows_of_no_questions_answers_in_the_conversation(runtime, thread):
    question = asked(runtime.run("go", thread=thread))
    events = runtime.run("Yes.", waiting=[question["toolCallId"]], thread=thread)
    assert results(events)[question["toolCallId"]]["success"] is True

    question = asked(runtime.run("go", thread=f"{thread}-u"))
    events = runtime.run("what for?", waiting=[question["toolCallId"]], thread=f"{thread}-u")
    assert "something else" in results(events)[question["toolCallId"]]["error"]
    assert answer_of(events).endswith("|what for?")


def test_a_question_that_nobody_answered_is_no(runtime, thread):
    question = asked(runtime.run("go", thread=thread))
    entry = [{"interruptId": question["id"], "status": "cancelled"}, {"interruptId": "of old", "status": "cancelled"}]

    events = runtime.run("next", waiting=[question["toolCallId"]], thread=thread, resume=entry)

    assert "Nobody answered" in results(events)[question["toolCallId"]]["error"]
    assert answer_of(events).endswith("|next")


def test_calls_behind_one_that_waits_are_not_done(runtime, thread):
    events = runtime.run("both", thread=thread)
    question = asked(events)

    (late,) = results(events).values()
    assert late["error"].startswith("not done: a call before it waits")
    events = runtime.run("both", waiting=[question["toolCallId"]], thread=thread, resume=answer(question, payload=True))
    assert events[-1]["type"] == "RUN_FINISHED"


@pytest.mark.parametrize("entry", [{"payload": "yes"}, {"payload": {}}, {}])
def test_an_answer_that_is_none_fails_and_the_question_stays(runtime, thread, entry):
    question = asked(runtime.run("go", thread=thread))

    events = runtime.run("go", waiting=[question["toolCallId"]], thread=thread, resume=answer(question, **entry))
    assert (events[-1]["type"], "approved" in events[-1]["message"]) == ("RUN_ERROR", True)
    events = runtime.run("go", thread=thread, resume=[{"interruptId": "x", "status": "resolved", "payload": True}])
    assert "nothing waits for the answer to x" in events[-1]["message"]
    events = runtime.run("go", waiting=[question["toolCallId"]], thread=thread, resume=answer(question, payload=True))
    assert results(events)[question["toolCallId"]]["success"] is True


@pytest.mark.parametrize("resume", ["yes", [1], [{"interruptId": 1, "status": "resolved"}], [{"interruptId": "i"}]])
def test_a_resume_that_can_not_be_understood_is_refused(runtime, resume):
    body = {"threadId": "t", "runId": "r", "messages": [{"id": "m", "role": "user", "content": "go"}], "resume": resume}

    assert runtime.ask("POST", "/invocations", body)[0] == 400


def test_in_the_routes_of_the_autonomous_agent_the_question_is_text_and_what_is_said_next_the_answer(runtime):

    def frames(path, body):
        lines = runtime.ask("POST", path, body)[1].splitlines()
        return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]

    told = frames("/agent/execute", {"task": "go"})
    assert [frame["type"] for frame in told] == ["tool-call", "text", "done"]
    assert COMMAND in told[1]["content"]
    assert told[-1]["state"]["isExecuting"] is False

    told = frames("/agent/chat", {"message": "ok"})
    assert (told[0]["type"], told[0]["result"]["success"]) == ("tool-result", True)
    assert told[-1]["type"] == "done"


def test_what_is_long_is_shown_by_its_beginning():
    pending = Pending("i", "c", "run_python", "{}", "x" * 9000, "x" * 9000)

    assert len(pending.interrupt()["message"]) < MAX_SHOWN_CHARS + 50


def test_only_a_plain_yes_is_one():
    pending = Pending("i", "c", "run_command", "{}", "rm x", "May it?")

    def said(text):
        return decide(pending, (), [{"role": "user", "content": "yes"}, {"role": "user", "content": text}]).allows

    assert [said(text) for text in ("yes", " OK!", "Approve")] == [True] * 3
    assert [said(text) for text in ("yes, but first look", "no", "", "yesterday")] == [False] * 4
    with pytest.raises(InvalidAnswer):
        decide(pending, [{"interruptId": "i", "status": "resolved", "payload": 1}], ())


def test_a_provider_takes_the_conversation_that_comes_of_it(start, tmp_path):
    calls = tuple(ToolCall("run_command", {"command": command}) for command in (COMMAND, "echo after"))
    turns = [Turn(calls=calls, when=When(user="go")), Turn(text="Done.", when=When(tool='"success": true'))]
    with ModelServer([*turns, Turn(text="Well.", times=9)]) as models:
        runtime = start(AGENT_MODEL=MODEL, OPENAI_API_KEY=KEY, OPENAI_BASE_URL=models.base_url)
        question = asked(runtime.run("go", thread="t"))
        runtime.run("", waiting=[question["toolCallId"]], thread="t", resume=answer(question, payload=True))
        events = runtime.run("and now?", thread="t")

    assert events[-1]["type"] == "RUN_FINISHED"
    assert {request.status for request in models.received} == {
        200
    }  # it refuses calls without results, and results without calls
