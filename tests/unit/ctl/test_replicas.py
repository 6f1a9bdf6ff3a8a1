"""`scale`, and how an agent with several replicas looks."""

import json

import pytest

from tests.unit.ctl.fake_api import AGENT, agent


def container(number, **changes):
    return {
        "replica": number,
        "name": f"agentainer-{AGENT['id']}-{number}",
        "container_id": f"{number}" * 64,
        "status": "running",
        "reason": "",
        "ready": True,
        "restarts": 0,
        "next_restart_at": None,
        **changes,
    }


DOWN = {"status": "stopped", "ready": False, "reason": "exit 137, killed", "restarts": 3}
THREE = agent(replicas=3, containers=[container(1), container(2, **DOWN), container(3)])


def test_scale_says_how_many_there_are(api, run):
    api.on("POST", "/agents/web/scale", THREE)

    ran = run("scale", "web", "3")

    assert ran == (0, "Agent web has 3 replicas: running (ready, 2 of 3)\n", "")
    assert api.asked[0].json == {"replicas": 3}
    assert api.asked[0].query == {}


def test_scale_waits_where_that_is_asked_for(api, run):
    api.on("POST", "/agents/web/scale", agent(replicas=1, containers=[container(1)]))

    assert run("scale", "--wait", "--timeout", "5", "web", "1").out == "Agent web has 1 replica: running (ready)\n"
    assert api.asked[0].query == {"wait": ["5"]} or api.asked[0].query == {"wait": ["5.0"]}


def test_scale_as_json_is_the_agent(api, run):
    api.on("POST", "/agents/web/scale", THREE)

    assert json.loads(run("scale", "web", "3", "-o", "json").out)["replicas"] == 3


@pytest.mark.parametrize("words", [("scale",), ("scale", "web"), ("scale", "web", "0"), ("scale", "web", "many")])
def test_wrong_usage_is_exit_2(api, run, words):
    assert run(*words).code == 2
    assert not api.asked


def test_a_list_has_how_many_are_ready(api, run):
    api.on("GET", "/agents", [THREE])

    assert "running (ready, 2 of 3)" in run("list").out
    assert "2/3" in run("list", "-o", "wide").out


def test_inspect_shows_each_container(api, run):
    api.on("GET", "/agents/web", THREE)

    shown = run("inspect", "web").out

    assert "Replicas:" in shown and "2/3" in shown
    assert "  web-1   111111111111   running (ready)\n" in shown
    assert "  web-2   222222222222   stopped (exit 137, killed)   restarts: 3\n" in shown


def test_log_lines_have_their_replica_in_front_where_there_are_several(api, run):
    api.on_lines(
        "GET", "/agents/web/logs", {"stream": "stdout", "data": "a\nb\n", "replica": 1}, {"stream": "stdout", "data": "c\n", "replica": 2}
    )  # fmt: skip

    assert run("logs", "web").out == "web-1 | a\nweb-1 | b\nweb-2 | c\n"


def test_the_log_of_one_replica_is_asked_for(api, run):
    api.on_lines("GET", "/agents/web/logs", {"stream": "stdout", "data": "c\n"})

    assert run("logs", "--replica", "2", "web").out == "c\n"
    assert api.asked[0].query["replica"] == ["2"]
