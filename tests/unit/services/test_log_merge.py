"""The output of several replicas as one."""

import gevent
import pytest

from agentainerd.errors import NotFound
from agentainerd.services.log_merge import Told
from agentainerd.services.logs import LogOptions


def read(world, **options):
    reader = world.services.agents.logs("web", LogOptions(**options))
    try:
        return [
            (item.replica, item.piece.data.decode()) if isinstance(item, Told) else item.data.decode()
            for item in reader
        ]
    finally:
        reader.close()


@pytest.fixture
def two(world):
    agent = world.up(replicas=2)
    for number, text in ((1, "one"), (2, "two"), (1, "three"), (2, "four five")):
        world.engine.say(agent.id, text, replica=number)
        gevent.sleep(0.002)
    return agent


def test_lines_are_in_the_order_of_their_time_each_with_its_replica(world, two):
    said = [entry for entry in read(world) if entry[1].strip() in ("one", "two", "three", "four five")]

    assert said == [(1, "one\n"), (2, "two\n"), (1, "three\n"), (2, "four five\n")]


def test_a_tail_is_that_of_all(world, two):
    assert read(world, tail=2) == [(1, "three\n"), (2, "four five\n")]


def test_times_are_shown_where_they_are_asked_for(world, two):
    assert all(line.startswith("20") for _, line in read(world, timestamps=True))


def test_one_replica_is_read_alone(world, two):
    assert "".join(read(world, replica=2)).endswith("two\nfour five\n")
    with pytest.raises(NotFound):
        read(world, replica=3)


def test_a_follow_has_all_of_them_and_ends_with_the_reader(world, two, eventually):
    reader = world.services.agents.logs("web", LogOptions(follow=True, tail=0))
    heard = []
    following = gevent.spawn(lambda: [heard.append((told.replica, told.piece)) for told in reader])  # noqa: TID251
    gevent.sleep(0.05)

    for number in (1, 2):
        world.engine.say(two.id, f"live {number}", replica=number)

    eventually(lambda: {(number, piece.data) for number, piece in heard} >= {(1, b"live 1\n"), (2, b"live 2\n")})
    reader.close()
    following.join(5)
    assert following.ready()
