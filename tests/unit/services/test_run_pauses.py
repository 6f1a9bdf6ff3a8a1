"""Runs that wait for an answer: asked for by AG-UI's interrupts, answered by `resume`, across daemons, in time, or never."""

import time

import gevent
import msgspec
import pytest

from agentainerd import clock, defaults
from agentainerd.errors import Conflict, InvalidParameter, Unavailable
from agentainerd.model.interrupts import GivenAnswer, GivenAnswers
from agentainerd.model.runs import Limits, OnBusy, RunStatus
from agentainerd.services import run_pauses
from tests.conftest import wait_until
from tests.fakes.programs import Program
from tests.fakes.runs import TEXT, AguiAgent, ask, asks, finish, told, types
from tests.fakes.world import ADMIN

YES = GivenAnswers(text="yes")
QUESTION = {
    "id": "i1", "reason": "tool_call", "message": "May I?", "toolCallId": "c1",
    "responseSchema": {"type": "object", "properties": {"approved": {"type": "boolean"}, "reason": {"type": "string"}}},
}  # fmt: skip
CALL = [
    {"type": "TOOL_CALL_START", "toolCallId": "c1", "toolCallName": "rm"},
    {"type": "TOOL_CALL_END", "toolCallId": "c1"},
]
RESULT = {"type": "TOOL_CALL_RESULT", "messageId": "t1", "toolCallId": "c1", "content": "gone"}


def asking(*interrupts, before=CALL, after=(RESULT, *TEXT)):
    return asks(interrupts or (QUESTION,), before, after)


def paused(runs, run_id: str):
    run = runs.wait(run_id, 10)
    assert run.status is RunStatus.INPUT_REQUIRED, run
    return run


def test_a_run_waits_for_an_answer_and_goes_on_with_it(runs, agent):
    made = agent(asking())
    run = paused(runs, ask(runs, media=[]).id)
    before = types(runs, run.id)

    going_on = runs.answer(run.id, YES, ADMIN)
    done = finish(runs, run.id)

    assert [one["id"] for one in run.interrupts] == ["i1"]
    assert (run.usage.input_tokens, run.steps) == (7, 1)
    assert run.answer_by == pytest.approx(clock.now() + defaults.RUN_ANSWER_TIMEOUT_S, abs=60)
    assert going_on.status is RunStatus.RUNNING
    assert (done.status, done.output, done.answered) == (RunStatus.COMPLETED, "hello world", 1)
    assert before == ["RUN_STARTED", "TOOL_CALL_START", "TOOL_CALL_END", "RUN_FINISHED"]
    assert types(runs, run.id) == [
        *before, "RUN_STARTED", "CUSTOM", "TOOL_CALL_RESULT", *[event["type"] for event in TEXT], "RUN_FINISHED",
    ]  # fmt: skip
    answered = told(runs, run.id)[len(before) + 1]
    assert (answered["name"], answered["value"]["resume"][0]["payload"]) == ("run.answered", {"approved": True})
    first, second = made.inputs
    assert (first["runId"], second["runId"]) == (run.id, f"{run.id}.1")
    assert first["threadId"] == second["threadId"]
    assert second["resume"] == [{"interruptId": "i1", "status": "resolved", "payload": {"approved": True}}]
    assert [message["role"] for message in second["messages"]] == ["user", "assistant"]
    assert "resume" not in first
    assert (done.usage.input_tokens, done.steps, done.usage.cost_usd) == (14, 2, 1.0)


def test_nothing_is_under_way_while_a_run_waits(runs, agent, world):
    agent(asking(before=()))
    run = paused(runs, ask(runs).id)

    assert [target.in_flight for target in world.route().serving] == [0]
    assert not run.is_given
    runs.cancel(run.id, ADMIN)
    finish(runs, run.id)


def test_a_stream_ends_with_the_question_and_can_be_joined_again(runs, agent):
    agent(asking())
    run = paused(runs, ask(runs).id)
    seen = [event.seq for event in runs.follow(run.id) if event]

    assert [event.seq for event in runs.follow(run.id, seen[-1]) if event] == seen[-1:]
    runs.answer(run.id, YES, ADMIN)
    more = [event.seq for event in runs.follow(run.id, seen[-1]) if event]
    assert seen + more == list(range(1, finish(runs, run.id).last_seq + 1))
    assert [event.seq for event in runs.follow(run.id) if event] == seen + more


def test_it_may_ask_again_and_again(runs, agent):
    made = agent(asking(after=()))
    made.script = lambda made, connection, body: (
        asking()(made, connection, {**body, "resume": None})
        if len(made.inputs) < 3
        else asking()(made, connection, body)
    )
    run = paused(runs, ask(runs).id)
    runs.answer(run.id, YES, ADMIN)
    again = paused(runs, run.id)
    runs.answer(run.id, GivenAnswers(text="no, not that"), ADMIN)

    assert (again.answered, again.answers) == (1, [])
    assert finish(runs, run.id).answered == 2
    assert [body["runId"] for body in made.inputs] == [run.id, f"{run.id}.1", f"{run.id}.2"]
    assert made.inputs[2]["resume"][0]["payload"] == {"approved": False, "reason": "not that"}


def test_an_answer_is_refused_where_it_is_none(runs, agent):
    agent(asking(QUESTION, {"id": "i2", "reason": "confirmation"}))
    run = paused(runs, ask(runs).id)

    for wrong in (
        GivenAnswers(),
        GivenAnswers(text="perhaps"),
        GivenAnswers(resume=[GivenAnswer(interrupt_id="i1", text="yes")]),
        GivenAnswers(resume=[GivenAnswer(interrupt_id=name, text="yes") for name in ("i1", "i2", "i3")]),
        GivenAnswers(resume=[GivenAnswer(interrupt_id="i1", text="yes")] * 2),
        GivenAnswers(text="yes", resume=[GivenAnswer(interrupt_id="i1", text="yes")]),
    ):
        with pytest.raises(InvalidParameter):
            runs.answer(run.id, wrong, ADMIN)
    assert paused(runs, run.id).answers == []
    runs.answer(run.id, GivenAnswers(text="yes"), ADMIN)
    finish(runs, run.id)


def test_the_same_answer_once_more_changes_nothing_and_another_one_is_too_late(runs, agent):
    made = agent(asking())
    run = paused(runs, ask(runs).id)
    runs.answer(run.id, YES, ADMIN)

    assert runs.answer(run.id, YES, ADMIN).id == run.id
    done = finish(runs, run.id)
    assert runs.answer(run.id, YES, ADMIN).status is done.status
    for late in ("no", "perhaps"):
        with pytest.raises(Conflict) as failure:
            runs.answer(run.id, GivenAnswers(text=late), ADMIN)
        assert failure.value.code == "RUN_NOT_WAITING"
    assert len(made.inputs) == 2


def test_of_two_answers_at_a_time_one_counts(runs, agent):
    made = agent(asking())
    run = paused(runs, ask(runs).id)

    def answer(text):
        try:
            return runs.answer(run.id, GivenAnswers(text=text), ADMIN).status
        except Conflict as error:
            return error.code

    tries = [gevent.spawn(answer, text) for text in ("yes", "no")]
    gevent.joinall(tries, timeout=5)

    assert [one.value for one in tries] == [RunStatus.RUNNING, "RUN_NOT_WAITING"]
    finish(runs, run.id)
    assert len(made.inputs) == 2


def test_a_run_that_does_not_wait_takes_no_answer(runs, agent):
    agent()
    run = finish(runs, ask(runs).id)

    with pytest.raises(Conflict, match="does not wait"):
        runs.answer(run.id, YES, ADMIN)


def test_a_run_that_waits_can_be_cancelled(runs, agent):
    made = agent(asking(), bridge="native")
    run = paused(runs, ask(runs).id)

    runs.cancel(run.id, ADMIN)

    assert finish(runs, run.id).status is RunStatus.CANCELLED
    assert types(runs, run.id)[-2:] == ["RUN_FINISHED", "RUN_ERROR"]
    assert made.cancelled == []  # there is nothing at the container that could be


@pytest.mark.parametrize("bound", ["setting", "limit", "interrupt"])
def test_a_run_does_not_wait_for_ever(runs, agent, bound):
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 1))
    agent(asking({**QUESTION, "expiresAt": expires} if bound == "interrupt" else QUESTION))
    if bound == "setting":
        runs.answer_timeout_s = 0.2
    limits = Limits(wall_s=0.3) if bound == "limit" else Limits()
    run = ask(runs, limits=limits)

    runs.wait(run.id, 5)
    deadline = time.monotonic() + 5
    while not runs.get(run.id).status.is_final:
        assert time.monotonic() < deadline
        gevent.sleep(0.01)
    done = runs.get(run.id)
    assert (done.status, done.error.code) == (RunStatus.FAILED, "timeout")
    assert "nobody answered" in done.error.message


def test_the_time_that_it_waits_is_none_that_it_takes(runs, agent, monkeypatch):
    monkeypatch.setattr(defaults, "RUN_WALL_S", 1.0)
    agent(asking())
    run = paused(runs, ask(runs).id)
    monkeypatch.setattr(clock, "now", lambda: time.time() + 30)

    runs.answer(run.id, YES, ADMIN)

    done = finish(runs, run.id)
    assert (done.status, done.waited_s > 29) == (RunStatus.COMPLETED, True)


@pytest.mark.parametrize("bridge", ["agui", "native"])
def test_a_run_waits_across_daemons(make_world, bridge):
    world = make_world()
    made = AguiAgent(asking(), bridge=bridge)
    world.engine.add_image("web", Program(made.handle))
    world.up(image="web")
    world.wait_ready()
    run = paused(world.services.runs, ask(world.services.runs).id)
    world.supervisor.stop(2.0)

    again = make_world()
    again.services.runs.load()
    runs = again.services.runs
    seen = [event.seq for event in runs.follow(run.id) if event]
    assert paused(runs, run.id).interrupts == run.interrupts
    runs.answer(run.id, YES, ADMIN)

    done = finish(runs, run.id)
    assert (done.status, done.output, done.usage.input_tokens) == (RunStatus.COMPLETED, "hello world", 14)
    assert [event.seq for event in runs.follow(run.id, seen[-1]) if event] == list(range(5, done.last_seq + 1))
    assert made.inputs[1]["resume"][0]["payload"] == {"approved": True}
    assert made.joined == []


def test_an_answer_that_a_daemon_took_and_did_not_send_is_sent_by_the_next_one(make_world):
    world = make_world()
    made = AguiAgent(asking())
    world.engine.add_image("web", Program(made.handle))
    world.up(image="web")
    world.wait_ready()
    runs = world.services.runs
    run = paused(runs, ask(runs).id)
    execution = runs._active[run.id]
    execution.wanted = gevent.event.Event()  # it does not hear of it
    runs.answer(run.id, YES, ADMIN)
    world.supervisor.stop(2.0)

    again = make_world()
    again.services.runs.load()

    assert finish(again.services.runs, run.id).status is RunStatus.COMPLETED
    assert len(made.inputs) == 2


def test_a_run_that_goes_on_is_joined_again_where_it_was(make_world):
    world = make_world()
    made = AguiAgent(bridge="native")

    def script(made, connection, body):
        if not body.get("resume"):
            asking()(made, connection, body)
            return
        made.begin(connection, body, (RESULT, TEXT[0]))
        made.cancel_seen.wait(10)

    made.script = script
    world.engine.add_image("web", Program(made.handle))
    world.up(image="web")
    world.wait_ready()
    runs = world.services.runs
    run = paused(runs, ask(runs).id)
    runs.answer(run.id, YES, ADMIN)
    next(event for event in runs.follow(run.id) if event and event.seq == 8)
    world.supervisor.stop(2.0)
    part = f"{run.id}.1"
    made.events[part] += [*TEXT[1:], {"type": "RUN_FINISHED", "threadId": "t", "runId": part}]

    again = make_world()
    again.services.runs.load()

    done = finish(again.services.runs, run.id)
    assert (done.status, done.output) == (RunStatus.COMPLETED, "hello world")
    assert made.joined == [f"/runs/{part}/events?after=3"]
    made.cancel_seen.set()


def test_a_session_waits_with_its_run_and_is_told_of_a_question_that_nobody_answered(runs, sessions, agent):
    made = agent(asking())
    session = sessions.create(ADMIN, agent_id="web")
    run = paused(runs, ask(runs, session_id=session.id).id)
    with pytest.raises(Conflict):
        ask(runs, session_id=session.id, on_busy=OnBusy.REJECT)
    behind = ask(runs, "next", session_id=session.id)
    assert runs.get(behind.id).status is RunStatus.QUEUED

    runs.cancel(run.id, ADMIN)

    assert finish(runs, behind.id).status is RunStatus.COMPLETED
    assert made.inputs[1]["resume"] == [{"interruptId": "i1", "status": "cancelled"}]
    assert made.inputs[1]["runId"] == behind.id
    assert sessions.get(session.id).unanswered == []


def test_what_was_answered_is_in_the_conversation_whole(runs, sessions, agent):
    agent(asking())
    session = sessions.create(ADMIN, agent_id="web")
    run = paused(runs, ask(runs, session_id=session.id).id)
    runs.answer(run.id, YES, ADMIN)
    finish(runs, run.id)

    said = sessions.last_messages(session.id, 10)
    assert [(one.role, one.content) for one in said] == [
        ("user", "say hello"), ("assistant", ""), ("tool", "gone"), ("assistant", "hello world"),
    ]  # fmt: skip


def test_an_agent_that_asks_for_nothing_has_failed(runs, agent):
    agent(
        lambda made, connection, body: made.play(
            connection, body, (), type="RUN_FINISHED", outcome={"type": "interrupt"}
        )
    )

    done = finish(runs, ask(runs).id)

    assert (done.status, done.error.code) == (RunStatus.FAILED, "error")
    assert "does not say what" in done.error.message


def test_an_agent_gets_what_is_left_of_the_limits(runs, agent):
    made = agent(asking())
    run = paused(runs, ask(runs, limits=Limits(steps=5, wall_s=100, cost_usd=2)).id)
    runs.answer(run.id, YES, ADMIN)
    finish(runs, run.id)

    left = made.inputs[1]["forwardedProps"]["limits"]
    assert (left["steps"], left["cost_usd"]) == (4, 1.5)
    assert 90 < left["wall_s"] < 100


def test_an_answer_that_is_not_on_disk_is_not_taken(runs, agent, world, monkeypatch):
    made = agent(asking())
    run = paused(runs, ask(runs).id)
    monkeypatch.setattr(defaults, "JOURNAL_WAIT_S", 0.2)
    monkeypatch.setattr(world.redis, "run", _away)

    with pytest.raises(Unavailable):
        runs.answer(run.id, YES, ADMIN)

    monkeypatch.undo()
    assert len(made.inputs) == 1
    runs.answer(run.id, GivenAnswers(text="no"), ADMIN)
    finish(runs, run.id)
    assert made.inputs[1]["resume"][0]["payload"] == {"approved": False}


def test_an_agent_that_is_away_when_it_was_answered_is_waited_for(runs, agent, world):
    agent(asking())
    run = paused(runs, ask(runs).id)
    world.services.agents.stop("web", ADMIN)

    runs.answer(run.id, YES, ADMIN)
    gevent.sleep(0)
    world.services.agents.start("web", ADMIN)

    assert finish(runs, run.id).status is RunStatus.COMPLETED


def _away(*_arguments):
    raise Unavailable("Redis does not answer", code="REDIS_UNAVAILABLE")


def test_events_are_stored_as_the_agent_sent_them(runs, agent):
    agent(asking())
    run = paused(runs, ask(runs).id)

    last = runs.events(run.id, 3, 1)[0]

    assert (last.is_pause, last.is_last, last.synthetic) == (True, False, False)
    assert msgspec.json.decode(last.payload)["outcome"]["interrupts"] == [QUESTION]
    runs.cancel(run.id, ADMIN)
    finish(runs, run.id)


def test_an_agent_that_is_removed_answers_nothing_any_more(runs, agent, world, monkeypatch):
    monkeypatch.setattr(run_pauses, "LOOK_S", 0.05)
    agent(asking())
    run = paused(runs, ask(runs).id)

    world.services.agents.remove("web", ADMIN)

    deadline = time.monotonic() + 5
    while not runs.get(run.id).status.is_final:
        assert time.monotonic() < deadline
        gevent.sleep(0.01)
    assert runs.get(run.id).error.code == "agent_removed"


def test_a_session_that_is_deleted_while_its_run_waits_is_answered_all_the_same(runs, sessions, agent):
    made = agent(asking(), bridge="native")
    session = sessions.create(ADMIN, agent_id="web")
    run = paused(runs, ask(runs, session_id=session.id).id)

    sessions.delete(session.id, ADMIN)
    assert made.forgotten == []
    runs.answer(run.id, YES, ADMIN)

    assert finish(runs, run.id).status is RunStatus.COMPLETED
    assert made.inputs[1]["threadId"] == session.id
    wait_until(lambda: made.forgotten == [session.id])


def test_a_run_that_waits_gives_way_to_one_that_interrupts(runs, sessions, agent):
    made = agent(asking())
    session = sessions.create(ADMIN, agent_id="web")
    run = paused(runs, ask(runs, session_id=session.id).id)

    second = ask(runs, session_id=session.id, on_busy=OnBusy.INTERRUPT)

    assert finish(runs, run.id).status is RunStatus.CANCELLED
    assert finish(runs, second.id).status is RunStatus.COMPLETED
    assert made.inputs[1]["resume"] == [{"interruptId": "i1", "status": "cancelled"}]


def test_an_agent_may_sleep_while_its_run_waits_and_is_woken_by_the_answer(runs, agent, world):
    agent(asking(), idle_timeout_s=0.05)
    run = paused(runs, ask(runs).id)
    wait_until(lambda: world.services.idle.run_once(time.time()) or world.agent().is_idle)
    wait_until(lambda: world.agent().reason == "idle")

    runs.answer(run.id, YES, ADMIN)

    assert finish(runs, run.id).status is RunStatus.COMPLETED
    assert world.state() == "running"
