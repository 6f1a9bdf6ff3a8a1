"""What differs between an agent and its description, what that takes, and in which order things are done."""

import msgspec
import pytest

from agentainerd.errors import Conflict, InvalidParameter, NotFound
from agentainerd.model.agents import Agent, AgentSpec
from agentainerd.model.deployments import (
    Need,
    ResolvedSpec,
    Verb,
    Wish,
    changes_of,
    check,
    in_order,
    links_of,
    needs_start,
    removals,
    step_of,
)
from agentainerd.model.replicas import Replica


def spec(name="web", **fields):
    return msgspec.convert({"name": name, "image": "echo", **fields}, AgentSpec)


def agent(**fields):
    made = {key: fields.pop(key) for key in ("replicas", "links", "port", "image_id") if key in fields}
    return Agent(id="agent-00000000000000a1", spec=spec(**fields), **{"image_id": "sha256:1", **made})


def wanted(*, port=8000, image_id="sha256:1", links=None, **fields):
    return ResolvedSpec(spec=spec(**fields), image_id=image_id, port=port, links=links or {})


def needs(before, after, **resolved):
    return {change.field: change.needs for change in changes_of(agent(**before), wanted(**after, **resolved))}


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({}, {}, {}),
        ({}, {"token": "a-long-token"}, {"token": Need.NOTHING}),
        ({}, {"health_check": {"endpoint": "/"}}, {"health_check": Need.NOTHING}),
        ({}, {"hold_timeout_s": 1, "auto_restart": True}, {"hold_timeout_s": Need.NOTHING, "auto_restart": Need.NOTHING}),
        ({}, {"deployment": "shop", "dependencies": ["a"]}, {"deployment": Need.NOTHING, "dependencies": Need.NOTHING}),
        ({}, {"replicas": 2}, {"replicas": Need.REPLICAS}),
        ({}, {"cpu_limit": 10**9}, {"cpu_limit": Need.LIMITS}),
        ({"cpu_limit": 10**9}, {}, {"cpu_limit": Need.CONTAINER}),
        ({"memory_limit": 2**26}, {"memory_limit": 2**27}, {"memory_limit": Need.LIMITS}),
        ({"memory_limit": 2**27}, {"memory_limit": 2**26}, {"memory_limit": Need.CONTAINER}),
        ({"memory_limit": 0}, {"memory_limit": 2**26}, {"memory_limit": Need.CONTAINER}),
        ({"memory_limit": 2**26}, {"memory_limit": 0}, {"memory_limit": Need.CONTAINER}),
        ({}, {"image": "other"}, {"image": Need.CONTAINER}),
        ({}, {"command": ["a"]}, {"command": Need.CONTAINER}),
        ({}, {"volumes": [{"host_path": "v", "container_path": "/v"}]}, {"volumes": Need.CONTAINER}),
        ({}, {"network_egress": False}, {"network_egress": Need.CONTAINER}),
        ({"labels": {"a": "b"}}, {"labels": {"c": "d"}}, {"labels.a": Need.CONTAINER, "labels.c": Need.CONTAINER}),
        ({"env_vars": {"A": "1"}}, {"env_vars": {"A": "2"}}, {"env_vars.A": Need.CONTAINER}),
    ],
)  # fmt: skip
def test_each_field_says_what_its_change_takes(before, after, found):
    assert needs(before, after) == found


def test_every_field_of_a_spec_is_of_one_kind():
    """A new field has to be thought about: does a container that is there have it?"""
    changed = {"nothing": set(), "limits": set(), "replicas": set(), "container": set()}
    values = {
        "image": "other", "env_vars": {"A": "1"}, "secrets": ["A"], "volumes": [{"host_path": "v", "container_path": "/v"}],
        "cpu_limit": 10**9, "memory_limit": 2**30, "auto_restart": True, "token": "a-long-token", "command": ["a"],
        "labels": {"a": "b"}, "network_egress": False, "hold_timeout_s": 1, "request_timeout_s": 2, "stop_grace_s": 3,
        "persistence": False, "replay_policy": "safe", "replay_concurrency": 2, "ordered": True, "max_pending": 5,
        "max_pending_bytes": 4096, "replicas": 2, "health_check": {}, "idle_timeout_s": 5, "dependencies": ["a"],
        "deployment": "shop", "services": {"redis": True}, "update_strategy": "recreate", "model": "small", "bridge": "agui",
        "bridge_command": ["a"], "runtime": True, "named_ports": {"gui": 6080},
    }  # fmt: skip
    assert {*values, "name", "port"} == set(AgentSpec.__struct_fields__)
    for field, value in values.items():
        (need,) = set(needs({}, {field: value}).values())
        changed[need].add(field)

    assert changed["container"] == {
        "image",
        "env_vars",
        "volumes",
        "command",
        "labels",
        "network_egress",
        "services",
        "model",
        "runtime",
        "named_ports",
    }
    assert (changed["limits"], changed["replicas"]) == ({"cpu_limit", "memory_limit"}, {"replicas"})


def test_a_port_counts_where_it_really_differs():
    assert needs({}, {"port": 8000}) == {}
    assert needs({}, {}, port=9000) == {"port": Need.CONTAINER}
    assert needs({}, {}, port=9000, image_id="") == {}  # nobody knows yet what the image says


def test_an_image_that_was_built_again_under_its_name_is_another_one():
    [change] = changes_of(agent(), wanted(image_id="sha256:2"))

    assert (change.field, change.before, change.after, change.needs) == (
        "image",
        "echo (1)",
        "echo (2)",
        Need.CONTAINER,
    )


def test_a_dependency_that_moved_takes_a_new_container():
    [change] = changes_of(agent(links={"DB_SERVICE": "http://db:8000"}), wanted(links={"DB_SERVICE": "http://db:9000"}))

    assert (change.field, change.after, change.needs) == ("env_vars.DB_SERVICE", "http://db:9000", Need.CONTAINER)


def test_values_of_secrets_are_masked_on_both_sides():
    found = changes_of(
        agent(env_vars={"API_KEY": "a", "PLAIN": "b", "GONE_TOKEN": "x"}, token="a-long-token"),
        wanted(env_vars={"API_KEY": "c", "PLAIN": "d"}, secrets=["PLAIN"]),
    )

    assert {change.field: (change.before, change.after) for change in found} == {
        "env_vars.API_KEY": ("***", "***"),
        "env_vars.PLAIN": ("***", "***"),
        "env_vars.GONE_TOKEN": ("***", None),
        "secrets": ((), ("PLAIN",)),
        "token": ("***", ""),
    }


@pytest.mark.parametrize(
    ("replicas", "expected"),
    [
        ([{"state": "running"}], False),
        ([{"state": "created"}], True),
        ([{"state": "paused"}], True),
        ([{"state": "failed"}], True),
        ([{"state": "stopped", "next_restart_at": 5.0}], False),
        ([{"state": "stopped", "is_idle": True}], False),
        ([{"state": "running"}, {"state": "stopped", "number": 2}], True),
        ([{"state": "running"}, {"state": "stopped", "number": 2, "next_restart_at": 5.0}], False),
    ],
)
def test_what_neither_runs_nor_will_is_started(replicas, expected):
    found = agent(replicas=tuple(msgspec.convert(each, Replica) for each in replicas))

    assert needs_start(found) is expected
    step = step_of(found, wanted(), start=True)
    assert (step.verb, step.starts) == ((Verb.START, True) if expected else (Verb.KEEP, False))
    assert step_of(found, wanted(), start=False).verb is Verb.KEEP


def test_an_agent_of_another_deployment_is_a_conflict():
    with pytest.raises(Conflict):
        step_of(agent(deployment="bank"), wanted(deployment="shop"), start=True)


def test_dependencies_come_first_and_else_the_order_is_that_of_the_file():
    specs = [
        spec("a", dependencies=["c"]),
        spec("b"),
        spec("c", dependencies=["d"]),
        spec("d"),
        spec("e", dependencies=["else"]),
    ]

    assert [one.name for one in in_order(specs)] == ["b", "d", "e", "c", "a"]


@pytest.mark.parametrize(
    ("edges", "circle"),
    [({"a": "b", "b": "a"}, "a -> b -> a"), ({"z": "a", "a": "b", "b": "c", "c": "a"}, "a -> b -> c -> a")],
)
def test_a_circle_is_told_whole(edges, circle):
    with pytest.raises(InvalidParameter) as failure:
        in_order([spec(name, dependencies=[to]) for name, to in edges.items()])

    assert failure.value.reason == f"these wait for each other: {circle}"


def test_an_agent_that_depends_on_itself_is_refused():
    with pytest.raises(InvalidParameter):
        check(wish(spec("a", dependencies=["a"])))


def test_links_are_named_after_the_agents():
    urls = {"auth-db": "http://auth-db:1", "2fa": "http://2fa:2"}

    assert links_of(spec(dependencies=["auth-db", "2fa"]), urls) == {
        "AUTH_DB_SERVICE": "http://auth-db:1",
        "_2FA_SERVICE": "http://2fa:2",
        "UPSTREAM_SERVICES": "http://auth-db:1,http://2fa:2",
    }
    assert links_of(spec(), urls) == {}
    with pytest.raises(NotFound):
        links_of(spec(dependencies=["nobody"]), urls)


def wish(*specs):
    return msgspec.convert(
        {"deployments": [{"name": "shop", "agents": [msgspec.to_builtins(one) for one in specs]}]}, Wish
    )


def test_removals_are_those_of_the_same_deployment_dependents_first():
    agents = [
        msgspec.structs.replace(agent(), spec=one)
        for one in (
            spec("a", deployment="shop"),
            spec("b", deployment="shop", dependencies=["a"]),
            spec("kept", deployment="shop"),
            spec("other", deployment="bank"),
            spec("free"),
        )
    ]

    assert [step.agent for step in removals(agents, wish(spec("kept")))] == ["b", "a"]


@pytest.mark.parametrize("fields", [{"env_vars": {"API_KEY": "***"}}, {"token": "***"}])
def test_a_masked_value_is_refused(fields):
    with pytest.raises(InvalidParameter) as failure:
        check(wish(spec(**fields)))

    assert "a value that is hidden" in failure.value.message


def test_stars_that_hide_nothing_are_a_value():
    assert check(wish(spec(env_vars={"PATTERN": "***"})))[0].env_vars == {"PATTERN": "***"}
