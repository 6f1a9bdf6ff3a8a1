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
