"""The bounds of an agent's options."""

import pytest

from agentainerd import defaults
from agentainerd.errors import Conflict, InvalidParameter
from agentainerd.model.agents import Agent, AgentSpec, Volume, masked_env, validate
from agentainerd.model.replicas import AgentState, Replica


def spec(**fields):
    return AgentSpec(**{"name": "web", "image": "app:1", **fields})


def test_a_plain_agent_is_right():
    assert validate(spec()) == spec()


@pytest.mark.parametrize("name", ["a", "web-1", "0", "x" * 63])
def test_names_that_are_right(name):
    assert validate(spec(name=name)).name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a/b",
        "..",
        "a b",
        "x" * 64,
        "x" * 300,
        "Web",
        "-a",
        "a-",
        "a_b",
        "ünï",
        "агент",
        "a.b",
        "a\n",
        "agent-0123456789abcdef",
    ],
)
def test_names_that_are_wrong(name):
    with pytest.raises(InvalidParameter) as refused:
        validate(spec(name=name))
    assert refused.value.field == "name"


@pytest.mark.parametrize(
    "image",
    ["app", "app:1", "a/b/c:tag", "host:5000/a/b@sha256:" + "0" * 64, "sha256:" + "a" * 64, "ghcr.io/a/b_c:v1.0-x"],
)
def test_images_that_are_right(image):
    assert validate(spec(image=image))


@pytest.mark.parametrize("image", ["", "App", "-rm", "a b", "a:b:c", "a" * 257, "../x", "http://x/y", "a:-t"])
def test_images_that_are_wrong(image):
    with pytest.raises(InvalidParameter) as refused:
        validate(spec(image=image))
    assert refused.value.field == "image"


@pytest.mark.parametrize(
    "source",
    ["/", "//", "/.", "/etc", "/etc/x", "/proc", "/sys/fs", "/dev/sda", "/run", "/run/docker.sock", "/var/run/docker.sock",
     "/boot", "/var/lib/docker/volumes", "/var", "/var/lib", "/a/../etc", "/a/..", "..", "../x", "a/b", "", "x\0y", "-v"],
)  # fmt: skip
def test_sources_that_may_not_be_mounted(source):
    with pytest.raises(InvalidParameter) as refused:
        validate(spec(volumes=(Volume(source, "/data"),)))
    assert refused.value.field == "volumes"


@pytest.mark.parametrize("source", ["/srv/data", "/home/a", "named-volume", "data.1", "/etcetera"])
def test_sources_that_may_be_mounted(source):
    assert validate(spec(volumes=(Volume(source, "/data"),)))


@pytest.mark.parametrize("target", ["", "data", "/", "/proc", "/proc/1", "/sys", "/dev/x", "/a/../..", "/./"])
def test_targets_that_are_wrong(target):
    with pytest.raises(InvalidParameter):
        validate(spec(volumes=(Volume("/srv/data", target),)))


def test_two_volumes_do_not_share_a_target():
    with pytest.raises(InvalidParameter, match="twice"):
        validate(spec(volumes=(Volume("/srv/a", "/data"), Volume("/srv/b", "/data/"))))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("port", -1), ("port", 65536), ("cpu_limit", -5), ("cpu_limit", 1), ("cpu_limit", 2000 * 10**9),
        ("memory_limit", -1), ("memory_limit", 1024), ("memory_limit", 2**60), ("hold_timeout_s", -1),
        ("hold_timeout_s", 61), ("request_timeout_s", 0), ("request_timeout_s", float("nan")), ("stop_grace_s", -1),
        ("replay_concurrency", 0), ("replay_concurrency", 65), ("max_pending", 0), ("max_pending", -1),
        ("max_pending_bytes", 1), ("token", "short"), ("token", "has a space"), ("token", "ünïcödé!"),
        ("labels", {"agentainer.id": "x"}), ("labels", {"": "x"}), ("labels", {"a b": "x"}),
        ("env_vars", {"": "x"}), ("env_vars", {"1A": "x"}), ("env_vars", {"A": "x\0"}), ("env_vars", {"AGENT_ID": "x"}),
        ("env_vars", {f"A{number}": "x" for number in range(51)}), ("secrets", ("NOT_THERE",)),
        ("command", ("a\0",)),
    ],
)  # fmt: skip
def test_values_that_are_wrong_name_their_field(field, value):
    with pytest.raises(InvalidParameter) as refused:
        validate(spec(**{field: value}))
    assert refused.value.field == field


def test_an_ordered_agent_is_replayed_one_by_one():
    assert validate(spec(ordered=True))
    with pytest.raises(InvalidParameter, match="one by one"):
        validate(spec(ordered=True, replay_concurrency=8))


def test_secrets_are_masked_by_name_and_by_choice():
    masked = masked_env(spec(env_vars={"API_KEY": "k", "MODE": "m", "PIN": "p", "db_password": "d"}, secrets=("PIN",)))

    assert masked == {"API_KEY": "***", "MODE": "m", "PIN": "***", "db_password": "***"}


def test_a_verb_in_the_wrong_state_says_why_and_what_to_do():
    agent = Agent(id="agent-0", spec=spec(), replicas=(Replica(state=AgentState.STOPPED, reason="exit 0"),))

    agent.require("start", AgentState.STOPPED)
    with pytest.raises(Conflict) as refused:
        agent.require("pause", AgentState.RUNNING)

    assert refused.value.code == "AGENT_STOPPED"
    assert refused.value.message == "cannot pause 'web': it is stopped (exit 0)"
    assert refused.value.hint == "agentainerctl start web"


def test_what_is_not_said_is_safe():
    assert spec().memory_limit == defaults.MEMORY_BYTES
    assert (spec().persistence, spec().auto_restart, spec().token) == (True, False, "")
