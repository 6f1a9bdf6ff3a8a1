"""The history between the rounds and Redis."""

import pytest

from agentainerd.errors import Unavailable
from agentainerd.model.metrics_history import Point
from agentainerd.services.metrics_history import MetricsHistory
from agentainerd.store.metrics import MetricsStore

NOW = 1_800_000_000.0


@pytest.fixture
def agent_id(world):
    return world.deploy().id


@pytest.fixture
def history(world):
    return MetricsHistory(MetricsStore(world.redis))


def at(points):
    return [each.at - NOW for each in points]


def test_points_are_there_at_once_and_written_when_their_minute_is_over(world, history, agent_id):
    for second in range(0, 80, 10):
        history.note(agent_id, Point(at=NOW + second))
        history.turn(NOW + second)

    assert at(history.points(agent_id, NOW)) == list(range(0, 80, 10))
    assert at(MetricsStore(world.redis).get(agent_id, NOW)) == list(range(0, 60, 10))
    assert at(history.points(agent_id, NOW + 65)) == [70]


def test_a_minute_is_written_once(world, history, agent_id, monkeypatch):
    written = []
    monkeypatch.setattr(MetricsStore, "put", lambda self, points: written.append(points))

    for second in range(0, 120, 10):
        history.note(agent_id, Point(at=NOW + second))
        history.turn(NOW + second)

    assert [len(each[agent_id]) for each in written] == [6]


def test_what_is_left_is_written_at_the_end(world, history, agent_id):
    history.note(agent_id, Point(at=NOW))

    history.flush()

    assert at(MetricsStore(world.redis).get(agent_id, NOW)) == [0]


def test_while_redis_is_away_the_last_hour_is_kept(history, agent_id, monkeypatch):
    def away(self, points):
        raise Unavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(MetricsStore, "put", away)
        for second in range(0, 7200, 10):
            history.note(agent_id, Point(at=NOW + second))
            if second and second % 60 == 0:
                with pytest.raises(Unavailable):
                    history.turn(NOW + second)

    history.turn(NOW + 7200)

    assert at(history.points(agent_id, NOW + 3600)) == list(range(3600, 7200, 10))


def test_many_agents_are_written_some_at_a_time(history, agent_id, monkeypatch):
    written = []
    monkeypatch.setattr(MetricsStore, "put", lambda self, points: written.append(len(points)))
    for number in range(250):
        history.note(f"agent-{number:016x}", Point(at=NOW))

    history.flush()
    history.flush()

    assert written == [100, 100, 50]


def test_a_removed_agent_is_forgotten(history, agent_id):
    history.note(agent_id, Point(at=NOW))

    history.keep_only(())
    history.flush()

    assert history.points(agent_id, 0) == []
