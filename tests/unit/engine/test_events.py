import pytest

from agentainerd.engine.events import from_message
from agentainerd.model.containers import EngineEvent

DIE = {
    "Type": "container",
    "Action": "die",
    "Actor": {"ID": "c1", "Attributes": {"agentainer.id": "agent-a", "exitCode": "137", "image": "x"}},
    "time": 1795213420,
    "timeNano": 1795213420297632990,
}


def test_a_message_becomes_an_event():
    assert from_message(DIE) == EngineEvent("die", "agent-a", "c1", 1795213420.297633, 137)


@pytest.mark.parametrize("action", ["kill", "exec_start: sh", "health_status: healthy", "attach", "rename", ""])
def test_what_is_not_asked_for_is_left_out(action):
    assert from_message({**DIE, "Action": action}) is None


def test_a_container_of_somebody_else_is_left_out():
    assert from_message({**DIE, "Actor": {"ID": "c1", "Attributes": {}}}) is None


def test_an_exit_code_may_be_missing():
    message = {**DIE, "Action": "start", "Actor": {"ID": "c1", "Attributes": {"agentainer.id": "agent-a"}}}

    assert from_message(message) == EngineEvent("start", "agent-a", "c1", 1795213420.297633, 0)
