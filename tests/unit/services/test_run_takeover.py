"""What a daemon before this one left of runs; and what is refused or killed when something is away."""

import time

import gevent
import msgspec
import pytest

from agentainerd import defaults
from agentainerd.errors import Unavailable
from agentainerd.model.runs import CancelMode, Limits, RunEvent, RunStatus
from agentainerd.services.run_logs import RunLog
from agentainerd.store.run_writer import RunWriter
from agentainerd.store.runs import RunStore
from tests.fakes.programs import Program
from tests.fakes.runs import SSE, TEXT, AguiAgent, ask, finish, reached, waiting
from tests.fakes.world import ADMIN


def test_a_daemon_that_comes_back_settles_what_was_under_way(make_world):
    world = make_world()
    plain, native = AguiAgent(waiting), AguiAgent(waiting, bridge="native")
    for name, made in (("plain", plain), ("native", native)):
        world.engine.add_image(name, Program(made.handle))
        world.up(name, image=name)
        world.wait_ready(name)
    runs = world.services.runs
    session = world.services.sessions.create(ADMIN, agent_id="native")
    lost = ask(runs, agent_id="plain")
    joined = ask(runs, agent_id="native", session_id=session.id)
    for run in (lost, joined):
        reached(runs, run.id, 3)
    queued = ask(runs, "next", agent_id="native", session_id=session.id)
    seen = [event.seq for event in runs.events(joined.id, 0, 10)]
    world.supervisor.stop(2.0)
    native.events[joined.id] += [TEXT[2], {"type": "RUN_FINISHED", "threadId": "t", "runId": "r"}]
    native.script = lambda made, connection, body: made.play(connection, body, TEXT)

    again = make_world()
    again.services.runs.load()
    runs = again.services.runs

    lost = finish(runs, lost.id)
    assert (lost.status, lost.error.code, lost.output) == (RunStatus.FAILED, "interrupted", "hello ")
    joined = finish(runs, joined.id)
    assert (joined.status, joined.output) == (RunStatus.COMPLETED, "hello world")
    assert seen == [1, 2, 3]
    assert [event.seq for event in runs.follow(joined.id, 3) if event] == [4, 5]
    assert finish(runs, queued.id).status is RunStatus.COMPLETED
    assert len(native.inputs) == 2
    plain.cancel_seen.set()
    native.cancel_seen.set()


def test_a_limit_of_time_counts_from_the_beginning_across_daemons(make_world):
    world = make_world()
    native = AguiAgent(waiting, bridge="native")
    world.engine.add_image("web", Program(native.handle))
    world.up(image="web")
    world.wait_ready()
    run = ask(world.services.runs, limits=Limits(wall_s=1.5))
    reached(world.services.runs, run.id, 3)
    world.supervisor.stop(2.0)
    native.join = lambda connection, path: connection.sendall(SSE) or native.cancel_seen.wait(10)

    again = make_world()
    again.services.runs.load()

    done = again.services.runs.wait(run.id, 5)
    assert (done.status, done.error.code) == (RunStatus.FAILED, "timeout")
    assert done.finished_at - done.started_at < 3
    native.cancel_seen.set()


def test_a_cancel_that_a_daemon_did_not_finish_is_finished_by_the_next_one(make_world):
    world = make_world()
    native = AguiAgent(waiting, bridge="native")
    world.engine.add_image("web", Program(native.handle))
    world.up(image="web")
    world.wait_ready()
    run = ask(world.services.runs)
    reached(world.services.runs, run.id, 3)
    world.services.runs._active[run.id].change(status=RunStatus.CANCELLING)
    finish_writing = ask(world.services.runs, "another")  # what was begun before it is on disk
    world.supervisor.stop(2.0)
    native.ends_on_cancel = False

    again = make_world()
    again.services.runs.load()

    assert finish(again.services.runs, run.id).status is RunStatus.CANCELLED
    assert native.cancelled == [run.id]
    native.cancel_seen.set()
    again.services.runs.cancel(finish_writing.id, ADMIN)
    finish(again.services.runs, finish_writing.id)


def test_a_key_stands_for_its_run_also_for_the_next_daemon(make_world):
    world = make_world()
    made = AguiAgent()
    world.engine.add_image("web", Program(made.handle))
    world.up(image="web")
    world.wait_ready()
    run = finish(world.services.runs, ask(world.services.runs, key="k").id)
    world.supervisor.stop(2.0)

    again = make_world()
    again.services.runs.load()

    assert ask(again.services.runs, key="k").id == run.id
    assert len(made.inputs) == 1


def test_nothing_is_accepted_while_redis_is_away(runs, agent, world, monkeypatch):
    monkeypatch.setattr(defaults, "JOURNAL_WAIT_S", 0.2)
    agent()
    monkeypatch.setattr(world.redis, "run", _away)

    with pytest.raises(Unavailable):
        ask(runs)

    monkeypatch.undo()
    run = ask(runs)
    finish(runs, run.id)
    assert [one.id for one in runs.page(limit=10)[0]] == [run.id]


def test_a_cancel_kills_where_it_is_told_to(runs, agent, world):
    made = agent(waiting)
    run = ask(runs)
    reached(runs, run.id, 3)
    before = world.agent().replicas[0].started_at

    runs.cancel(run.id, ADMIN, CancelMode.KILL)

    assert finish(runs, run.id).status is RunStatus.CANCELLED
    deadline = time.monotonic() + 5
    while world.agent().replicas[0].started_at == before:
        assert time.monotonic() < deadline
        gevent.sleep(0.01)
    made.cancel_seen.set()


def _away(*_arguments):
    raise Unavailable("Redis does not answer", code="REDIS_UNAVAILABLE")


def test_a_log_that_lost_events_is_recalled_as_far_as_it_goes(world):
    store = RunStore(world.redis)
    writer = RunWriter(world.redis, world.supervisor.spawn)
    event = RunEvent(seq=1, at=1.0, type="CUSTOM", payload=msgspec.Raw(b"{}"))
    writer.commit(RunStore.append("lost", event, 0))

    assert list(RunLog("lost", writer, last_seq=3).recall(store)) == [b"{}"]
