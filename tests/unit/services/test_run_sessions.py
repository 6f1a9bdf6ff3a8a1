"""Runs in conversations: what an agent is told of them, what is kept, and that two never mix."""

import json

import gevent
import msgspec
import pytest

from agentainerd import defaults
from agentainerd.errors import Conflict, NotFound, TooManyRequests
from agentainerd.model.runs import OnBusy, RunStatus
from tests.conftest import wait_until
from tests.fakes.runs import TEXT, ask, finish, reached, waiting
from tests.fakes.world import ADMIN


def test_a_session_remembers_and_tells_the_agent(runs, sessions, agent):
    made = agent()
    session = sessions.create(ADMIN, agent_id="web", state={"mood": "good"})
    finish(runs, ask(runs, "one", session_id=session.id).id)

    finish(runs, ask(runs, "two", session_id=session.id).id)

    said = [(message["role"], message["content"]) for message in made.inputs[1]["messages"]]
    assert said == [("user", "one"), ("assistant", "hello world"), ("user", "two")]
    assert made.inputs[1]["messages"][0]["id"] == made.inputs[0]["messages"][0]["id"]
    assert made.inputs[1]["threadId"] == session.id
    assert made.inputs[1]["state"] == {"mood": "good"}
    found = sessions.get(session.id)
    assert (found.run_count, found.messages, found.total_tokens) == (2, 4, 18)
    assert [run.input for run in sessions.runs(session.id)] == ["one", "two"]


def test_two_sessions_know_nothing_of_each_other(runs, sessions, agent):
    made = agent()
    one, two = (sessions.create(ADMIN, agent_id="web") for _ in range(2))
    finish(runs, ask(runs, "a secret", session_id=one.id).id)
    finish(runs, ask(runs, "hello", session_id=two.id).id)

    assert len(made.inputs[1]["messages"]) == 1
    assert "a secret" not in json.dumps(made.inputs[1])


def test_tool_calls_stay_with_their_results(runs, sessions, agent):
    calls = [
        {"type": "TOOL_CALL_START", "toolCallId": "c1", "toolCallName": "read_file"},
        {"type": "TOOL_CALL_ARGS", "toolCallId": "c1", "delta": '{"path": "a"}'},
        {"type": "TOOL_CALL_END", "toolCallId": "c1"},
        {"type": "TOOL_CALL_RESULT", "messageId": "x", "toolCallId": "c1", "content": "text of a"},
        {"type": "TOOL_CALL_START", "toolCallId": "c2", "toolCallName": "read_file"},
    ]
    agent(
        lambda made, connection, body: made.play(connection, body, [*TEXT, *calls], type="RUN_ERROR", message="ended")
    )
    session = sessions.create(ADMIN, agent_id="web")

    finish(runs, ask(runs, "go", session_id=session.id).id)

    messages = [message for _, message in sessions.messages(session.id)]
    assert [message.role for message in messages] == ["user", "assistant", "assistant", "tool", "assistant", "tool"]
    assert messages[2].tool_calls[0].function.arguments == '{"path":"a"}'
    assert (messages[3].tool_call_id, messages[3].content) == ("c1", "text of a")
    assert "before this tool had an answer" in messages[5].content


def test_runs_of_a_session_are_one_after_the_other(runs, sessions, agent):
    open_now, most = [], []

    def script(made, connection, body):
        open_now.append(body["runId"])
        most.append(len(open_now))
        gevent.sleep(0.02)
        open_now.remove(body["runId"])
        made.play(connection, body, TEXT)

    made = agent(script)
    session = sessions.create(ADMIN, agent_id="web")
    asked = [ask(runs, f"number {number}", session_id=session.id) for number in range(5)]

    for run in asked:
        assert finish(runs, run.id).status is RunStatus.COMPLETED
    assert max(most) == 1
    assert [body["runId"] for body in made.inputs] == [run.id for run in asked]
    assert len(made.inputs[4]["messages"]) == 9
    assert sessions.get(session.id).run_count == 5


def test_a_busy_session_rejects_or_is_interrupted(runs, sessions, agent):
    made = agent(waiting, bridge="native")
    session = sessions.create(ADMIN, agent_id="web")
    first = ask(runs, session_id=session.id)
    reached(runs, first.id, 3)

    with pytest.raises(Conflict) as busy:
        ask(runs, session_id=session.id, on_busy=OnBusy.REJECT)
    second = ask(runs, session_id=session.id, on_busy=OnBusy.INTERRUPT)

    assert busy.value.code == "SESSION_BUSY"
    assert finish(runs, first.id).error.message == f"run {second.id} took its place in the session"
    assert made.cancelled == [first.id]
    finish(runs, second.id)
    assert sessions.get(session.id).run_count == 2


def test_a_session_that_is_deleted_meanwhile_stays_deleted(runs, sessions, agent):
    made = agent(waiting, bridge="native")
    session = sessions.create(ADMIN, agent_id="web")
    run = ask(runs, session_id=session.id)
    reached(runs, run.id, 3)

    sessions.delete(session.id, ADMIN)
    made.cancel_seen.set()

    assert finish(runs, run.id).status is RunStatus.CANCELLED
    with pytest.raises(NotFound):
        sessions.get(session.id)
    with pytest.raises(NotFound):
        ask(runs, session_id=session.id)


def test_a_state_that_the_agent_tells_is_kept(runs, sessions, agent):
    agent(
        lambda made, connection, body: made.play(connection, body, [{"type": "STATE_SNAPSHOT", "snapshot": {"n": 1}}])
    )
    session = sessions.create(ADMIN, agent_id="web")

    finish(runs, ask(runs, session_id=session.id).id)

    assert sessions.get(session.id).state == {"n": 1}


def test_a_session_keeps_what_there_is_room_for(runs, sessions, agent, monkeypatch):
    monkeypatch.setattr(defaults, "MAX_SESSION_BYTES", 10_000)
    agent()
    session = sessions.create(ADMIN, agent_id="web")
    for number in range(12):
        finish(runs, ask(runs, f"{number} " + "x" * 1000, session_id=session.id).id)

    kept = [message for _, message in sessions.messages(session.id, limit=100)]
    found = sessions.get(session.id)
    assert 4 < len(kept) < 20
    assert (found.run_count, found.messages) == (12, 24)
    assert found.bytes <= 10_000
    assert sum(len(msgspec.json.encode(message)) for message in kept) == found.bytes
    assert kept[-2].content.startswith("11 ")


def test_an_agent_is_told_the_end_of_a_long_conversation(runs, sessions, agent, monkeypatch):
    monkeypatch.setattr(defaults, "MAX_SESSION_SENT_BYTES", 3_000)
    made = agent()
    session = sessions.create(ADMIN, agent_id="web")
    for number in range(5):
        finish(runs, ask(runs, f"{number} " + "x" * 500, session_id=session.id).id)

    told_last = made.inputs[-1]["messages"]
    assert len(told_last) < 9
    assert told_last[0]["role"] == "user"
    assert [message["content"][0] for message in told_last if message["role"] == "user"][-1] == "4"


def test_sessions_and_events_have_bounds(runs, sessions, agent, monkeypatch):
    monkeypatch.setattr(defaults, "MAX_SESSIONS", 1)
    monkeypatch.setattr(defaults, "MAX_RUN_BYTES", 2_000)
    monkeypatch.setattr(defaults, "MAX_RUN_OUTPUT_CHARS", 1_500)
    pieces = [{"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "y" * 400} for _ in range(40)]
    agent(lambda made, connection, body: made.play(connection, body, pieces))
    sessions.create(ADMIN, agent_id="web")

    with pytest.raises(TooManyRequests) as refused:
        sessions.create(ADMIN, agent_id="web")
    run = finish(runs, ask(runs).id)

    assert refused.value.code == "TOO_MANY_SESSIONS"
    assert (run.status, run.error.code) == (RunStatus.FAILED, "error")
    assert "its events take more than" in run.error.message
    assert len(run.output) <= 1_500


def test_a_summary_is_made_of_the_last_answers(runs, sessions, agent):
    agent()
    session = sessions.create(ADMIN, agent_id="web")
    assert sessions.summarize(session.id, ADMIN).summary.content == "nothing was said yet"
    finish(runs, ask(runs, session_id=session.id).id)

    summary = sessions.summarize(session.id, ADMIN).summary

    assert (summary.content, summary.run_count, summary.total_tokens) == ("hello world", 1, 9)


@pytest.mark.parametrize("bridge", ["native", "agui"])
def test_a_session_that_is_deleted_is_forgotten_by_agents_that_keep_it_too(runs, sessions, agent, bridge):
    made = agent(bridge=bridge)
    used, unused = (sessions.create(ADMIN, agent_id="web") for _ in range(2))
    finish(runs, ask(runs, session_id=used.id).id)

    sessions.delete(unused.id, ADMIN)
    sessions.delete(used.id, ADMIN)

    if bridge == "native":
        wait_until(lambda: made.forgotten == [used.id])
    finish(runs, ask(runs).id)
    assert made.forgotten == ([used.id] if bridge == "native" else [])
