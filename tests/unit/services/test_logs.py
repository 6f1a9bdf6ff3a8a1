"""Reading what an agent writes."""

import re

import gevent
import pytest

from agentainerd.errors import NotFound, Unavailable
from agentainerd.services.logs import LogOptions, Notice
from tests.fakes.world import ADMIN


def read(world, **options) -> list[str]:
    reader = world.services.agents.logs("web", LogOptions(**options))
    try:
        return b"".join(piece.data for piece in reader if not isinstance(piece, Notice)).decode().splitlines()
    finally:
        reader.close()


class Follower:
    """Collects lines in the background."""

    def __init__(self, world, **options):
        self.lines: list[str] = []
        self.notices: list[str] = []
        self.reader = world.services.agents.logs("web", LogOptions(follow=True, **options))
        self.greenlet = gevent.spawn(self._run)  # noqa: TID251

    def _run(self):
        for piece in self.reader:
            if isinstance(piece, Notice):
                self.notices.append(piece.text)
            else:
                self.lines += piece.data.decode().splitlines()


@pytest.fixture
def follow(world):
    made = []

    def begin(**options):
        made.append(Follower(world, **options))
        return made[-1]

    yield begin
    for follower in made:
        follower.reader.close()
        follower.greenlet.kill()


def test_all_lines_or_the_last_or_those_of_one_stream(world):
    agent = world.up()
    for number in range(5):
        world.engine.say(agent.id, f"out {number}")
    world.engine.say(agent.id, "err", stream="stderr")

    assert read(world)[-6:] == ["out 0", "out 1", "out 2", "out 3", "out 4", "err"]
    assert read(world, tail=2) == ["out 4", "err"]
    assert read(world, stream="stderr") == ["err"]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", line) for line in read(world, timestamps=True))


def test_an_agent_that_never_ran_has_no_log_and_an_unknown_one_is_not_found(world):
    world.deploy()

    assert read(world) == []
    with pytest.raises(NotFound):
        world.services.agents.logs("nobody", LogOptions())


def test_an_engine_that_is_away_is_told_at_once(world):
    world.up()
    world.engine.go_down()

    with pytest.raises(Unavailable):
        world.services.agents.logs("web", LogOptions())


def test_a_follow_goes_on_over_a_restart_without_a_line_twice(world, follow, eventually):
    agent = world.up()
    follower = follow()
    world.engine.say(agent.id, "before")
    eventually(lambda: "before" in follower.lines)

    world.services.agents.restart("web", ADMIN, wait_s=5)
    world.engine.say(agent.id, "after")

    eventually(lambda: "after" in follower.lines)
    assert follower.lines.count("before") == 1
    assert follower.notices == ["the agent was started again"]
    assert not any(line.startswith("20") for line in follower.lines)


def test_a_follow_waits_for_an_agent_that_is_stopped(world, follow, eventually):
    agent = world.up()
    follower = follow()
    world.services.agents.stop("web", ADMIN)
    world.services.agents.start("web", ADMIN, wait_s=5)

    world.engine.say(agent.id, "again")

    eventually(lambda: "again" in follower.lines)


def test_a_follow_ends_when_the_agent_is_removed(world, follow, eventually):
    world.up()
    follower = follow()

    world.services.agents.remove("web", ADMIN)

    follower.greenlet.join(10)
    assert follower.greenlet.ready()


def test_a_follow_survives_an_engine_that_goes_away(world, follow, eventually):
    agent = world.up()
    follower = follow()
    world.engine.say(agent.id, "one")
    eventually(lambda: "one" in follower.lines)
    world.engine.go_down()
    world.engine.come_back()

    world.engine.say(agent.id, "two")

    eventually(lambda: "two" in follower.lines, limit_s=15)
    assert follower.lines.count("one") == 1


def test_a_reader_that_is_closed_ends(world, follow):
    world.up()
    follower = follow()

    follower.reader.close()
    follower.reader.close()

    follower.greenlet.join(5)
    assert follower.greenlet.ready()
