import pytest

from agentainerd.engine import events as module
from agentainerd.engine.connection import Connection
from agentainerd.engine.events import Events, from_message
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


class Closed:
    """An Event that remembers for how long it was waited for, and is set after some waits."""

    def __init__(self, after: int) -> None:
        self.waits: list[float] = []
        self._after = after

    def is_set(self) -> bool:
        return len(self.waits) >= self._after

    def wait(self, timeout: float) -> bool:
        self.waits.append(timeout)
        return self.is_set()


@pytest.mark.parametrize("connected_at", [0.0, 1.0])
def test_an_engine_that_is_away_is_told_of_once_and_asked_less_and_less(connected_at, caplog, monkeypatch):
    monkeypatch.setattr(module.time, "monotonic", lambda: 1e6)
    events = Events(Connection("unix:///nonexistent/docker.sock", timeout_s=1.0), on_close=lambda _: None)
    events._closed = Closed(after=8)
    events._connected_at = connected_at  # as at the start, and as after a long time in which all was well

    assert list(events) == []

    assert events._closed.waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert caplog.text.count("engine events broke off") == 1
