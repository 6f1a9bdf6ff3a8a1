"""The daemon's log as it is read, followed and told on a channel."""

import json
import time

import gevent
import pytest

from agentainerd.model.system_logs import Level, LogFilter, stamp
from agentainerd.store.connection import RedisClient
from agentainerd.store.system_logs import LOG_FOLDER, Limits, LogWriter

ALL = LogFilter()


@pytest.fixture
def writer(world):
    made = LogWriter(world.state_dir / LOG_FOLDER, Limits(2000, 3600, 100))
    yield made
    made.close()


@pytest.fixture
def write(world, writer):
    """Write entries as the daemon does: to the files, then told."""

    def write(*messages: str, level: str = "info", component: str = "store.journal") -> list[bytes]:
        now = time.time()
        lines = [
            json.dumps(
                {"time": stamp(now), "level": level, "component": component, "message": text}, separators=(",", ":")
            ).encode()
            + b"\n"
            for text in messages
        ]
        writer.write(b"".join(lines))
        world.services.system_logs.written(lines)
        return lines

    return write


def messages(entries) -> list[str]:
    return [entry["message"] for entry in entries]


def test_the_last_are_found_across_files(world, write):
    for number in range(200):
        write(str(number))
    write("bad", level="error", component="proxy.server")
    for number in range(200, 300):
        write(str(number))
    logs = world.services.system_logs

    assert messages(logs.last(150, ALL)) == [*map(str, range(151, 200)), "bad", *map(str, range(200, 300))]
    assert messages(logs.last(5, LogFilter(Level.WARNING))) == ["bad"]
    assert messages(logs.last(5, LogFilter(components=("proxy",)))) == ["bad"]
    assert len(logs.last(1000, ALL)) == 301
    assert messages(logs.read(ALL)) == messages(logs.last(1000, ALL))


def test_since_a_time(world, write):
    write("before")
    since = stamp(time.time())
    write("after")

    assert messages(world.services.system_logs.read(LogFilter(since=since))) == ["after"]


def test_what_is_no_entry_is_left_out(world, write, writer):
    write("a")
    writer.write(b'{"time":"2026\n\xff\xfe\n[]\n')
    write("b")

    assert messages(world.services.system_logs.last(10, ALL)) == ["a", "b"]


def test_a_follower_gets_the_last_and_then_what_comes_each_once(world, write):
    write(*map(str, range(50)))
    follower = world.services.system_logs.follow(10, ALL)
    assert [next(follower) for _ in range(11)][-1] is None

    for number in range(50, 100):
        write(str(number))
    came = [next(follower) for _ in range(50)]

    assert messages(came) == list(map(str, range(50, 100)))
    waiting = gevent.spawn(next, follower)
    gevent.sleep(0)
    write("quiet", level="debug")
    assert waiting.get(timeout=5)["message"] == "quiet"
    follower.close()


def test_a_follower_without_entries_hears_that_it_lives(world, monkeypatch):
    monkeypatch.setattr("agentainerd.defaults.LOG_HEARTBEAT_S", 0.01)
    follower = world.services.system_logs.follow(10, ALL)

    assert [next(follower) for _ in range(3)] == [None] * 3


def test_entries_are_told_on_the_channel_of_the_original(world, write, shared_redis):
    listener = RedisClient(shared_redis.url).connection(5.0)
    listener.connect()
    listener.send_command("SUBSCRIBE", "logs:stream")
    assert listener.read_response() == [b"subscribe", b"logs:stream", 1]

    first, second = write("one", "two")

    assert listener.read_response() == [b"message", b"logs:stream", first.rstrip()]
    assert listener.read_response() == [b"message", b"logs:stream", second.rstrip()]
    listener.disconnect()


def test_without_redis_nothing_is_kept_for_it(world, write, monkeypatch, eventually):
    logs = world.services.system_logs
    world.redis.close()
    broken = RedisClient("unix:///nonexistent.sock")
    monkeypatch.setattr(logs._channel, "_client", broken)

    write("a", "b")

    eventually(lambda: not logs._unpublished and not logs._is_publishing)
    assert messages(logs.last(5, ALL)) == ["a", "b"]
