"""The writer of runs: many writes in one script, in order, again and again until they are there, or said not to be."""

import gevent
import pytest

from agentainerd.errors import Unavailable
from agentainerd.model.runs import Run, RunEvent
from agentainerd.store.connection import RedisClient
from agentainerd.store.run_writer import BATCH, RunWriter
from agentainerd.store.runs import RunStore


class Client:
    """A RedisClient whose scripts fail as `failures` say, in order; `batches` has how many arguments each had."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self.failures: list[Exception | None] = []
        self.batches: list[int] = []

    def run(self, script, *arguments):
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, Unavailable) and failure.code == "REDIS_FULL" and b"flags=allow-oom" in script.source:
            failure = None
        if failure is not None and failure.args != ("after",):
            raise failure
        self.batches.append(len(arguments))
        answer = self._client.run(script, *arguments)
        if failure is not None:
            raise Unavailable("no answer", code="REDIS_UNAVAILABLE")
        return answer


@pytest.fixture
def client(world):
    return Client(world.redis)


@pytest.fixture
def writer(client, world):
    return RunWriter(client, world.supervisor.spawn)


def run(number: int = 1) -> Run:
    return Run(id=f"run-{number}", agent_id="agent-1", agent="web", input="x", created_at=float(number))


def event(seq: int) -> RunEvent:
    return RunEvent(seq=seq, at=1.0, type="CUSTOM", payload=b'{"n": %d}' % seq)


def test_what_is_written_at_the_same_time_is_one_script(world, writer, client):
    store = RunStore(world.redis)

    writes = [writer.write(RunStore.begin(run(number))) for number in range(50)]
    for write in writes:
        assert write.wait(5)

    assert len(client.batches) == 1
    assert len(store.active()) == 50


def test_a_batch_is_bounded(writer, client):
    writes = [writer.write(RunStore.put(run())) for _ in range(BATCH + 1)]

    assert writes[-1].wait(5)
    assert len(client.batches) == 2


def test_what_got_no_answer_is_written_again_and_is_there_once(world, writer, client, monkeypatch):
    monkeypatch.setattr("agentainerd.store.run_writer.RETRY_S", 0.01)
    client.failures = [Unavailable("away", code="REDIS_UNAVAILABLE"), Exception("after")]
    client.failures[1].args = ("after",)

    first = writer.write(
        [*RunStore.begin(run()), *RunStore.append("run-1", event(1), 0), *RunStore.append("run-1", event(2), 0)]
    )
    second = writer.write(RunStore.append("run-1", event(3), 7))

    assert first.wait(5)
    assert second.wait(5)
    store = RunStore(world.redis)
    assert [found.seq for found in store.events("run-1", 0, 10)] == [1, 2, 3]
    assert store.last_event("run-1")[1] == 7


def test_where_redis_is_full_only_what_insists_is_written(world, writer, client):
    full = Unavailable("full", code="REDIS_FULL")
    client.failures = [full, full, full]

    refused, insisting = writer.write(RunStore.begin(run(1))), writer.write(RunStore.begin(run(2)), insists=True)

    with pytest.raises(Unavailable, match="full"):
        refused.wait(5)
    assert insisting.wait(5)
    assert [found.id for found in RunStore(world.redis).active()] == ["run-2"]


def test_another_daemon_has_the_journal(writer, client):
    client.failures = [Unavailable("fenced", code="JOURNAL_FENCED")]

    with pytest.raises(Unavailable, match="fenced"):
        writer.write(RunStore.put(run()), insists=True).wait(5)


def test_what_redis_refuses_for_good_is_said_and_holds_up_nothing(writer):
    wrong = writer.write(["?", "x"])
    gevent.sleep(0)
    right = writer.write(RunStore.put(run()))

    with pytest.raises(Unavailable, match="unknown operation"):
        wrong.wait(5)
    assert right.wait(5)


def test_what_was_not_sent_yet_can_be_taken_back(world, writer):
    write = writer.write(RunStore.begin(run()))

    assert writer.withdraw(write)
    assert not writer.withdraw(write)
    assert writer.write(RunStore.put(run(2))).wait(5)
    assert RunStore(world.redis).active() == []
