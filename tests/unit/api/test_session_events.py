"""`/api/v1/sessions/{id}/events`: one sequence over the runs of a conversation."""

import json

import gevent
import pytest

from agentainerd.model.interrupts import GivenAnswers
from agentainerd.services import session_events
from agentainerd.services.session_events import Place
from tests.fakes.programs import Program
from tests.fakes.runs import TEXT, AguiAgent, ask, asks, finish, reached, waiting
from tests.fakes.world import ADMIN


@pytest.fixture
def client(world):
    return world.client()


@pytest.fixture
def agent(world):
    made = AguiAgent(bridge="native")
    world.engine.add_image("web", Program(made.handle))
    world.up(image="web")
    world.wait_ready()
    return made


@pytest.fixture
def session(world, agent):
    return world.services.sessions.create(ADMIN, agent_id="web").id


@pytest.fixture
def talk(world, session):
    """Return a function that does a run in the session, and returns its id."""
    runs = world.services.runs
    return lambda text="x": finish(runs, ask(runs, text, session_id=session).id).id


def stream(client, session, query="", **headers):
    path = f"/api/v1/sessions/{session}/events{query}"
    with client.open(path, headers={"Accept": "text/event-stream", **headers}) as response:
        assert response.status_code == 200, response.get_data()
        lines = response.get_data(as_text=True).splitlines()
    told = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert [line[4:] for line in lines if line.startswith("id: ")] == [f"{one['run_id']}:{one['seq']}" for one in told]
    return [(one["run_id"], one["seq"]) for one in told]


def test_all_events_of_a_session_come_in_one_sequence(client, world, agent, session, talk):
    first, second = talk(), talk()
    finish(world.services.runs, ask(world.services.runs).id)  # of no session
    whole = [(run, seq) for run in (first, second) for seq in range(1, 7)]

    assert stream(client, session) == whole
    assert stream(client, session[:6], f"?after={first}:4") == whole[4:]
    assert stream(client, session, **{"Last-Event-ID": f"{second}:5"}) == whole[-1:]
    assert stream(client, session, **{"Last-Event-ID": "-1"}) == whole
    assert stream(client, session, f"?after={second}:6") == []
    assert stream(client, session, "?types=RUN_STARTED") == [(first, 1), (second, 1)]


def test_pages(client, agent, session, talk):
    first, second = talk(), talk()
    seen, after = [], ""
    while True:
        answer = client.call("GET", f"/api/v1/sessions/{session}/events?limit=5&after={after}")[1]
        seen += [(one["run_id"], one["seq"]) for one in answer["data"]]
        if "next_cursor" not in answer:
            break
        after = answer["next_cursor"]

    assert seen == [(run, seq) for run in (first, second) for seq in range(1, 7)]


def test_a_reader_sees_what_comes_while_a_run_is_under_way_or_queued(client, world, agent, session):
    runs = world.services.runs
    agent.script = waiting
    first = ask(runs, session_id=session).id
    reached(runs, first, 3)
    agent.script = lambda made, connection, body: made.play(connection, body, TEXT)
    second = ask(runs, session_id=session).id
    reader = gevent.spawn(stream, client, session)
    gevent.sleep(0)

    agent.cancel_seen.set()

    assert reader.get(timeout=10) == [(first, seq) for seq in range(1, 5)] + [(second, seq) for seq in range(1, 7)]


def test_a_stream_ends_with_a_question_and_goes_on_behind_the_answer(client, world, agent, session):
    runs = world.services.runs
    agent.script = asks([{"id": "i", "reason": "confirmation"}], (), TEXT)
    run = runs.wait(ask(runs, session_id=session).id, 10)

    assert stream(client, session) == [(run.id, 1), (run.id, 2)]
    assert stream(client, session, f"?after={run.id}:2") == []
    runs.answer(run.id, GivenAnswers(text="yes"), ADMIN)
    finish(runs, run.id)
    assert stream(client, session, f"?after={run.id}:2") == [(run.id, seq) for seq in range(3, 10)]


def test_a_session_without_runs_has_none(client, session):
    assert stream(client, session) == []
    assert client.call("GET", f"/api/v1/sessions/{session}/events")[1]["data"] == []


@pytest.mark.parametrize("after", ["x", "1", "a:b", "00000000-0000-4000-8000-000000000000:x"])
def test_places_that_are_none(client, session, after):
    assert client.call("GET", f"/api/v1/sessions/{session}/events?after={after}")[0] == 400
    assert client.call("GET", "/api/v1/sessions/00000000/events")[0] == 404


def test_a_session_that_is_deleted_ends_its_streams(world, agent, session):
    runs = world.services.runs
    agent.script = waiting
    run = ask(runs, session_id=session).id
    reached(runs, run, 3)
    found = session_events.follow(runs, session, Place())
    seen = [next(found)]
    world.services.sessions.delete(session, ADMIN)

    agent.cancel_seen.set()

    told = [*seen, *found]
    assert [(one[0].id, one[1].seq) for one in told if one] == [(run, seq) for seq in range(1, 5)]
