"""Metrics as they are shown."""

import time

import pytest

from agentainerd.errors import NotFound


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


def test_an_unknown_one(world):
    with pytest.raises(NotFound):
        world.services.metrics.get("nobody")
