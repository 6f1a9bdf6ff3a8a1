"""The bodies that clients of AgentOS read."""

import pytest

from agentainerd.model.agentos import history_json, message_json, run_json, run_meta_json, session_json
from agentainerd.model.runs import Run, RunError, RunStatus, Usage
from agentainerd.model.sessions import FunctionCall, Message, Session, Summary, ToolCall

AT = 1_700_000_000.75
SESSION = Session(id="s1", agent_id="web", created_at=AT, updated_at=AT + 1)
RUN = Run(id="r1", agent_id="agent-1", agent="web", input="hello", created_at=AT, started_at=AT, finished_at=AT + 2)


def run(status, **fields):
    return Run(id="r1", agent_id="agent-1", agent="web", input="hello", created_at=AT, status=status, **fields)


def test_a_new_session_has_what_was_given_and_nothing_empty():
    assert session_json(SESSION, []) == {
        "session_id": "s1", "agent_id": "web", "run_count": 0, "created_at": 1_700_000_000, "updated_at": 1_700_000_001,
    }  # fmt: skip


def test_a_session_that_was_used_has_all():
    summary = Summary(content="all is well", run_count=1, total_tokens=9, created_at=AT)
    used = Session(
        id="s1", agent_id="web", user_id="u", team_id="t", workflow_id="w", name="n", metadata={"a": {"b": [1]}},
        state={"agui": {"pane": "x"}}, run_count=1, created_at=AT, updated_at=AT, summary=summary,
    )  # fmt: skip
    shown = session_json(used, [run(RunStatus.COMPLETED, started_at=AT, finished_at=AT + 2)])

    assert shown["summary"] == {
        "content": "all is well", "run_count": 1, "total_tokens": 9, "created_at": "2023-11-14T22:13:20Z",
    }  # fmt: skip
    assert shown["runs"] == [
        {"run_id": "r1", "status": "completed", "started_at": 1_700_000_000, "completed_at": 1_700_000_002}
    ]
    assert {name: shown[name] for name in ("user_id", "team_id", "workflow_id", "name", "metadata", "state")} == {
        "user_id": "u", "team_id": "t", "workflow_id": "w", "name": "n", "metadata": {"a": {"b": [1]}}, "state": {"agui": {"pane": "x"}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (RunStatus.QUEUED, "running"),
        (RunStatus.STARTING, "running"),
        (RunStatus.RUNNING, "running"),
        (RunStatus.INPUT_REQUIRED, "running"),
        (RunStatus.CANCELLING, "running"),
        (RunStatus.COMPLETED, "completed"),
        (RunStatus.CANCELLED, "cancelled"),
        (RunStatus.FAILED, "error"),
    ],
)
def test_states_are_those_of_the_document(status, word):
    assert run_meta_json(run(status)) == {"run_id": "r1", "status": word}


def test_why_a_run_was_cancelled_is_told_and_why_it_failed_is_not_called_that():
    why = RunError("cancelled", "by unix:0")

    assert run_meta_json(run(RunStatus.CANCELLED, error=why))["cancellation_reason"] == "by unix:0"
    assert "cancellation_reason" not in run_meta_json(run(RunStatus.FAILED, error=why))


def test_the_answer_to_a_run():
    media = [{"type": "image", "url": "https://example.com/a.png"}]
    done = run(RunStatus.COMPLETED, session_id="s1", steps=2, usage=Usage(12, 34), output="Hi.", media=media)

    assert run_json(done) == {
        "run_id": "r1", "status": "completed", "content": "Hi.", "session_id": "s1",
        "metadata": {
            "agent_id": "agent-1", "loops": 2, "cache_hit": False, "media": media,
            "usage": {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46},
        },
    }  # fmt: skip
    assert {"session_id", "media"} & {*run_json(run(RunStatus.COMPLETED)), *run_json(RUN)["metadata"]} == set()


def test_messages_are_in_the_form_of_openai():
    call = ToolCall("c1", FunctionCall("read_file", '{"path": "a"}'))
    said = Message(id="msg-1", role="assistant", tool_calls=[call], reasoning="hm", run_id="r1", at=AT)
    result = Message(id="msg-2", role="tool", content="text", tool_call_id="c1")

    assert message_json(said) == {
        "id": "msg-1", "role": "assistant", "content": "", "reasoning_content": "hm",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "read_file", "arguments": '{"path": "a"}'}}],
    }  # fmt: skip
    assert message_json(result) == {"id": "msg-2", "role": "tool", "content": "text", "tool_call_id": "c1"}


def test_a_history_of_nothing_has_empty_lists():
    assert history_json(SESSION, [], [], stream_events=True) == {
        "session_id": "s1", "messages": [], "stream_events": True, "runs": [],
    }  # fmt: skip
