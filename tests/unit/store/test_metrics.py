"""The history of metrics in Redis: it stays as large as it is, and gives back what was put in."""

import pytest

from agentainerd.errors import Unavailable
from agentainerd.model.metrics_history import Point
from agentainerd.store import keys
from agentainerd.store.metrics import HISTORY_BYTES, MetricsStore

pytestmark = pytest.mark.redis
NOW = 1_800_000_000  # a whole hour
AGENT = "agent-0000000000000001"


@pytest.fixture
def metrics(store):
    store.client.call("HSET", keys.AGENTS, AGENT, "{}")
    return MetricsStore(store.client)


def point(at, **fields):
    return Point(at=float(at), **fields)


def test_points_come_back_as_they_were_put(metrics):
    fields = {"cpu_percent": 12.5, "memory_bytes": 2.0**30, "pids": 7.0, "rx_bytes": 123456789012.0, "latency_s": 0.25}

    metrics.put({AGENT: [point(NOW, **fields), point(NOW + 10)]})

    assert metrics.get(AGENT, NOW) == [point(NOW, **fields), point(NOW + 10)]
    assert metrics.get(AGENT, NOW + 5) == [point(NOW + 10)]
    assert metrics.get("agent-0000000000000002", 0) == []


def test_what_is_older_than_an_hour_is_the_mean_of_its_minute(metrics):
    for minute in range(90):
        begin = NOW + minute * 60
        metrics.put({AGENT: [point(begin + second, cpu_percent=minute + second / 100) for second in range(0, 60, 10)]})

    found = metrics.get(AGENT, 0)

    assert len(found) == 30 + 360
    assert [each.at for each in found[:30]] == [NOW + minute * 60 for minute in range(30)]
    assert found[3].cpu_percent == pytest.approx(3.25)
    assert found[30].at == NOW + 30 * 60
    assert found[-1] == point(NOW + 90 * 60 - 10, cpu_percent=pytest.approx(89.5))


def test_a_day_is_kept_and_its_size_never_changes(metrics, store):
    metrics.put({AGENT: [point(NOW)]})
    assert store.client.call("STRLEN", keys.metrics(AGENT)) == HISTORY_BYTES
    held = store.client.call("MEMORY", "USAGE", keys.metrics(AGENT))

    for minute in range(25 * 60):
        metrics.put({AGENT: [point(NOW + minute * 60, cpu_percent=minute)]})

    found = metrics.get(AGENT, 0)
    assert found[0].at == NOW + 3600, "the oldest is a day old"
    assert found[-1].at == NOW + (25 * 60 - 1) * 60
    assert store.client.call("MEMORY", "USAGE", keys.metrics(AGENT)) <= held < 250_000


def test_an_agent_that_was_away_has_a_gap_and_nothing_old_in_it(metrics):
    metrics.put({AGENT: [point(NOW + second) for second in range(0, 60, 10)]})
    later = NOW + 3 * 3600
    metrics.put({AGENT: [point(later)]})

    assert [each.at for each in metrics.get(AGENT, later - 7 * 3600)] == [NOW, later]


def test_what_was_written_while_the_clock_was_wrong_hides_nothing(metrics):
    metrics.put({AGENT: [point(NOW + 365 * 86400)]})
    metrics.put({AGENT: [point(NOW), point(NOW + 10)]})

    assert [each.at for each in metrics.get(AGENT, NOW - 60, NOW + 20)] == [NOW, NOW + 10]


def test_many_agents_are_written_at_once(metrics, store):
    ids = [f"agent-{number:016x}" for number in range(50)]
    for agent_id in ids:
        store.client.call("HSET", keys.AGENTS, agent_id, "{}")

    metrics.put({agent_id: [point(NOW, pids=place)] for place, agent_id in enumerate(ids)})

    assert [metrics.get(agent_id, 0)[0].pids for agent_id in ids] == list(range(50))


def test_of_a_removed_agent_nothing_is_written(metrics, store):
    store.client.call("HDEL", keys.AGENTS, AGENT)

    metrics.put({AGENT: [point(NOW)]})

    assert store.client.call("EXISTS", keys.metrics(AGENT)) == 0


def test_a_history_of_another_length_is_begun_anew(metrics, store):
    store.client.call("SET", keys.metrics(AGENT), b"x" * 100)
    assert metrics.get(AGENT, 0) == []

    metrics.put({AGENT: [point(NOW)]})

    assert metrics.get(AGENT, 0) == [point(NOW)]


def test_a_daemon_that_lost_the_journal_writes_nothing(metrics, store):
    store.client.call("SET", keys.EPOCH, "99")

    with pytest.raises(Unavailable) as failure:
        metrics.put({AGENT: [point(NOW)]})

    assert failure.value.code == "JOURNAL_FENCED"


def test_nothing_to_write_asks_nobody(metrics, store):
    store.client.close()

    metrics.put({})
    metrics.put({AGENT: []})
