"""What the daemon uses and does."""

from agentainerd.errors import Unavailable
from agentainerd.services.metrics_reports import daemon_json


def test_process_journal_and_redis_are_read(world):
    world.facts |= {"loop_lag": {"last_ms": 2.0, "largest_of_last_minute_ms": 9.0}, "connections": 4}
    agent = world.deploy()
    for _ in range(5):
        world.queue(agent)
    world.services.measuring.run_once(1_800_000_000.0)

    shown = daemon_json(world.services.daemon_metrics.read())

    assert shown["memory_bytes"] > 10_000_000 and shown["cpu_seconds"] > 0
    assert 3 < shown["open_files"] <= shown["max_open_files"]
    assert (shown["connections"], shown["loop_lag_ms"]) == (4, {"last": 2.0, "largest": 9.0})
    journal = shown["journal"]
    assert journal["available"] and journal["operations"] >= 5 and journal["batches"] >= 5
    assert 0 < journal["latency_ms"]["p50"] <= journal["latency_ms"]["p99"]
    assert shown["redis"]["memory_bytes"] > 100_000
    assert shown["metrics_round_ms"] > 0


def test_a_redis_that_is_away_is_null(world, monkeypatch):
    def away(section):
        raise Unavailable("away")

    monkeypatch.setattr(world.redis, "info", away)

    assert daemon_json(world.services.daemon_metrics.read())["redis"] is None
