"""AG-UI's types, beside those of the ag-ui-protocol package; their fields are held against it in test_event_sequences.py."""

import ag_ui.core
import pytest

from agentainerd.model.agui import REQUIRED, EventType, is_cancelled


def test_our_types_are_those_of_the_protocol():
    assert {kind.value for kind in EventType} == {kind.value for kind in ag_ui.core.EventType} == set(REQUIRED)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"type": "RUN_FINISHED", "outcome": {"type": "cancelled"}}, True),
        ({"type": "RUN_FINISHED", "outcome": {"type": "success"}}, False),
        ({"type": "RUN_FINISHED", "outcome": "cancelled"}, False),
        ({"type": "RUN_FINISHED"}, False),
        ({"type": "RUN_ERROR", "outcome": {"type": "cancelled"}}, False),
    ],
)
def test_a_run_may_be_finished_and_cancelled(event, expected):
    assert is_cancelled(event) is expected
