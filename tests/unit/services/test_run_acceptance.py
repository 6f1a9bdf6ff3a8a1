"""Which runs are accepted, which are the same, which are listed, and which are kept."""

import time

import pytest

from agentainerd import defaults
from agentainerd.errors import Conflict, InvalidParameter, NotFound, TooManyRequests
from agentainerd.model.runs import Limits, RunStatus
from tests.fakes.programs import Program
from tests.fakes.runs import AguiAgent, ask, finish, waiting
from tests.fakes.world import ADMIN


def test_what_is_refused(runs, sessions, agent):
    agent()
    agent(name="other")
    session = sessions.create(ADMIN, agent_id="other")
    cases = [
        (InvalidParameter, "INVALID_PARAMETER", {"text": "  "}),
        (InvalidParameter, "INVALID_PARAMETER", {"limits": Limits(steps=0)}),
        (InvalidParameter, "INVALID_PARAMETER", {"limits": Limits(wall_s=-1)}),
        (InvalidParameter, "INVALID_PARAMETER", {"limits": Limits(cost_usd=float("inf"))}),
        (InvalidParameter, "INVALID_PARAMETER", {"text": "x" * (defaults.MAX_RUN_INPUT_CHARS + 1)}),
        (InvalidParameter, "INVALID_PARAMETER", {"key": "x" * 257}),
        (NotFound, "AGENT_NOT_FOUND", {"agent_id": "nobody"}),
        (NotFound, "SESSION_NOT_FOUND", {"session_id": "none"}),
        (Conflict, "SESSION_OF_OTHER_AGENT", {"session_id": session.id}),
    ]
    for kind, code, fields in cases:
        with pytest.raises(kind) as refused:
            ask(runs, **fields)
        assert refused.value.code == code, fields
    assert runs.page(limit=10) == ([], "")


def test_too_many_runs(runs, agent, monkeypatch):
    monkeypatch.setattr(defaults, "MAX_ACTIVE_RUNS", 1)
    made = agent(waiting, bridge="native")
    run = ask(runs)

    with pytest.raises(TooManyRequests):
        ask(runs)

    made.cancel_seen.set()
    finish(runs, run.id)
    finish(runs, ask(runs).id)


def test_a_key_stands_for_one_run(runs, agent):
    made = agent()
    run = ask(runs, key="k1")

    again = ask(runs, key="k1")
    other = ask(runs, key="k2")
    with pytest.raises(Conflict) as refused:
        ask(runs, "something else", key="k1")

    assert (again.id, refused.value.code) == (run.id, "IDEMPOTENCY_MISMATCH")
    assert {finish(runs, run.id).id, finish(runs, other.id).id} == {body["runId"] for body in made.inputs}


def test_pages_go_back_in_time(runs, agent):
    agent()
    agent(name="other")
    asked = [finish(runs, ask(runs, agent_id=name).id) for name in ("web", "other", "web", "web")]

    first, cursor = runs.page(limit=2)
    second, end = runs.page(limit=2, cursor=cursor)

    assert [run.id for run in (*first, *second)] == [run.id for run in reversed(asked)]
    assert (bool(cursor), end) == (True, "")
    assert [run.id for run in runs.page(agent="other", limit=9)[0]] == [asked[1].id]
    assert runs.page(status=RunStatus.FAILED, limit=9) == ([], "")
    with pytest.raises(InvalidParameter):
        runs.page(limit=1, cursor="nonsense")


def test_what_was_asked_counts_in_what_is_kept(runs, agent, monkeypatch):
    agent()
    picture = {"type": "image", "url": "data:image/png;base64," + "A" * 500_000}
    asked = [finish(runs, ask(runs, "x" * 500_000, media=[picture]).id), finish(runs, ask(runs).id)]

    assert asked[0].bytes > 1_000_000 > asked[1].bytes
    monkeypatch.setattr(defaults, "MAX_RUNS_BYTES", 900_000)
    assert runs.sweep(time.time()) == 1
    assert runs.get(asked[1].id)


def test_what_is_kept_too_long_or_too_much_goes(runs, sessions, agent, world, monkeypatch):
    agent()
    session = sessions.create(ADMIN, agent_id="web")
    asked = [finish(runs, ask(runs, session_id=session.id, key=f"k{number}").id) for number in range(4)]
    assert runs.sweep(time.time()) == 0

    monkeypatch.setattr(defaults, "MAX_RUNS", 3)
    assert runs.sweep(time.time()) == 1
    monkeypatch.setattr(defaults, "MAX_RUNS_BYTES", asked[3].bytes + 1)
    assert runs.sweep(time.time()) == 2
    assert runs.sweep(time.time() + defaults.RUNS_KEEP_S + 60) == 1

    session = sessions.create(ADMIN, agent_id="web")  # all that was begun before is written
    kept = [name.decode() for name in world.redis.call("KEYS", "*run*")]
    assert [name for name in kept if "runs-sizes" not in name] == []
    with pytest.raises(NotFound):
        runs.get(asked[0].id)


def test_a_run_that_begins_later_leaves_its_session_to_others_until_then(runs, sessions, agent):
    made = agent()
    session = sessions.create(ADMIN, agent_id="web")
    later = ask(runs, "later", session_id=session.id, after_seconds=0.3)
    now = ask(runs, "now", session_id=session.id)

    assert later.status is RunStatus.QUEUED
    assert finish(runs, now.id).finished_at < later.starts_at
    done = finish(runs, later.id)
    assert done.started_at >= later.starts_at
    assert [body["prompt"] for body in made.inputs] == ["now", "later"]


def test_a_run_that_begins_later_can_be_cancelled_before(runs, agent):
    made = agent()
    run = ask(runs, after_seconds=3600)

    runs.cancel(run.id, ADMIN)

    assert finish(runs, run.id).status is RunStatus.CANCELLED
    assert made.inputs == []


def test_a_run_that_begins_later_does_so_under_another_daemon(make_world):
    world = make_world()
    made = AguiAgent()
    world.engine.add_image("web", Program(made.handle))
    world.up(image="web")
    world.wait_ready()
    run = ask(world.services.runs, after_seconds=0.5)
    world.supervisor.stop(2.0)

    again = make_world()
    again.services.runs.load()

    done = finish(again.services.runs, run.id)
    assert (done.status, done.started_at >= run.starts_at) == (RunStatus.COMPLETED, True)
