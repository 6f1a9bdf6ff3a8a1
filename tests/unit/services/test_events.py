"""Events are stored in order, kept while Redis is away, and read from any point."""

import gevent
import pytest

from agentainerd import defaults
from agentainerd.errors import Unavailable
from agentainerd.model.events import Action, EventFilter
from agentainerd.services import events as module
from agentainerd.services.events import EventService
from agentainerd.store.events import EventStore

pytestmark = pytest.mark.redis
ALL = EventFilter()


@pytest.fixture
def service(world):
    return EventService(EventStore(world.redis), world.supervisor.spawn)


def tell(service, count, action=Action.START, agent="web"):
    for number in range(count):
        service.publish(action, agent=agent, message=str(number))


def messages(found):
    return [event.message for event in found]


def test_events_are_stored_in_their_order_and_the_last_are_given(service, eventually):
    tell(service, 250)

    eventually(lambda: messages(service.last(3, ALL)) == ["247", "248", "249"])
    assert messages(service.after("", 1000, ALL)) == [str(number) for number in range(250)]
    ids = [event.id for event in service.after("", 1000, ALL)]
    assert len(set(ids)) == 250
    assert messages(service.after(ids[9], 2, ALL)) == ["10", "11"]


def test_some_are_asked_for(service, eventually):
    tell(service, 3)
    tell(service, 2, Action.DIE, "other")

    eventually(lambda: len(service.last(10, ALL)) == 5)
    assert messages(service.last(10, EventFilter(("die",)))) == ["0", "1"]
    assert messages(service.after("", 1, EventFilter((), ("other",)))) == ["0"]


def test_only_the_last_are_kept(service, eventually, monkeypatch):
    monkeypatch.setattr(defaults, "MAX_EVENTS", 100)
    tell(service, 100)
    tell(service, 50)

    eventually(lambda: messages(service.last(1, ALL)) == ["49"])
    assert len(service.after("", 1000, ALL)) == 100


def test_a_follower_gets_what_was_and_what_comes(service, eventually):
    tell(service, 2)
    eventually(lambda: len(service.last(10, ALL)) == 2)
    found = []
    follower = gevent.spawn(lambda: [found.append(event) for event in service.follow("", ALL) if event])

    eventually(lambda: len(found) == 2)
    tell(service, 1, Action.DIE)

    eventually(lambda: [event.action for event in found] == ["start", "start", "die"])
    follower.kill()


def test_without_a_point_a_follower_gets_only_what_comes(service, eventually):
    tell(service, 2)
    eventually(lambda: len(service.last(10, ALL)) == 2)
    stream = service.follow(None, ALL)
    assert next(stream) is None, "from here on nothing is missed"

    tell(service, 1, Action.DIE)

    assert next(event for event in stream if event).action is Action.DIE


def test_a_silent_stream_says_that_it_lives(service, monkeypatch):
    monkeypatch.setattr(defaults, "EVENT_HEARTBEAT_S", 0.01)
    stream = service.follow("", ALL)

    assert [next(stream), next(stream)] == [None, None]


def test_what_happens_while_redis_is_away_is_told_later_and_once(world, monkeypatch, eventually):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    kept = EventStore(world.redis)
    lost = [Unavailable("away"), None, Unavailable("the answer was lost")]

    class Flaky(EventStore):
        def append(self, events):
            trouble = lost.pop(0) if lost else None
            if trouble is None or trouble.message == "the answer was lost":
                super().append(events)
            if trouble:
                raise trouble

    service = EventService(Flaky(world.redis), world.supervisor.spawn)
    tell(service, 3)
    eventually(lambda: len(kept.after("", 10)) == 3)
    tell(service, 2)

    eventually(lambda: not lost and len(kept.after("", 10)) == 5)
    assert messages(kept.after("", 10)) == ["0", "1", "2", "0", "1"]


def test_a_daemon_that_lost_the_journal_tells_nothing_more(service, world, eventually):
    tell(service, 1)
    eventually(lambda: len(service.last(10, ALL)) == 1)
    world.redis.epoch = b"0"

    tell(service, 1)

    eventually(lambda: not service._is_writing)
    assert len(service.last(10, ALL)) == 1
