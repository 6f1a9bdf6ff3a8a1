"""Running agents as clients of AgentOS do: answers, streams, sessions, media, and every error, on containers that speak AG-UI."""

import json

import gevent
import pytest
from gevent.event import Event

from agentainerd import defaults
from agentainerd.api.access import Door
from agentainerd.api.exchange import LEFT, ApiLimits
from agentainerd.model.sse import Parser
from tests.conftest import wait_until
from tests.fakes.programs import Program
from tests.fakes.runs import TEXT, AguiAgent, asks

RUN = "/api/v1/agents/web/run"
STREAM = "/api/v1/agents/web/run/stream"
PICTURE = {"type": "image", "url": "https://example.com/image.png"}
UNKNOWN = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def client(world):
    return world.client()


@pytest.fixture
def agent(world):
    """Return a function that puts a container behind the agent `web` and waits until it is ready."""

    def put(script=None, *, bridge: str = "agui") -> AguiAgent:
        made = AguiAgent(script, bridge=bridge)
        world.engine.add_image("web", Program(made.handle))
        world.up("web", image="web")
        world.wait_ready("web")
        return made

    return put


@pytest.fixture
def session(client):
    return client.call("POST", "/api/v1/sessions", json={"agent_id": "web"})[1]["session_id"]


def fail(code, message="it broke"):
    return lambda agent, connection, body: agent.play(
        connection, body, TEXT[:2], type="RUN_ERROR", code=code, message=message
    )


def error(answer):
    status, said = answer
    assert said["status"] == "error"
    return status, said["error"], said["code"]


def stream(client, path=STREAM, **body):
    """Return the head of the answer, and its events as (name, envelope)."""
    answer = client.open(path, method="POST", json={"input": "hello", **body})
    raw = answer.get_data()
    assert b"\nid:" not in raw
    return answer, [(name, json.loads(data)) for name, data in frames(raw)]


def frames(raw: bytes) -> list[tuple[str, str]]:
    parser = Parser(2**20)
    return [(message.event, message.data) for message in parser.feed(raw)]


def test_agents_are_listed(client, world):
    assert client.call("GET", "/api/v1/agents") == (200, {"agents": [], "count": 0})

    made = [world.deploy("web"), world.deploy("api")]

    assert client.call("GET", "/api/v1/agents") == (
        200, {"agents": [{"id": one.id, "name": one.name} for one in made], "count": 2},
    )  # fmt: skip


def test_a_run_is_answered_when_it_is_over(client, agent, session, world):
    agent()

    status, said = client.call("POST", RUN, json={"input": "ping", "session_id": session})

    assert (status, said["status"], said["content"], said["session_id"]) == (200, "completed", "hello world", session)
    assert said["metadata"] == {
        "agent_id": world.agent().id, "loops": 1, "cache_hit": False,
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    }  # fmt: skip
    kept = client.call("GET", f"/api/v1/sessions/{session}")[1]
    assert kept["run_count"] == 1
    assert [(run["run_id"], run["status"]) for run in kept["runs"]] == [(said["run_id"], "completed")]
    assert world.services.runs.get(said["run_id"]).on_disconnect == "cancel"


def test_the_same_run_twice_with_a_key_is_one(client, agent):
    made = agent()
    keyed = {"Idempotency-Key": "k-1"}

    first, second = (client.call("POST", RUN, json={"input": "ping"}, headers=keyed)[1] for _ in range(2))
    other = client.call("POST", RUN, json={"input": "pong"}, headers=keyed)

    assert first == second
    assert len(made.inputs) == 1
    assert other[0] == 422
    assert error(other)[2] == "IDEMPOTENCY_MISMATCH"


def test_what_is_null_is_as_good_as_absent(client, agent):
    agent()
    body = {
        "input": "x",
        "session_id": None,
        "media": None,
        "run_context": {"run_id": None, "user_id": None},
        "stream": None,
    }

    assert client.call("POST", RUN, json=body)[0] == 200


def test_a_run_may_stand_alone_and_the_agent_may_be_named_by_its_id(client, agent, world):
    agent()
    status, said = client.call("POST", f"/api/v1/agents/{world.agent().id}/run", data=b'{"input": "ping"}')

    assert (status, said["content"], "session_id" in said) == (200, "hello world", False)


def test_what_was_said_is_in_the_history_and_in_the_next_run(client, agent, session):
    made = agent()
    for text in ("Hi", "Status?"):
        client.call("POST", RUN, json={"input": text, "session_id": session})

    said = client.call("GET", f"/api/v1/sessions/{session}/history?num_messages=1")[1]
    assert [message["content"] for message in said["messages"]] == ["hello world"]
    assert said["messages"][0]["id"].startswith("msg-")
    assert [run["status"] for run in said["runs"]] == ["completed", "completed"]
    whole = client.call("GET", f"/api/v1/sessions/{session}/history")[1]["messages"]
    assert [(one["role"], one["content"]) for one in whole] == [
        ("user", "Hi"), ("assistant", "hello world"), ("user", "Status?"), ("assistant", "hello world"),
    ]  # fmt: skip
    assert [one["content"] for one in made.inputs[1]["messages"]] == ["Hi", "hello world", "Status?"]
    assert client.call("POST", f"/api/v1/sessions/{session}/summary")[1]["summary"]["run_count"] == 2


def test_a_session_is_shown_with_its_last_runs(client, agent, session, monkeypatch):
    agent()
    monkeypatch.setattr(defaults, "SESSION_RUNS_SHOWN", 2)
    made = [client.call("POST", RUN, json={"input": "x", "session_id": session})[1]["run_id"] for _ in range(3)]

    kept = client.call("GET", f"/api/v1/sessions/{session}")[1]

    assert kept["run_count"] == 3
    assert [run["run_id"] for run in kept["runs"]] == made[1:]
    assert len(client.call("GET", f"/api/v1/sessions/{session}/history")[1]["runs"]) == 2
    assert len(client.call("GET", f"/api/v1/sessions/{session}/export")[1]["runs"]) == 3


def test_messages_come_in_pages_and_a_session_in_one_document(client, agent, session):
    agent()
    run = client.call("POST", RUN, json={"input": "Hi", "session_id": session})[1]["run_id"]
    path = f"/api/v1/sessions/{session}"

    first = client.call("GET", f"{path}/messages?limit=1")[1]
    second = client.call("GET", f"{path}/messages?cursor={first['next_cursor']}")[1]
    whole = client.call("GET", f"{path}/export")[1]

    assert [one["content"] for one in first["messages"] + second["messages"]] == ["Hi", "hello world"]
    assert {one["run_id"] for one in first["messages"] + second["messages"]} == {run}
    assert "next_cursor" not in second
    assert whole["session"]["session_id"] == session
    assert whole["messages"] == first["messages"] + second["messages"]
    assert [one["id"] for one in whole["runs"]] == [run]


@pytest.mark.parametrize("media", [[PICTURE], PICTURE, {"media": [PICTURE]}])
def test_a_run_may_be_of_media_alone(client, agent, media):
    made = agent()

    status, said = client.call("POST", RUN, json={"media": media})

    assert (status, said["content"], said["metadata"]["media"]) == (200, "hello world", [PICTURE])
    assert made.inputs[0]["messages"][-1]["content"] == "Media request (1 attachment)"
    assert made.inputs[0]["forwardedProps"]["media"] == [PICTURE]


@pytest.mark.parametrize(
    ("body", "said", "code"),
    [
        ({}, "input or media payload is required", "INVALID_REQUEST"),
        ({"input": "  "}, "input or media payload is required", "INVALID_REQUEST"),
        ({"input": "", "media": []}, "input or media payload is required", "INVALID_REQUEST"),
        ({"input": 7}, "invalid request", "INVALID_REQUEST"),
        ({"input": "x", "stream": "yes"}, "invalid request", "INVALID_REQUEST"),
        ({"input": "x", "on_disconnect": "stay"}, "invalid request", "INVALID_REQUEST"),
        ({"input": "x", "media": "a.png"}, "invalid media payload", "INVALID_MEDIA"),
        ({"input": "x", "media": [PICTURE, {"type": "image"}]}, "invalid media payload", "INVALID_MEDIA"),
        ({"input": "x", "media": [None]}, "invalid media payload", "INVALID_MEDIA"),
        ({"input": "x", "media": 7}, "invalid media payload", "INVALID_MEDIA"),
        ({"input": "x", "media": {"type": "picture", "url": "u"}}, "invalid media payload", "INVALID_MEDIA"),
    ],
)
def test_what_is_asked_wrongly_is_refused_before_an_agent_is_looked_for(client, body, said, code):
    answer = client.call("POST", "/api/v1/agents/nobody/run", json=body)

    assert error(answer) == (400, said, code)
    assert (code == "INVALID_MEDIA") == ("media[" in answer[1]["message"])


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"input=x"])
def test_what_is_no_object_is_refused(client, data):
    assert error(client.call("POST", RUN, data=data)) == (400, "invalid request", "INVALID_REQUEST")


@pytest.mark.parametrize("session_id", ["", UNKNOWN])
def test_an_agent_that_is_not_there(client, session_id):
    answer = client.call("POST", "/api/v1/agents/nobody/run", json={"input": "x", "session_id": session_id})

    assert error(answer) == (404, "agent not found", "AGENT_NOT_FOUND")
    assert answer[1]["message"] == "agent with ID 'nobody' not found"


def test_a_session_that_is_not_there(client, agent):
    agent()

    assert error(client.call("POST", RUN, json={"input": "x", "session_id": UNKNOWN})) == (
        404, "session not found", "SESSION_NOT_FOUND",
    )  # fmt: skip


def test_a_run_that_fails(client, agent, session):
    agent(fail("model_error", "no such model"))

    answer = client.call("POST", RUN, json={"input": "x", "session_id": session})

    assert error(answer) == (500, "agent execution failed", "EXECUTION_ERROR")
    assert answer[1]["message"] == "no such model"
    assert answer[1]["details"]["reason"] == "model_error"
    assert client.call("GET", f"/api/v1/sessions/{session}")[1]["runs"][0]["status"] == "error"


def test_a_run_that_was_cancelled(client, agent, session):
    agent(fail("cancelled", "somebody did"))

    answer = client.call("POST", RUN, json={"input": "x", "session_id": session})

    assert error(answer) == (408, "agent execution failed", "RUN_CANCELLED")
    [run] = client.call("GET", f"/api/v1/sessions/{session}")[1]["runs"]
    assert (run["status"], run["cancellation_reason"]) == ("cancelled", "somebody did")


@pytest.fixture
def hanging(agent):
    """An agent that says a word, and then nothing until the test is over."""
    over = Event()

    def hang(made, connection, body):
        made.begin(connection, body, TEXT[:2])
        over.wait(20)

    yield agent(hang)
    over.set()


def status_of(world, run_id):
    return world.services.runs.get(run_id).status.value


@pytest.mark.parametrize(
    ("disconnect", "status", "code"), [("cancel", 408, "RUN_CANCELLED"), ("continue", 504, "RUN_UNDER_WAY")]
)
def test_a_run_that_takes_too_long_is_cancelled_unless_it_may_go_on(client, world, hanging, disconnect, status, code):
    client.application.limits = ApiLimits(timeout_s=0.3)

    answer = client.call("POST", RUN, json={"input": "x", "on_disconnect": disconnect})

    assert error(answer)[::2] == (status, code)
    run_id = answer[1]["details"]["run_id"]
    wanted = {"cancel": "cancelled", "continue": "running"}[disconnect]
    wait_until(lambda: status_of(world, run_id) == wanted, what=f"the run being {wanted}")


def test_a_run_of_an_agent_that_does_not_run_says_so(client, world):
    world.deploy()
    client.application.limits = ApiLimits(timeout_s=0.2)

    status, said = client.call("POST", RUN, json={"input": "x"})

    assert (status, said["code"]) == (408, "RUN_CANCELLED")
    assert said["message"].startswith("agent 'web' did not begin")
    assert said["hint"].endswith("agentainerctl inspect web")


def test_a_run_whose_client_leaves_is_cancelled(client, world, hanging):
    left = Event()
    waiting = gevent.spawn(client.open, RUN, method="POST", json={"input": "x"}, environ_overrides={LEFT: left.is_set})
    wait_until(lambda: hanging.inputs, what="the run being given to the agent")
    left.set()

    run_id = hanging.inputs[0]["runId"]
    wait_until(lambda: status_of(world, run_id) == "cancelled", what="the run being cancelled")
    waiting.join(5)


def test_a_stream_tells_what_happens(client, agent, session, world):
    agent()
    answer, told = stream(client, session_id=session, run_context={"run_id": "rc-7"})

    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert [name for name, _ in told] == ["run_start", "token", "token", "complete"]
    assert all(name == event["type"] for name, event in told)
    assert {(e["session_id"], e["agent_id"], e["run_context_id"]) for _, e in told} == {
        (session, world.agent().id, "rc-7")
    }
    assert told[0][1]["data"] == {"input": "hello", "session_id": session}
    assert "".join(event["data"]["token"] for name, event in told if name == "token") == "hello world"
    done = told[-1][1]["data"]
    assert (done["output"], done["status"], done["token_count"]) == ("hello world", "completed", 9)
    assert answer.headers["Location"] == f"/api/v1/runs/{done['run_id']}/events"
    assert client.call("GET", f"/api/v1/sessions/{session}")[1]["run_count"] == 1


@pytest.mark.parametrize(
    ("path", "body"), [(f"{RUN}?stream_events=true", {}), (f"{RUN}?stream_events=1", {}), (RUN, {"stream": True})]
)
def test_a_run_may_be_streamed_by_its_other_route(client, agent, path, body):
    agent()

    assert [name for name, _ in stream(client, path, **body)[1]] == ["run_start", "token", "token", "complete"]


@pytest.mark.parametrize(
    ("types", "names"),
    [
        ("complete", ["complete"]),
        ("%20token%20,complete", ["token", "token", "complete"]),
        ("", ["run_start", "token", "token", "complete"]),
        ("nonsense", []),
        ("run_start,reasoning", ["run_start"]),
    ],
)
def test_a_stream_may_be_of_some_types(client, agent, types, names):
    agent()

    assert [name for name, _ in stream(client, f"{STREAM}?types={types}")[1]] == names


@pytest.mark.parametrize(
    ("code", "ours", "names"),
    [
        ("model_error", "API_ERROR", ["run_start", "token", "error"]),
        ("cancelled", "RUN_CANCELLED", ["run_start", "token", "error", "complete"]),
    ],
)
def test_a_stream_of_a_run_that_does_not_go_well_ends_with_that(client, agent, code, ours, names):
    agent(fail(code))

    told = stream(client)[1]

    assert [name for name, _ in told] == names
    assert told[2][1]["data"]["code"] == ours
    assert code != "cancelled" or told[-1][1]["data"]["status"] == "cancelled"


@pytest.mark.parametrize(
    ("ref", "body", "status", "short", "code"),
    [
        ("web", {"input": ""}, 400, "invalid_request", "INVALID_REQUEST"),
        ("web", {"input": 7}, 400, "invalid_request", "INVALID_REQUEST"),
        ("web", {"input": "x", "media": "y"}, 400, "invalid_media", "INVALID_MEDIA"),
        ("nobody", {"input": 7}, 400, "invalid_request", "INVALID_REQUEST"),
        ("nobody", {"input": ""}, 404, "agent_not_found", "AGENT_NOT_FOUND"),
        ("nobody", {"input": "x", "media": "y"}, 404, "agent_not_found", "AGENT_NOT_FOUND"),
        ("web", {"input": "x", "session_id": UNKNOWN}, 404, "session_not_found", "SESSION_NOT_FOUND"),
    ],
)
def test_a_stream_that_can_not_begin_is_an_error_as_json(client, world, ref, body, status, short, code):
    world.deploy()

    answer = client.call("POST", f"/api/v1/agents/{ref}/run/stream", json=body)

    assert error(answer) == (status, short, code)
    assert code != "AGENT_NOT_FOUND" or answer[1]["message"] == "agent with ID 'nobody' not found"


def test_a_stream_is_not_cut_when_an_answer_would_be(client, agent):
    client.application.limits = ApiLimits(timeout_s=0.05)

    def slow(made, connection, body):
        made.begin(connection, body, TEXT)
        gevent.sleep(0.3)
        made.send(
            connection, body["runId"], {"type": "RUN_FINISHED", "threadId": body["threadId"], "runId": body["runId"]}
        )

    agent(slow)

    assert [name for name, _ in stream(client)[1]] == ["run_start", "token", "token", "complete"]


@pytest.mark.parametrize(("disconnect", "status"), [("cancel", "cancelled"), ("continue", "running")])
def test_a_stream_whose_client_leaves_takes_its_run_along_unless_it_may_go_on(
    client, world, hanging, disconnect, status
):
    answer = client.open(STREAM, method="POST", json={"input": "x", "on_disconnect": disconnect})
    pieces = answer.iter_encoded()
    while b"event: token" not in next(pieces):
        pass
    answer.close()

    run_id = hanging.inputs[0]["runId"]
    wait_until(lambda: status_of(world, run_id) == status, what=f"the run being {status}")


def test_a_stream_begins_before_the_agent_says_anything(client, world, hanging):
    answer = client.open(f"{STREAM}?types=complete", method="POST", json={"input": "x"})

    assert next(answer.iter_encoded()) == b":\n"
    answer.close()


def test_a_session_that_is_deleted_during_its_run(client, agent, session, world):
    deleted = Event()

    def late(made, connection, body):
        made.begin(connection, body, TEXT)
        deleted.wait(10)
        made.send(
            connection, body["runId"], {"type": "RUN_FINISHED", "threadId": body["threadId"], "runId": body["runId"]}
        )

    made = agent(late)
    running = gevent.spawn(client.call, "POST", RUN, json={"input": "x", "session_id": session})
    wait_until(lambda: made.inputs, what="the run being given to the agent")
    assert client.call("DELETE", f"/api/v1/sessions/{session}")[0] == 200
    deleted.set()

    status, said = running.get(timeout=10)
    assert (status, said["content"]) == (200, "hello world")
    assert client.call("GET", f"/api/v1/sessions/{session}")[0] == 404


def test_over_tcp_a_token_is_asked_for(world):
    status, said = world.client(Door.GATEWAY).call("POST", RUN, json={"input": "x"})

    assert (status, said["code"]) == (401, "UNAUTHORIZED")


def test_a_body_of_more_than_the_limit_is_413(client):
    body = b'{"input": "' + b"x" * defaults.MAX_API_BODY_BYTES + b'"}'

    assert error(client.call("POST", RUN, data=body)) == (413, "request too large", "BODY_TOO_LARGE")
    assert error(client.call("POST", STREAM, data=body)) == (413, "body_too_large", "BODY_TOO_LARGE")


QUESTION = {"id": "i1", "reason": "confirmation", "message": "May I?"}


def test_a_run_that_waits_for_an_answer_ends_the_stream_and_is_left_waiting(client, world, agent):
    agent(asks([QUESTION], TEXT, TEXT))

    answer, told = stream(client)

    assert [name for name, _ in told] == ["run_start", "token", "token", "error"]
    data = told[-1][1]["data"]
    assert data["error"] == "the run waits for an answer: May I?"
    assert (data["code"], data["details"]["code"]) == ("AGENT_ERROR", "input_required")
    run_id = answer.headers["Location"].split("/")[4]
    assert data["details"]["run_id"] == run_id
    assert world.services.runs.get(run_id).status.value == "input_required"
    done = client.call("POST", f"/api/v1/runs/{run_id}/input?wait=10", json={"text": "yes"})
    assert done[1]["data"]["status"] == "completed"


def test_a_run_that_waits_for_an_answer_is_told_of_at_once(client, world, agent):
    agent(asks([QUESTION], TEXT, TEXT))

    status, said = client.call("POST", RUN, json={"input": "hello"})

    assert (status, said["code"], said["message"]) == (500, "EXECUTION_ERROR", "it waits for an answer: May I?")
    details = said["details"]
    assert (details["reason"], details["interrupts"]) == ("input_required", [QUESTION])
    assert world.services.runs.get(details["run_id"]).status.value == "input_required"
    client.call("POST", f"/api/v1/runs/{details['run_id']}/cancel", json={"wait_s": 5})
