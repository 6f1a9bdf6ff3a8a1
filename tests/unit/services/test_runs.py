"""Runs from their acceptance to their end, on a real Redis and containers that say, byte by byte, what a test wants."""

import time
from contextlib import suppress

import gevent
import msgspec
import pytest
from gevent.event import Event

from agentainerd import defaults
from agentainerd.model.bridges import Bridge
from agentainerd.model.model_usage import Usage
from agentainerd.model.runs import Limits, RunStatus
from agentainerd.model.runs import Usage as RunUsage
from agentainerd.store.model_usage import Spent
from tests.fakes.programs import Program
from tests.fakes.runs import TEXT, ask, finish, frame, reached, told, types, waiting
from tests.fakes.world import ADMIN


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


def test_an_agent_that_keeps_no_runs_is_stopped_while_it_works(runs, agent, world):
    made = agent(waiting, bridge="agui", stop_grace_s=0)
    run = ask(runs)
    reached(runs, run.id, 3)

    world.services.agents.stop("web", ADMIN)

    run = finish(runs, run.id)
    assert (run.status, run.error.code) == (RunStatus.FAILED, "container_lost")
    assert run.error.message == "agent 'web' was stopped while it worked"
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
