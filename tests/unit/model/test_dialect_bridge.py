"""The frames of the autonomous agent's document, made of AG-UI events."""

import json

from hypothesis import given
from hypothesis import strategies as st

from agentainerd.model.dialect_bridge import BridgeProjection
from tests.unit.model.test_occurrences import call, event, events, say

AT = 1_700_000_000.0


def tell(*given_events, history=()):
    projection = BridgeProjection("fix it", history)
    frames = [frame for one in given_events for frame in projection.feed(one, AT)]
    assert all(
        frame.startswith(b"data: {") and frame.endswith(b"}\n\n") and frame.count(b"\n") == 2 for frame in frames
    )
    return [json.loads(frame[6:]) for frame in frames]


def test_a_whole_run():
    moment = "2023-11-14T22:13:20.000Z"
    changed = event("CUSTOM", name="file.changed", value={"path": "a.py", "operation": "modified", "diff": "+x"})
    result = event("TOOL_CALL_RESULT", toolCallId="c1", content='{"success": true}')
    history = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    told = tell(
        event("RUN_STARTED"), *call('{"path": "a.py"}', name="write_file"), changed, result, *say("Do", "ne."),
        event("RUN_FINISHED"), history=history,
    )  # fmt: skip
    edit = {"path": "a.py", "operation": "modified", "timestamp": moment, "diff": "+x"}

    assert told == [
        {"type": "tool-call", "toolName": "write_file", "toolCallId": "c1", "args": {"path": "a.py"}},
        {"type": "file-edit", "fileEdit": edit},
        {"type": "tool-result", "toolName": "write_file", "toolCallId": "c1", "result": {"success": True}},
        {"type": "text", "content": "Do"},
        {"type": "text", "content": "ne."},
        {
            "type": "done",
            "state": {
                "initialized": True,
                "conversationHistory": [
                    *history,
                    {"role": "user", "content": "fix it"},
                    {"role": "assistant", "content": "Done."},
                ],
                "toolCallsCount": 1,
                "isExecuting": False,
                "toolCalls": [{"id": "c1", "name": "write_file", "arguments": {"path": "a.py"}, "timestamp": moment}],
                "filesEdited": [edit],
            },
        },
    ]


def test_an_error_is_the_end_and_so_is_a_cancelled_run():
    assert tell(event("RUN_ERROR", message="no key", code="model_error")) == [{"type": "error", "error": "no key"}]
    assert tell(event("RUN_ERROR", code="cancelled")) == [{"type": "error", "error": "cancelled"}]


@given(st.lists(events, max_size=30), st.sampled_from(["RUN_FINISHED", "RUN_ERROR"]))
def test_any_run_ends_once_and_keeps_its_text(given_events, end):
    told = tell(*given_events, event(end))
    kinds = [one["type"] for one in told]

    assert kinds[-1] in ("done", "error")
    assert kinds.count("done") + kinds.count("error") == 1
    calls = [one["toolCallId"] for one in told if one["type"] == "tool-call"]
    assert all(one["toolCallId"] in calls for one in told if one["type"] == "tool-result")
