from datetime import UTC, datetime

import pytest

from agentainerd.engine.connection import Connection
from agentainerd.engine.containers import epoch_s, from_inspect, from_list
from agentainerd.engine.networks import AgentNetworks
from agentainerd.model.containers import ContainerState

NETWORKS = AgentNetworks(Connection("unix:///nowhere", timeout_s=1), network="agents", isolated="closed")


def inspected(status: str = "running", networks: dict | None = None, **state: object) -> dict:
    return {
        "Id": "c" * 64,
        "Name": "/agentainer-a",
        "Image": "sha256:1",
        "Config": {"Labels": {"agentainer.id": "agent-a"}},
        "State": {"Status": status, "StartedAt": "2026-01-02T03:04:05.123456789Z", **state},
        "NetworkSettings": {"Networks": networks},
    }


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("created", ContainerState.CREATED),
        ("running", ContainerState.RUNNING),
        ("paused", ContainerState.PAUSED),
        ("exited", ContainerState.EXITED),
        ("restarting", ContainerState.EXITED),
        ("removing", ContainerState.GONE),
        ("dead", ContainerState.GONE),
        ("a new word", ContainerState.EXITED),
    ],
)
def test_every_state_of_docker_has_one_of_ours(status, state):
    listed = {"Id": "c" * 64, "Names": ["/a"], "State": status, "Status": "", "ImageID": "sha256:1"}

    assert from_inspect(inspected(status), NETWORKS).state is state
    assert from_list(listed, NETWORKS).state is state


def test_the_address_is_the_one_with_egress_where_there_are_two():
    both = {
        "closed": {"IPAddress": "10.2.0.2"},
        "agents": {"IPAddress": "10.1.0.2"},
        "other": {"IPAddress": "10.3.0.2"},
    }
    closed = {"closed": {"IPAddress": "10.2.0.2"}}
    stopped = {"agents": {"IPAddress": ""}, "closed": {"IPAddress": ""}}

    addresses = [from_inspect(inspected(networks=joined), NETWORKS).address for joined in (both, closed, stopped, None)]

    assert addresses == ["10.1.0.2", "10.2.0.2", "", ""]


def test_a_list_says_the_exit_code_in_its_text():
    listed = {"Id": "c", "Names": ["/a"], "State": "exited", "Status": "Exited (137) 3 minutes ago", "Labels": None}

    assert from_list(listed, NETWORKS).exit_code == 137


@pytest.mark.parametrize(("code", "word"), [(127, "not found"), (126, "can't be executed")])
def test_an_exit_code_of_a_shell_is_explained(code, word):
    assert word in from_inspect(inspected("exited", ExitCode=code), NETWORKS).error
    assert from_inspect(inspected("running", ExitCode=code), NETWORKS).error == ""
    assert from_inspect(inspected("exited", ExitCode=code, Error="its own"), NETWORKS).error == "its own"


def test_times_are_epoch_seconds():
    expected = datetime(2026, 1, 2, 3, 4, 5, 123456, UTC).timestamp()

    assert epoch_s("2026-01-02T03:04:05.123456789Z") == expected
    assert epoch_s("2026-01-02T05:04:05.123456789+02:00") == expected
    assert epoch_s("2026-01-02T03:04:05Z") == pytest.approx(expected, abs=1)
    assert [epoch_s(never) for never in ("0001-01-01T00:00:00Z", "", None)] == [0.0, 0.0, 0.0]
