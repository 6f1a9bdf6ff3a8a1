"""What a run's events come to: here the usage, in the forms in which agents tell it."""

import pytest

from agentainerd.model.run_results import RunResult
from agentainerd.model.runs import Usage

LISTED = [
    {"model": "a", "inputTokens": 10, "outputTokens": 4, "cachedInputTokens": 3, "reasoningTokens": 2},
    {"model": "b", "inputTokens": 5, "outputTokens": None, "totalTokens": 5},
]
OURS = {"usage": {"input_tokens": 7, "output_tokens": 2, "cost_usd": 0.5, "cost_source": "provider"}}


@pytest.mark.parametrize(
    ("event", "usage"),
    [
        ({"type": "RUN_FINISHED", "usage": LISTED}, Usage(15, 4, 3, 2)),
        ({"type": "RUN_ERROR", "message": "x", "usage": LISTED}, Usage(15, 4, 3, 2)),
        ({"type": "RUN_FINISHED", "result": OURS}, Usage(7, 2, cost_usd=0.5, cost_source="provider")),
        ({"type": "RUN_ERROR", "message": "x", "rawEvent": OURS}, Usage(7, 2, cost_usd=0.5, cost_source="provider")),
        ({"type": "RUN_FINISHED", "usage": LISTED, "result": OURS}, Usage(7, 2, cost_usd=0.5, cost_source="provider")),
        ({"type": "RUN_FINISHED", "usage": [7, None], "result": "done"}, Usage()),
        ({"type": "RUN_FINISHED", "usage": {"input_tokens": 1}}, Usage()),
    ],
)
def test_usage_is_read_in_the_form_of_ag_ui_and_in_ours(event, usage):
    result = RunResult()
    result.take(event)

    assert result.usage == usage


def test_an_answer_that_broke_off_and_was_asked_for_again_does_not_count():
    result = RunResult()
    said = [("step 1", "whole"), ("step 2", "half an ans")]
    for step, text in said:
        for event in (
            {"type": "STEP_STARTED", "stepName": step},
            {"type": "TEXT_MESSAGE_START", "messageId": step, "role": "assistant"},
            {"type": "TEXT_MESSAGE_CONTENT", "messageId": step, "delta": text},
            {"type": "TEXT_MESSAGE_END", "messageId": step},
        ):
            result.take(event)
    result.take({"type": "CUSTOM", "name": "model.retry", "value": {"discardedMessageId": "step 2", "attempt": 2}})
    for event in (
        {"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": " answer"},
        {"type": "TEXT_MESSAGE_END", "messageId": "m"},
        {"type": "STEP_FINISHED", "stepName": "step 2"},
    ):
        result.take(event)

    assert result.output == "whole answer"
    assert [message.content for message in result.messages("r", 0)] == ["whole answer"]
