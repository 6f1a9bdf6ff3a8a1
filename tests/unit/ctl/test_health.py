"""`health` as a process."""

import json

import pytest

from tests.unit.ctl.fake_api import AGENT, agent

ONE = {
    "agent_id": AGENT["id"],
    "agent_name": "web",
    "status": "unhealthy",
    "healthy": False,
    "failure_count": 3,
    "last_check": "2026-01-01T00:00:00.000Z",
    "latency_ms": 12.345,
    "status_code": 503,
    "message": "GET /health answered 503",
    "check": {
        "endpoint": "/health",
        "command": [],
        "interval": "30s",
        "timeout": "5s",
        "retries": 3,
        "start_period": "1m",
    },
    "replicas": [],
}


def test_one_agent_with_what_is_asked(api, run):
    api.on("GET", "/agents/web/health", ONE)

    ran = run("health", "web")

    head, line = ran.out.splitlines()
    assert head.split() == ["ID", "NAME", "HEALTH", "FAILURES", "LAST", "CHECK", "LATENCY", "MESSAGE"]
    assert "✗ unhealthy" in line and "12.3 ms" in line and line.endswith("GET /health answered 503")
    assert ran.err == (
        "GET /health every 30s, within 5s; unhealthy after 3 failures in a row; for 1m after a start failures do not count\n"
    )


def test_all_agents_each_replica_in_a_line(api, run):
    replica = {**ONE, "status": "healthy", "message": "", "failure_count": 0}
    two = {**ONE, "agent_name": "many", "replicas": [{**replica, "replica": 1}, {**ONE, "replica": 2}]}
    api.on("GET", "/health/agents", {"b": ONE, "a": two})

    lines = run("health").out.splitlines()[1:]

    assert [line.split()[1] for line in lines] == ["many-1", "many-2", "web"]
    assert "✓ healthy" in lines[0]


def test_none_at_all(api, run):
    api.on("GET", "/health/agents", {})

    assert run("health") == (0, "No agent has a health check\n", "")


def test_json_is_what_the_api_says(api, run):
    api.on("GET", "/agents/web/health", ONE)
    api.on("GET", "/health/agents", {ONE["agent_id"]: ONE})

    assert json.loads(run("health", "-o", "json", "web").out) == ONE
    assert json.loads(run("health", "-o", "json").out) == {ONE["agent_id"]: ONE}


def test_an_agent_that_is_not_asked_is_exit_3_with_what_to_do(api, run):
    api.on(
        "GET", "/agents/web/health", status=404, message="No health data for agent 'web': it has no health check",
        code="HEALTH_NOT_FOUND", hint="deploy it with --health-endpoint /health, or tcp",
    )  # fmt: skip

    ran = run("health", "web")

    assert ran.code == 3
    assert "hint: deploy it with --health-endpoint" in ran.err


def test_watch_shows_it_again_and_again(api, start):
    api.on("GET", "/agents/web/health", ONE)

    watching = start("health", "--watch", "--interval", "50ms", "web")
    shown = [watching.stdout.readline() for _ in range(9)]
    watching.terminate()

    assert sum(line.startswith(b"ID ") for line in shown) == 3


@pytest.mark.parametrize(
    ("words", "check"),
    [
        (("--health-endpoint", "/up", "--health-interval", "10s"), {"endpoint": "/up", "interval": "10s"}),
        (("--health-endpoint", "tcp", "--health-retries", "5"), {"endpoint": "tcp", "retries": 5}),
        (("--health-command", "redis-cli ping", "--health-timeout", "1s"), {"command": ["redis-cli", "ping"], "timeout": "1s"}),
        (("--health-start-period", "1m"), {"start_period": "1m"}),
        ((), None),
    ],
)  # fmt: skip
def test_deploy_says_what_is_asked(api, run, words, check):
    api.on("POST", "/agents", agent())

    ran = run("deploy", "--name", "web", "--image", "x", "--pull", "never", *words)

    assert ran.code == 0, ran
    (deployed,) = [asked for asked in api.asked if (asked.method, asked.path) == ("POST", "/agents")]
    assert deployed.json.get("health_check") == check
