"""Runs from their acceptance to their end, on a real Redis and containers that say, byte by byte, what a test wants."""

import json
import time
from contextlib import suppress

import gevent
import msgspec
import pytest
from gevent.event import Event

from agentainerd import defaults
from agentainerd.errors import Conflict, InvalidParameter, NotFound, TooManyRequests, Unavailable
from agentainerd.model.bridges import Bridge
from agentainerd.model.model_usage import Usage
from agentainerd.model.runs import CancelMode, Limits, OnBusy, RunRequest, RunStatus
from agentainerd.model.runs import Usage as RunUsage
from agentainerd.store.model_usage import Spent
from tests.fakes.programs import Program
from tests.fakes.runs import SSE, TEXT, AguiAgent, frame, waiting
from tests.fakes.world import ADMIN


@pytest.fixture
def agent(world):
    """Return a function that puts a container behind the agent `web` and waits until it is ready."""

    def put(script=None, *, bridge: str = "agui", name: str = "web", **fields) -> AguiAgent:
        made = AguiAgent(script, bridge=bridge)
        world.engine.add_image(name, Program(made.handle))
        world.up(name, image=name, **fields)
        world.wait_ready(name)
        return made

    return put


@pytest.fixture
def runs(world):
    return world.services.runs


@pytest.fixture
def sessions(world):
    return world.services.sessions


def ask(runs, text: str = "say hello", *, key: str = "", agent_id: str = "web", **fields):
    return runs.create(RunRequest(agent_id=agent_id, input=text, **fields), ADMIN, key=key)


def told(runs, run_id: str, after: int = 0) -> list[dict]:
    return [msgspec.json.decode(event.payload) for event in runs.follow(run_id, after) if event is not None]


def types(runs, run_id: str) -> list[str]:
    return [event["type"] for event in told(runs, run_id)]


def finish(runs, run_id: str):
    run = runs.wait(run_id, 10)
    assert run.status.is_final, run
    return run


@pytest.mark.parametrize(
    ("said", "tokens"),
    [({}, (100, 10)), ({"usage": {"input_tokens": 90, "output_tokens": 9}}, (90, 9))],
    ids=["nothing", "no cost"],
)
def test_what_an_agent_does_not_say_of_its_tokens_is_what_its_calls_to_models_were_counted_to_use(
    world, runs, agent, said, tokens
):
    def script(made, connection, body):
        used = Usage(1, 0, 100, 10, cost_nano=250_000_000)
        world.services.models.usage.add(Spent("2026-11-21", world.agent().id, "p/m", used, body["runId"]))
        ids = {"threadId": body["threadId"], "runId": body["runId"]}
        made.play(connection, body, TEXT, type="RUN_FINISHED", result=said, **ids)

    agent(script)

    run = finish(runs, ask(runs).id)

    assert (run.usage.input_tokens, run.usage.output_tokens) == tokens
    assert (run.usage.cost_usd, run.usage.cost_source) == (0.25, "gateway")


def test_a_run_ends_with_what_the_agent_said(runs, agent):
    made = agent()

    accepted = ask(runs)
    run = finish(runs, accepted.id)

    assert accepted.status is RunStatus.QUEUED
    assert (run.status, run.output, run.steps, run.error) == (RunStatus.COMPLETED, "hello world", 1, None)
    assert (run.usage.input_tokens, run.usage.output_tokens, run.usage.cost_usd) == (7, 2, 0.5)
    assert (run.bridge, run.attempt, run.last_seq) == (Bridge.AGUI, 1, 6)
    assert run.created_at <= run.started_at <= run.finished_at
    assert types(runs, run.id) == ["RUN_STARTED", *(event["type"] for event in TEXT), "RUN_FINISHED"]
    given = made.inputs[0]
    assert (given["runId"], given["threadId"], given["prompt"]) == (run.id, run.id, "say hello")
    assert [(message["role"], message["content"]) for message in given["messages"]] == [("user", "say hello")]
    assert given["forwardedProps"]["limits"] == {"steps": None, "wall_s": None, "cost_usd": None}


def test_an_agent_that_says_that_it_was_cancelled_has_not_completed(runs, agent):
    agent(lambda made, connection, body: made.play(
        connection, body, TEXT, type="RUN_FINISHED", threadId="t", runId=body["runId"], outcome={"type": "cancelled"}
    ))  # fmt: skip

    run = finish(runs, ask(runs).id)

    assert (run.status, run.error.code, run.output) == (RunStatus.CANCELLED, "cancelled", "hello world")
    assert told(runs, run.id)[-1]["code"] == "cancelled"


def test_events_are_numbered_from_one_and_every_reader_gets_all_of_them(runs, agent):
    go = Event()

    def script(made, connection, body):
        made.begin(connection, body, TEXT[:2])
        go.wait(10)
        for event in TEXT[2:]:
            made.send(connection, body["runId"], event)
        made.send(connection, body["runId"], {"type": "RUN_FINISHED", "threadId": "t", "runId": "r"})

    agent(script)
    run = ask(runs)
    early = gevent.spawn(lambda: [event.seq for event in runs.follow(run.id) if event])  # noqa: TID251
    late = gevent.spawn(lambda: [event.seq for event in runs.follow(run.id, 2) if event])  # noqa: TID251
    gevent.sleep(0.05)
    go.set()

    assert early.get(timeout=5) == [1, 2, 3, 4, 5, 6]
    assert late.get(timeout=5) == [3, 4, 5, 6]
    assert [event.seq for event in runs.follow(run.id, 4) if event] == [5, 6]  # it is over: from the store
    assert [event.seq for event in runs.events(run.id, 1, 2)] == [2, 3]


@pytest.mark.parametrize("after", [6, 7, 10**9])
def test_who_has_seen_everything_gets_the_last_event_once_more(runs, agent, after):
    agent()
    run = finish(runs, ask(runs).id)

    assert told(runs, run.id, after)[-1]["type"] == "RUN_FINISHED"


def test_many_events_are_read_from_memory_and_store_without_a_gap_or_a_repeat(runs, agent):
    count = 3 * defaults.RUN_TAIL_EVENTS
    pieces = [{"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": f"{number} "} for number in range(count)]
    agent(lambda made, connection, body: made.play(connection, body, pieces))
    run = ask(runs)

    seen = [event.seq for event in runs.follow(run.id) if event]

    assert seen == list(range(1, count + 3))
    assert finish(runs, run.id).output == "".join(f"{number} " for number in range(count))


def test_an_event_without_a_beginning_gets_one_that_is_marked(runs, agent):
    def script(made, connection, body):
        connection.sendall(frame(TEXT[0]) + frame({"type": "RUN_FINISHED", "threadId": "t", "runId": "r"}))

    agent(script)
    run = ask(runs)

    events = [event for event in runs.follow(run.id) if event]

    assert [(event.type, event.synthetic) for event in events] == [
        ("RUN_STARTED", True), ("TEXT_MESSAGE_START", False), ("RUN_FINISHED", False),
    ]  # fmt: skip


def test_an_event_is_kept_on_one_line_whatever_lines_it_came_in(runs, agent):
    def script(made, connection, body):
        made.begin(connection, body)
        connection.sendall(b'data: {"type": "CUSTOM",\ndata:  "name": "x", "value": 1}\n\n')
        made.send(connection, body["runId"], {"type": "RUN_FINISHED", "threadId": "t", "runId": "r"})

    agent(script)
    run = finish(runs, ask(runs).id)

    custom = runs.events(run.id, 1, 1)[0]
    assert b"\n" not in bytes(custom.payload)
    assert msgspec.json.decode(custom.payload) == {"type": "CUSTOM", "name": "x", "value": 1}


@pytest.mark.parametrize(
    ("sent", "code", "message"),
    [
        (frame({"type": "RUN_ERROR", "message": "no idea", "code": "stuck"}), "stuck", "no idea"),
        (frame({"type": "RUN_ERROR", "message": "no idea"}), "error", "no idea"),
        (b"", "error", "without the run's last event"),
        (frame(TEXT[0]), "error", "without the run's last event"),
        (frame(TEXT[0]) + b"data: nonsense\n\n", "error", "no event of AG-UI: nonsense"),
        (frame(TEXT[0]) + b"data: [1]\n\n", "error", "no event of AG-UI"),
        (frame({"type": "CUSTOM", "name": "x", "value": "y" * 2_000_000}), "error", "longer than"),
    ],
)
def test_what_an_agent_gets_wrong_ends_the_run_with_the_reason(runs, agent, sent, code, message):
    def script(made, connection, body):
        with suppress(OSError):
            connection.sendall(sent)

    agent(script)
    run = ask(runs)
    events = told(runs, run.id)

    assert events[-1]["type"] == "RUN_ERROR"
    assert events[-1].get("code", "error") == code
    run = finish(runs, run.id)
    assert run.status is RunStatus.FAILED
    assert run.error.code == code
    assert message in run.error.message


def test_an_agent_that_refuses_the_run_is_quoted(runs, world):
    def refuse(connection, run):
        path = connection.recv_until(b"\r\n\r\n").split(b" ")[1]
        body = b'{"status": "Healthy"}' if path == b"/ping" else b'{"error": "no key"}'
        status = b"200 OK" if path == b"/ping" else b"400 Bad Request"
        connection.sendall(
            b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(body), body)
        )
        connection.close()

    world.engine.add_image("web", Program(refuse))
    world.up(image="web")
    world.wait_ready()

    run = finish(runs, ask(runs).id)

    assert run.error.message == 'the agent answered 400: {"error": "no key"}'
    assert types(runs, run.id) == ["RUN_STARTED", "RUN_ERROR"]


def test_an_agent_that_speaks_nothing_of_the_kind(runs, world):
    world.up()  # the echo server
    world.wait_ready()

    run = finish(runs, ask(runs).id)

    assert run.status is RunStatus.FAILED
    assert "speaks nothing that runs can be given by" in run.error.message


# ---- limits and ends


def reached(runs, run_id: str, seq: int) -> None:
    next(event for event in runs.follow(run_id) if event and event.seq >= seq)


def test_a_native_agent_is_asked_to_end_a_run_that_is_cancelled(runs, agent):
    made = agent(waiting, bridge="native")
    run = ask(runs)
    reached(runs, run.id, 3)

    cancelled, is_first = runs.cancel(run.id, ADMIN)

    assert is_first
    assert cancelled.status in (RunStatus.CANCELLING, RunStatus.CANCELLED)
    run = finish(runs, run.id)
    assert (run.status, run.error.code, run.output) == (RunStatus.CANCELLED, "cancelled", "hello ")
    assert made.cancelled == [run.id]
    assert told(runs, run.id)[-1]["message"] == "as you wish"
    assert runs.cancel(run.id, ADMIN) == (run, False)


def test_of_another_agent_the_connection_is_broken_off(runs, agent):
    made = agent(waiting)
    run = ask(runs)
    reached(runs, run.id, 3)

    runs.cancel(run.id, ADMIN)

    run = finish(runs, run.id)
    assert (run.status, run.error.code) == (RunStatus.CANCELLED, "cancelled")
    assert not made.cancelled
    made.cancel_seen.set()


def test_an_agent_that_does_not_end_a_run_is_started_anew(runs, agent, world, monkeypatch):
    monkeypatch.setattr(defaults, "RUN_CANCEL_GRACE_S", 0.1)
    made = agent(waiting, bridge="native")
    made.ends_on_cancel = False
    run = ask(runs)
    reached(runs, run.id, 3)
    before = world.agent().replicas[0].started_at

    runs.cancel(run.id, ADMIN)

    assert finish(runs, run.id).status is RunStatus.CANCELLED
    deadline = time.monotonic() + 5
    while world.agent().replicas[0].started_at == before:
        assert time.monotonic() < deadline
        gevent.sleep(0.01)
    made.cancel_seen.set()


@pytest.mark.parametrize("stays_busy", [True, False])
def test_an_agent_that_says_it_is_still_busy_is_started_anew(runs, agent, world, monkeypatch, stays_busy):
    monkeypatch.setattr(defaults, "RUN_CANCEL_GRACE_S", 0.3)
    monkeypatch.setattr("agentainerd.services.run_stops.BUSY_LOOK_S", 0.05)
    made = agent(waiting)
    run = ask(runs)
    reached(runs, run.id, 3)
    before = world.agent().replicas[0].started_at
    made.is_busy = True

    runs.cancel(run.id, ADMIN)
    assert finish(runs, run.id).status is RunStatus.CANCELLED
    made.is_busy = stays_busy

    deadline = time.monotonic() + (5 if stays_busy else 0.6)
    while world.agent().replicas[0].started_at == before and time.monotonic() < deadline:
        gevent.sleep(0.02)
    assert (world.agent().replicas[0].started_at != before) == stays_busy
    made.cancel_seen.set()


def test_a_busy_agent_with_another_run_is_left_alone(runs, agent, world, monkeypatch):
    monkeypatch.setattr(defaults, "RUN_CANCEL_GRACE_S", 0.1)
    monkeypatch.setattr("agentainerd.services.run_stops.BUSY_LOOK_S", 0.05)
    made = agent(waiting)
    first, second = ask(runs), ask(runs)
    for run in (first, second):
        reached(runs, run.id, 3)
    before = world.agent().replicas[0].started_at
    made.is_busy = True

    runs.cancel(first.id, ADMIN)
    finish(runs, first.id)
    gevent.sleep(0.4)

    assert world.agent().replicas[0].started_at == before
    assert not runs.get(second.id).status.is_final
    made.is_busy = False
    made.cancel_seen.set()
    finish(runs, second.id)


def test_a_run_that_waits_can_be_cancelled(runs, sessions, agent):
    made = agent(waiting, bridge="native")
    session = sessions.create(ADMIN, agent_id="web")
    first = ask(runs, session_id=session.id)
    reached(runs, first.id, 3)
    second = ask(runs, session_id=session.id)

    runs.cancel(second.id, ADMIN)

    run = finish(runs, second.id)
    assert (run.status, run.started_at) == (RunStatus.CANCELLED, 0.0)
    assert types(runs, second.id) == ["RUN_STARTED", "RUN_ERROR"]
    made.cancel_seen.set()
    finish(runs, first.id)


def test_a_run_that_takes_too_long_ends(runs, agent):
    made = agent(waiting, bridge="native")

    run = finish(runs, ask(runs, limits=Limits(wall_s=0.2)).id)

    assert (run.status, run.error.code) == (RunStatus.FAILED, "timeout")
    assert run.error.message == "it was not done within 0.2 s"
    assert made.cancelled == [run.id]
    made.cancel_seen.set()


def test_a_run_that_takes_too_many_steps_ends(runs, agent):
    def script(made, connection, body):
        made.begin(connection, body)
        while not made.cancel_seen.is_set():
            made.send(connection, body["runId"], {"type": "STEP_STARTED", "stepName": "model"})
            made.cancel_seen.wait(0.01)
        made.send(connection, body["runId"], {"type": "RUN_ERROR", "message": "ended", "code": "cancelled"})

    agent(script, bridge="native")

    run = finish(runs, ask(runs, limits=Limits(steps=3)).id)

    assert (run.status, run.error.code) == (RunStatus.FAILED, "step_limit")
    assert told(runs, run.id)[-1] == {"type": "RUN_ERROR", "message": "it took more than 3 steps", "code": "step_limit"}


@pytest.mark.parametrize("notices", [True, False])
def test_a_run_that_costs_too_much_ends(runs, agent, notices):
    def script(made, connection, body):
        made.begin(connection, body)
        made.send(
            connection,
            body["runId"],
            {"type": "STEP_FINISHED" if notices else "CUSTOM", "stepName": "m", "name": "x", "value": 1},
        )
        if notices:
            made.cancel_seen.wait(10)
        made.send(connection, body["runId"], {"type": "RUN_ERROR", "message": "402 from the model", "code": "error"})

    made = agent(script, bridge="native")
    object.__setattr__(runs._means, "used", lambda run_id: RunUsage(cost_usd=0.5))

    run = finish(runs, ask(runs, limits=Limits(cost_usd=0.25)).id)

    assert (run.status, run.error.code, run.error.message) == (
        RunStatus.FAILED,
        "cost_limit",
        "it cost what it may: $0.25",
    )
    assert made.cancelled == ([run.id] if notices else [])


def test_an_agent_that_says_nothing_more(runs, agent):
    made = agent(waiting, request_timeout_s=1)
    run = ask(runs)

    run = finish(runs, run.id)

    assert (run.status, run.error.code) == (RunStatus.FAILED, "timeout")
    assert "said nothing more" in run.error.message
    made.cancel_seen.set()


def test_the_client_that_started_it_goes_away(runs, agent):
    made = agent(waiting, bridge="native")
    run = ask(runs)
    reached(runs, run.id, 3)

    runs.abandon(run.id)

    assert finish(runs, run.id).error.message == "its client went away"
    assert made.cancelled == [run.id]


def test_a_daemon_that_stops_ends_no_run(runs, agent):
    made = agent(waiting, bridge="native")
    run = ask(runs)
    reached(runs, run.id, 3)
    runs.is_closing = True

    runs.abandon(run.id)

    assert runs.get(run.id).status is RunStatus.RUNNING
    assert not made.cancelled
    made.cancel_seen.set()
    finish(runs, run.id)


def test_an_agent_that_never_gets_ready(runs, world, monkeypatch):
    monkeypatch.setattr(defaults, "RUN_READY_TIMEOUT_S", 0.1)
    world.deploy()

    run = finish(runs, ask(runs).id)

    assert (run.status, run.error.code) == (RunStatus.FAILED, "agent_unavailable")
    assert "was not ready within 0.1 s" in run.error.message


def test_a_run_waits_for_its_agent(runs, agent, world):
    agent()
    world.services.agents.stop("web", ADMIN)
    run = ask(runs)
    assert not runs.wait(run.id, 0.1).status.is_final

    world.services.agents.start("web", ADMIN)

    assert finish(runs, run.id).status is RunStatus.COMPLETED


def test_a_run_keeps_its_agent_awake(runs, agent, world):
    made = agent(waiting, bridge="native", idle_timeout_s=1)
    run = ask(runs)
    reached(runs, run.id, 3)

    assert world.route().in_flight == 1
    assert world.route().idle_s() == 0.0

    made.cancel_seen.set()
    finish(runs, run.id)
    assert world.route().in_flight == 0


@pytest.mark.parametrize("bridge", ["agui", "native"])
def test_the_agent_is_removed_while_it_works(runs, agent, world, bridge):
    made = agent(waiting, bridge=bridge)
    run = ask(runs)
    reached(runs, run.id, 3)

    world.services.agents.remove("web", ADMIN)

    run = finish(runs, run.id)
    assert (run.status, run.error.code) == (RunStatus.FAILED, "agent_removed")
    made.cancel_seen.set()


def test_a_native_agent_is_stopped_while_it_works(runs, agent, world):
    made = agent(waiting, bridge="native", stop_grace_s=0)
    run = ask(runs)
    reached(runs, run.id, 3)

    world.services.agents.stop("web", ADMIN)

    run = finish(runs, run.id)
    assert (run.status, run.error.code) == (RunStatus.FAILED, "container_lost")
    assert "'web' was stopped while it worked" in run.error.message
    made.cancel_seen.set()


def test_its_container_dies_while_it_works(runs, agent, world):
    made = agent(waiting)
    run = ask(runs)
    reached(runs, run.id, 3)

    world.engine.kill(world.agent().id)

    run = finish(runs, run.id)
    assert (run.status, run.error.code) == (RunStatus.FAILED, "container_lost")
    made.cancel_seen.set()


def test_a_native_agent_whose_connection_broke_is_joined_again(runs, agent):
    def script(made, connection, body):
        made.begin(connection, body, TEXT[:2])
        connection.reset()
        made.events[body["runId"]] += [*TEXT[2:], {"type": "RUN_FINISHED", "threadId": "t", "runId": "r"}]

    made = agent(script, bridge="native")

    run = finish(runs, ask(runs).id)

    assert (run.status, run.output, run.last_seq) == (RunStatus.COMPLETED, "hello world", 6)
    assert made.joined == [f"/runs/{run.id}/events?after=3"]
    assert len(made.inputs) == 1


def test_a_native_container_that_came_back_without_the_run(runs, agent):
    def script(made, connection, body):
        made.begin(connection, body, TEXT[:2])
        del made.events[body["runId"]]
        connection.reset()

    agent(script, bridge="native")

    run = finish(runs, ask(runs).id)

    assert (run.status, run.error.code) == (RunStatus.FAILED, "container_lost")


# ---- sessions


def test_a_session_remembers_and_tells_the_agent(runs, sessions, agent):
    made = agent()
    session = sessions.create(ADMIN, agent_id="web", state={"mood": "good"})
    finish(runs, ask(runs, "one", session_id=session.id).id)

    finish(runs, ask(runs, "two", session_id=session.id).id)

    said = [(message["role"], message["content"]) for message in made.inputs[1]["messages"]]
    assert said == [("user", "one"), ("assistant", "hello world"), ("user", "two")]
    assert made.inputs[1]["messages"][0]["id"] == made.inputs[0]["messages"][0]["id"]
    assert made.inputs[1]["threadId"] == session.id
    assert made.inputs[1]["state"] == {"mood": "good"}
    found = sessions.get(session.id)
    assert (found.run_count, found.messages, found.total_tokens) == (2, 4, 18)
    assert [run.input for run in sessions.runs(session.id)] == ["one", "two"]


def test_two_sessions_know_nothing_of_each_other(runs, sessions, agent):
    made = agent()
    one, two = (sessions.create(ADMIN, agent_id="web") for _ in range(2))
    finish(runs, ask(runs, "a secret", session_id=one.id).id)
    finish(runs, ask(runs, "hello", session_id=two.id).id)

    assert len(made.inputs[1]["messages"]) == 1
    assert "a secret" not in json.dumps(made.inputs[1])


def test_tool_calls_stay_with_their_results(runs, sessions, agent):
    calls = [
        {"type": "TOOL_CALL_START", "toolCallId": "c1", "toolCallName": "read_file"},
        {"type": "TOOL_CALL_ARGS", "toolCallId": "c1", "delta": '{"path": "a"}'},
        {"type": "TOOL_CALL_END", "toolCallId": "c1"},
        {"type": "TOOL_CALL_RESULT", "messageId": "x", "toolCallId": "c1", "content": "text of a"},
        {"type": "TOOL_CALL_START", "toolCallId": "c2", "toolCallName": "read_file"},
    ]
    agent(
        lambda made, connection, body: made.play(connection, body, [*TEXT, *calls], type="RUN_ERROR", message="ended")
    )
    session = sessions.create(ADMIN, agent_id="web")

    finish(runs, ask(runs, "go", session_id=session.id).id)

    messages = [message for _, message in sessions.messages(session.id)]
    assert [message.role for message in messages] == ["user", "assistant", "assistant", "tool", "assistant", "tool"]
    assert messages[2].tool_calls[0].function.arguments == '{"path":"a"}'
    assert (messages[3].tool_call_id, messages[3].content) == ("c1", "text of a")
    assert "before this tool had an answer" in messages[5].content


def test_runs_of_a_session_are_one_after_the_other(runs, sessions, agent):
    open_now, most = [], []

    def script(made, connection, body):
        open_now.append(body["runId"])
        most.append(len(open_now))
        gevent.sleep(0.02)
        open_now.remove(body["runId"])
        made.play(connection, body, TEXT)

    made = agent(script)
    session = sessions.create(ADMIN, agent_id="web")
    asked = [ask(runs, f"number {number}", session_id=session.id) for number in range(5)]

    for run in asked:
        assert finish(runs, run.id).status is RunStatus.COMPLETED
    assert max(most) == 1
    assert [body["runId"] for body in made.inputs] == [run.id for run in asked]
    assert len(made.inputs[4]["messages"]) == 9
    assert sessions.get(session.id).run_count == 5


def test_a_busy_session_rejects_or_is_interrupted(runs, sessions, agent):
    made = agent(waiting, bridge="native")
    session = sessions.create(ADMIN, agent_id="web")
    first = ask(runs, session_id=session.id)
    reached(runs, first.id, 3)

    with pytest.raises(Conflict) as busy:
        ask(runs, session_id=session.id, on_busy=OnBusy.REJECT)
    second = ask(runs, session_id=session.id, on_busy=OnBusy.INTERRUPT)

    assert busy.value.code == "SESSION_BUSY"
    assert finish(runs, first.id).error.message == f"run {second.id} took its place in the session"
    assert made.cancelled == [first.id]
    finish(runs, second.id)
    assert sessions.get(session.id).run_count == 2


def test_a_session_that_is_deleted_meanwhile_stays_deleted(runs, sessions, agent):
    made = agent(waiting, bridge="native")
    session = sessions.create(ADMIN, agent_id="web")
    run = ask(runs, session_id=session.id)
    reached(runs, run.id, 3)

    sessions.delete(session.id, ADMIN)
    made.cancel_seen.set()

    assert finish(runs, run.id).status is RunStatus.CANCELLED
    with pytest.raises(NotFound):
        sessions.get(session.id)
    with pytest.raises(NotFound):
        ask(runs, session_id=session.id)


def test_a_state_that_the_agent_tells_is_kept(runs, sessions, agent):
    agent(
        lambda made, connection, body: made.play(connection, body, [{"type": "STATE_SNAPSHOT", "snapshot": {"n": 1}}])
    )
    session = sessions.create(ADMIN, agent_id="web")

    finish(runs, ask(runs, session_id=session.id).id)

    assert sessions.get(session.id).state == {"n": 1}


def test_a_session_keeps_what_there_is_room_for(runs, sessions, agent, monkeypatch):
    monkeypatch.setattr(defaults, "MAX_SESSION_BYTES", 10_000)
    agent()
    session = sessions.create(ADMIN, agent_id="web")
    for number in range(12):
        finish(runs, ask(runs, f"{number} " + "x" * 1000, session_id=session.id).id)

    kept = [message for _, message in sessions.messages(session.id, limit=100)]
    found = sessions.get(session.id)
    assert 4 < len(kept) < 20
    assert (found.run_count, found.messages) == (12, 24)
    assert found.bytes <= 10_000
    assert sum(len(msgspec.json.encode(message)) for message in kept) == found.bytes
    assert kept[-2].content.startswith("11 ")


def test_an_agent_is_told_the_end_of_a_long_conversation(runs, sessions, agent, monkeypatch):
    monkeypatch.setattr(defaults, "MAX_SESSION_SENT_BYTES", 3_000)
    made = agent()
    session = sessions.create(ADMIN, agent_id="web")
    for number in range(5):
        finish(runs, ask(runs, f"{number} " + "x" * 500, session_id=session.id).id)

    told_last = made.inputs[-1]["messages"]
    assert len(told_last) < 9
    assert told_last[0]["role"] == "user"
    assert [message["content"][0] for message in told_last if message["role"] == "user"][-1] == "4"


def test_sessions_and_events_have_bounds(runs, sessions, agent, monkeypatch):
    monkeypatch.setattr(defaults, "MAX_SESSIONS", 1)
    monkeypatch.setattr(defaults, "MAX_RUN_BYTES", 2_000)
    monkeypatch.setattr(defaults, "MAX_RUN_OUTPUT_CHARS", 1_500)
    pieces = [{"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "y" * 400} for _ in range(40)]
    agent(lambda made, connection, body: made.play(connection, body, pieces))
    sessions.create(ADMIN, agent_id="web")

    with pytest.raises(TooManyRequests) as refused:
        sessions.create(ADMIN, agent_id="web")
    run = finish(runs, ask(runs).id)

    assert refused.value.code == "TOO_MANY_SESSIONS"
    assert (run.status, run.error.code) == (RunStatus.FAILED, "error")
    assert "its events take more than" in run.error.message
    assert len(run.output) <= 1_500


def test_a_summary_is_made_of_the_last_answers(runs, sessions, agent):
    agent()
    session = sessions.create(ADMIN, agent_id="web")
    assert sessions.summarize(session.id, ADMIN).summary.content == "nothing was said yet"
    finish(runs, ask(runs, session_id=session.id).id)

    summary = sessions.summarize(session.id, ADMIN).summary

    assert (summary.content, summary.run_count, summary.total_tokens) == ("hello world", 1, 9)


# ---- what is accepted


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


# ---- across daemons


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
    world.services.runs._active[run.id]._set(status=RunStatus.CANCELLING)
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
