import pytest

from agentainerd.model.events import Action, Event, EventFilter, changes, id_before, is_event_id, next_id
from agentainerd.model.replicas import AgentState, Exit, Replica

RUNNING = Replica(state=AgentState.RUNNING, started_at=100.0)
KILLED = Exit(code=137, at=200.0)


def of(**fields):
    return Replica(**fields)


@pytest.mark.parametrize(
    ("before", "now", "actions"),
    [
        (of(), RUNNING, ["start"]),
        (RUNNING, RUNNING, []),
        (RUNNING, of(state=AgentState.RUNNING, started_at=101.0), ["start"]),
        (RUNNING, of(state=AgentState.PAUSED), ["pause"]),
        (of(state=AgentState.PAUSED), RUNNING, ["unpause"]),
        (RUNNING, of(state=AgentState.STOPPED), ["stop"]),
        (RUNNING, of(state=AgentState.STOPPED, last_exit=KILLED), ["die"]),
        (RUNNING, of(state=AgentState.STOPPED, last_exit=Exit(code=137, oom_killed=True)), ["oom", "die"]),
        (RUNNING, of(state=AgentState.FAILED, last_exit=KILLED), ["die", "fail"]),
        (of(state=AgentState.STOPPED), of(state=AgentState.FAILED, last_exit=KILLED), ["fail"]),
        (of(state=AgentState.STOPPED, last_exit=KILLED), of(state=AgentState.STOPPED, last_exit=KILLED), []),
    ],
)
def test_what_two_records_of_a_replica_tell(before, now, actions):
    assert [change.action.value for change in changes(before, now)] == actions


def test_a_death_tells_how():
    [died] = changes(RUNNING, of(state=AgentState.STOPPED, last_exit=KILLED, reason="exit 137"))

    assert (died.message, died.details) == ("exit 137", {"exit_code": 137, "oom_killed": False})


def test_ids_ascend_whatever_the_clock_does():
    first = next_id("", 1000.5)
    second = next_id(first, 1000.5)
    third = next_id(second, 999.0)

    assert [first, second, third] == ["1000500-0", "1000500-1", "1000500-2"]
    assert next_id(third, 1000.501) == "1000501-0"
    assert id_before(1000.5) == "1000499-9999999999"
    assert id_before(0.0) == ""


@pytest.mark.parametrize(
    ("text", "is_one"), [("1-0", True), ("1-", False), ("10m", False), ("1-0 ", False), ("", False)]
)
def test_the_form_of_an_id(text, is_one):
    assert is_event_id(text) is is_one


def test_a_filter_asks_for_all_kinds_or_for_some():
    event = Event(action=Action.DIE, agent_id="agent-1", agent="web")

    assert EventFilter().matches(event)
    assert EventFilter(("die", "oom"), ("web",)).matches(event)
    assert EventFilter((), ("agent-1",)).matches(event)
    assert not EventFilter(("oom",)).matches(event)
    assert not EventFilter((), ("other",)).matches(event)
