"""What several replicas make of their agent, and how their containers are called."""

import pytest

from agentainerd.model.replicas import AgentState, Replica, container_name, leading, number_of, reason_of

ID = "agent-0123456789abcdef"


def replicas(*states, **fields):
    return [Replica(number=number, state=AgentState(state), **fields) for number, state in enumerate(states, 1)]


@pytest.mark.parametrize(
    ("states", "number"),
    [
        (("created",), 1),
        (("stopped", "running", "running"), 2),
        (("failed", "paused", "stopped"), 2),
        (("created", "failed", "stopped"), 3),
        (("created", "failed"), 2),
    ],
)
def test_the_replica_that_stands_for_all_is_the_one_that_is_best_off(states, number):
    assert leading(replicas(*states)).number == number


def test_of_those_that_are_stopped_it_is_one_that_comes_back():
    away, coming = replicas("stopped", "stopped")[0], Replica(number=2, state=AgentState.STOPPED, next_restart_at=5.0)

    assert leading([away, coming]) is coming


def test_a_reason_says_how_many_run_and_why_one_does_not():
    two = [*replicas("running", "running"), Replica(number=3, state=AgentState.FAILED, reason="exit 3")]

    assert reason_of(two) == "2 of 3 replicas run; replica 3 is failed: exit 3"
    assert reason_of(replicas("running", "running")) == ""
    assert reason_of(replicas("stopped", "stopped", reason="exit 1")) == "exit 1"


@pytest.mark.parametrize(("number", "of", "name"), [(1, 1, f"agentainer-{ID}"), (1, 3, f"agentainer-{ID}-1")])
def test_the_container_of_an_only_replica_has_no_number(number, of, name):
    assert container_name(ID, number, of) == name
    assert number_of(name, ID) == number


@pytest.mark.parametrize(
    "name", ["", "agentainer", f"agentainer-{ID}x", f"agentainer-{ID}-", f"agentainer-{ID}-0", f"agentainer-{ID}-01", f"agentainer-{ID}-a", f"x-agentainer-{ID}"]
)  # fmt: skip
def test_other_names_are_those_of_no_replica(name):
    assert number_of(name, ID) == 0
