"""Metrics as they are shown."""

import time

import pytest

from agentainerd import clock
from agentainerd.errors import NotFound
from tests.fakes.world import ADMIN


def test_an_agent_that_runs(world):
    agent = world.up()
    world.engine.use(
        agent.id, cpu_s=1.0, memory_bytes=50_000_000, cache_bytes=7, rx_bytes=10, tx_packets=3, write_bytes=9
    )
    world.services.measuring.run_once(time.time())

    report = world.services.metrics.get("web")

    assert (report["agent_id"], report["agent_name"], report["status"]) == (agent.id, "web", "running")
    assert report["container_id"] == agent.container_id
    assert report["cpu"]["total_usage"] == 1_010_000_000
    assert report["cpu"]["system_cpu"] > 10**9
    assert report["cpu"]["usage_percent"] > 0
    assert report["memory"] == {"usage": 50_000_000, "limit": 10**9, "usage_percent": 5.0, "cache": 7}
    assert (report["network"]["rx_bytes"], report["network"]["tx_packets"]) == (10, 3)
    assert report["disk"]["write_bytes"] == 9
    assert (report["pids"], report["restarts"]) == (1, 0)
    assert world.services.metrics.all()[agent.id]["memory"] == report["memory"]


def test_each_replica_beside_the_sum(world):
    agent = world.up(replicas=2)
    world.engine.use(agent.id, 1, memory_bytes=100)
    world.engine.use(agent.id, 2, memory_bytes=200)

    report = world.services.metrics.get("web")

    assert report["memory"]["usage"] == 300
    assert [(each["replica"], each["memory"]["usage"]) for each in report["containers"]] == [(1, 100), (2, 200)]
    assert report["containers"][1]["name"] == f"agentainer-{agent.id}-2"


def test_one_that_does_not_run_uses_nothing(world):
    world.deploy()

    report = world.services.metrics.get("web")

    assert (report["status"], report["containers"], report["memory"]["usage"]) == ("created", [], 0)


def test_the_history_is_in_the_shape_of_measurements_in_steps(world):
    agent = world.up()
    now = clock.now()
    for ago in (150, 140, 90, 80):
        world.services.measuring.run_once(now - ago)

    by_ten = world.services.metrics.history("web", 3600, None)
    by_minute = world.services.metrics.history(agent.id, 3600, 60)

    assert (by_ten["agent_id"], by_ten["duration"], by_ten["step"]) == (agent.id, "1h0m0s", "10s")
    assert len(by_ten["metrics"]) == 4
    assert 2 <= len(by_minute["metrics"]) <= 3
    assert set(by_ten["metrics"][0]) >= {"agent_id", "timestamp", "cpu", "memory", "network", "disk", "requests"}
    assert by_ten["metrics"][0]["memory"] == {"usage": 10_000_000, "limit": 10**9, "usage_percent": 1.0, "cache": 0}
    assert world.services.metrics.history("web", 85, None)["metrics"] == by_ten["metrics"][-1:]
    assert world.services.metrics.history("web", 7200, None)["step"] == "1m0s"


def test_requests_are_shown_by_how_they_ended(world):
    agent = world.up()
    tally = world.route().tally
    tally.answered(200, 0.02)
    tally.answered(404, 0.02)
    tally.replied(503, reached=False)
    tally.delivered = 3
    world.services.agents.stop("web", ADMIN)
    world.queue(agent, body=b"12345")

    shown = world.services.metrics.get("web")["requests"]

    assert (shown["total"], shown["errors"], shown["pending"], shown["dead_letters"]) == (3, 1, 1, 0)
    assert (shown["outcomes"]["answered_2xx"], shown["outcomes"]["answered_4xx"], shown["outcomes"]["unavailable"]) == (
        1,
        1,
        1,
    )
    assert sum(shown["outcomes"].values()) == shown["total"]
    assert 0 <= shown["oldest_pending_s"] < 60
    assert (shown["latency_ms"]["count"], shown["latency_ms"]["mean"]) == (2, 20.0)
    assert shown["replays"] == {"delivered": 3, "failed": 0, "retried": 0}


def test_an_unknown_one(world):
    with pytest.raises(NotFound):
        world.services.metrics.get("nobody")
