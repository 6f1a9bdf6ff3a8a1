from agentainer_runtime import agui
from agentainer_runtime.activity import Activity


def test_what_is_kept_in_memory_has_a_bound():
    activity = Activity()
    for number in range(1000):
        activity.note(agui.event(agui.TOOL_CALL_START, toolCallId=str(number), toolCallName="write_file"))
        activity.note(agui.event(agui.TOOL_CALL_ARGS, toolCallId=str(number), delta="x" * 100_000))
        activity.note(agui.custom("file.changed", {"path": "a", "operation": "modified", "diff": "x" * 100_000}))

    kept = sum(len(call["arguments"]) for call in activity.tool_calls) + sum(
        len(edit["diff"]) for edit in activity.edits
    )
    assert kept < 10_000_000
    assert activity.tool_calls_count == 1000
    assert activity.tool_calls[-1]["id"] == "999"


def test_a_new_run_forgets_the_error_of_the_one_before():
    activity = Activity()
    activity.note(agui.event(agui.RUN_ERROR, message="no", code="error"))
    assert activity.last_error == "no"

    activity.note(agui.event(agui.RUN_STARTED, threadId="t", runId="r"))

    assert (activity.last_error, activity.thread_id) == ("", "t")
