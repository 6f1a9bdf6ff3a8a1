"""`/api/v1/runs` as its handlers are: shapes, statuses, streams."""

import json

import pytest

from agentainerd.model.runs import Run
from agentainerd.store.runs import RunStore
from tests.fakes.programs import Program
from tests.fakes.runs import TEXT, AguiAgent, asks, waiting


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


def create(client, query: str = "", **fields):
    return client.call("POST", f"/api/v1/runs{query}", json={"agent_id": "web", "input": "say hello", **fields})


def stream(client, path: str, **headers) -> tuple[dict, str]:
    with client.open(path, headers={"Accept": "text/event-stream", **headers}) as response:
        assert response.status_code == 200, response.get_data()
        return response.headers, response.get_data(as_text=True)


def ids(text: str) -> list[int]:
    return [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")]


def test_a_run_is_accepted_and_can_be_waited_for(client, agent):
    status, body = create(client)
    run_id = body["data"]["id"]

    done = client.call("GET", f"/api/v1/runs/{run_id}?wait=10s")

    assert (status, body["success"], body["data"]["status"]) == (202, True, "queued")
    assert done[0] == 200
    run = done[1]["data"]
    assert (run["status"], run["output"], run["agent"], run["last_seq"]) == ("completed", "hello world", "web", 6)
    assert run["usage"] == {
        "input_tokens": 7, "output_tokens": 2, "cached_tokens": 0, "reasoning_tokens": 0, "cost_usd": 0.5,
        "cost_source": "provider",
    }  # fmt: skip
    assert "session_id" not in run
    assert "error" not in run


def test_an_answer_that_waits(client, agent):
    status, body = create(client, "?wait=10")

    assert (status, body["data"]["status"]) == (200, "completed")


def test_an_answer_that_waits_in_vain(client, agent):
    agent.script = waiting

    status, body = create(client, "?wait=100ms")

    assert (status, body["data"]["status"]) == (202, "running")
    client.call("POST", f"/api/v1/runs/{body['data']['id']}/cancel", json={})


def test_a_stream_from_the_beginning_is_frames_with_their_id_last(client, agent):
    run_id = create(client, "?wait=10")[1]["data"]["id"]

    headers, text = stream(client, f"/api/v1/runs/{run_id}/events")

    assert headers["Content-Type"].startswith("text/event-stream")
    assert headers["X-Accel-Buffering"] == "no"
    frames = text.removeprefix(": still here\n").split("\n\n")
    assert frames[-1] == ""
    for number, frame in enumerate(frames[:-1], 1):
        event, data, ident = frame.split("\n")
        envelope = json.loads(data.removeprefix("data: "))
        assert (event, ident) == (f"event: {envelope['event']['type']}", f"id: {number}")
        assert (envelope["seq"], envelope["run_id"], envelope["synthetic"]) == (number, run_id, False)
    assert frames[-2].startswith("event: RUN_FINISHED\n")


@pytest.mark.parametrize(
    ("query", "headers", "expected"),
    [
        ("", {"Last-Event-ID": "4"}, [5, 6]),
        ("?after=3", {}, [4, 5, 6]),
        ("?after=3", {"Last-Event-ID": "1"}, [4, 5, 6]),
        ("", {"Last-Event-ID": "-1"}, [1, 2, 3, 4, 5, 6]),
        ("", {"Last-Event-ID": "0"}, [1, 2, 3, 4, 5, 6]),
        ("", {"Last-Event-ID": "garbage"}, [1, 2, 3, 4, 5, 6]),
        ("", {"Last-Event-ID": "9" * 100}, [1, 2, 3, 4, 5, 6]),
        ("", {"Last-Event-ID": "6"}, [6]),
        ("?after=1000", {}, [6]),
        ("?types=TEXT_MESSAGE_START", {}, [2, 6]),
        ("?types=NOTHING", {}, [6]),
    ],
)
def test_a_reader_comes_back(client, agent, query, headers, expected):
    run_id = create(client, "?wait=10")[1]["data"]["id"]

    assert ids(stream(client, f"/api/v1/runs/{run_id}/events{query}", **headers)[1]) == expected


def test_the_events_alone(client, agent):
    run_id = create(client, "?wait=10")[1]["data"]["id"]

    text = stream(client, f"/api/v1/runs/{run_id}/events?format=agui&after=1")[1]

    assert f"data: {json.dumps(TEXT[0])}\nid: 2\n\n" in text
    assert "event:" not in text


def test_a_run_that_is_streamed_at_once(client, agent):
    with client.open(
        "/api/v1/runs", method="POST", json={"agent_id": "web", "input": "x"}, headers={"Accept": "text/event-stream"}
    ) as response:
        text = response.get_data(as_text=True)

    assert ids(text) == [1, 2, 3, 4, 5, 6]
    run_id = response.headers["Location"].split("/")[4]
    assert client.call("GET", f"/api/v1/runs/{run_id}")[1]["data"]["status"] == "completed"


def test_a_reader_that_does_not_read_holds_up_nothing(client, world, agent):
    pieces = [{"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "z" * 1000} for _ in range(2000)]
    agent.script = lambda made, connection, body: made.play(connection, body, pieces)
    response = client.open(
        "/api/v1/runs", method="POST", json={"agent_id": "web", "input": "x"}, headers={"Accept": "text/event-stream"}
    )
    run_id = response.headers["Location"].split("/")[4]

    run = world.services.runs.wait(run_id, 10)

    assert (run.status.value, run.last_seq) == ("completed", 2002)
    with response:  # it comes to its senses: nothing is missing
        assert ids(response.get_data(as_text=True)) == list(range(1, 2003))


@pytest.mark.parametrize(("on_disconnect", "ends"), [("cancel", True), ("continue", False)])
def test_the_client_that_streams_goes_away(client, world, agent, on_disconnect, ends):
    agent.script = waiting
    body = {"agent_id": "web", "input": "x", "on_disconnect": on_disconnect}
    response = client.open("/api/v1/runs", method="POST", json=body, headers={"Accept": "text/event-stream"})
    run_id = response.headers["Location"].split("/")[4]
    next(piece for piece in response.response if b"id: 3" in piece)

    response.close()

    run = world.services.runs.wait(run_id, 5 if ends else 0.1)
    assert run.status.is_final == ends
    if ends:
        assert run.error.message == "its client went away"
    else:
        agent.cancel_seen.set()
        world.services.runs.wait(run_id, 5)


def test_a_page_of_events(client, agent):
    run_id = create(client, "?wait=10")[1]["data"]["id"]

    found = client.call("GET", f"/api/v1/runs/{run_id}/events?after=1&limit=2")[1]["data"]

    assert [(event["seq"], event["event"]["type"]) for event in found] == [
        (2, "TEXT_MESSAGE_START"), (3, "TEXT_MESSAGE_CONTENT"),
    ]  # fmt: skip


def test_a_list(client, agent):
    asked = [create(client, "?wait=10")[1]["data"]["id"] for _ in range(3)]

    status, body = client.call("GET", "/api/v1/runs?agent_id=web&status=completed&limit=2")

    assert status == 200
    assert [run["id"] for run in body["data"]] == asked[:0:-1]
    rest = client.call("GET", f"/api/v1/runs?limit=2&cursor={body['next_cursor']}")[1]
    assert [run["id"] for run in rest["data"]] == asked[:1]
    assert "next_cursor" not in rest


def test_a_cancel_says_whether_it_did_it(client, world, agent):
    agent.script = waiting
    run_id = create(client)[1]["data"]["id"]
    next(event for event in world.services.runs.follow(run_id) if event and event.seq == 3)

    first = client.call("POST", f"/api/v1/runs/{run_id}/cancel")
    world.services.runs.wait(run_id, 5)
    second = client.call("POST", f"/api/v1/runs/{run_id}/cancel", json={"mode": "kill"})

    assert (first[0], first[1]["cancelled"]) == (200, True)
    assert (second[0], second[1]["cancelled"], second[1]["message"]) == (200, False, "Run is cancelled")
    assert second[1]["data"]["error"]["code"] == "cancelled"


def test_keys(client, agent):
    body = {"agent_id": "web", "input": "x"}
    first, again = (
        client.call("POST", "/api/v1/runs", json=body, headers={"Idempotency-Key": "k"})[1]["data"]["id"]
        for _ in range(2)
    )
    status, refused = client.call("POST", "/api/v1/runs", json=body | {"input": "y"}, headers={"Idempotency-Key": "k"})

    assert first == again
    assert (status, refused["code"]) == (422, "IDEMPOTENCY_MISMATCH")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "INVALID_PARAMETER"),
        ({"agent_id": "web"}, 400, "INVALID_PARAMETER"),
        ({"agent_id": "nobody", "input": "x"}, 404, "AGENT_NOT_FOUND"),
        ({"agent_id": "web", "input": "x", "session_id": "none"}, 404, "SESSION_NOT_FOUND"),
        ({"agent_id": "web", "input": "x", "limits": {"steps": 0}}, 400, "INVALID_PARAMETER"),
        ({"agent_id": "web", "input": "x", "media": [{"type": "image"}]}, 400, "INVALID_MEDIA"),
        ({"agent_id": "web", "input": "x", "limits": {"hops": 1}}, 400, "UNKNOWN_FIELD"),
        ({"agent_id": "web", "input": "x", "on_busy": "hope"}, 400, "INVALID_PARAMETER"),
        ({"agent_id": "web", "input": "x", "stream": True}, 400, "UNKNOWN_FIELD"),
        ({"agent_id": "web", "input": 1}, 400, "INVALID_PARAMETER"),
    ],
)
def test_what_is_refused(client, agent, body, status, code):
    answer = client.call("POST", "/api/v1/runs", json=body)

    assert (answer[0], answer[1]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/runs/nonsense", 404),
        ("GET", "/api/v1/runs/5b0b3bb8-6fd8-4f5b-9d3f-5a1a0f3c3c11", 404),
        ("GET", "/api/v1/runs/5b0b3bb8-6fd8-4f5b-9d3f-5a1a0f3c3c11/events?follow=true", 404),
        ("POST", "/api/v1/runs/5b0b3bb8-6fd8-4f5b-9d3f-5a1a0f3c3c11/cancel", 404),
        ("GET", "/api/v1/runs?status=lost", 400),
        ("GET", "/api/v1/runs?cursor=x", 400),
        ("GET", "/api/v1/runs?agent_id=nobody", 404),
        ("PUT", "/api/v1/runs", 405),
    ],
)
def test_what_is_not_there(client, agent, method, path, status):
    assert client.call(method, path)[0] == status


@pytest.mark.parametrize("query", ["after=-1", "after=x", "format=yaml&follow=1", "hops=1"])
def test_parameters_that_are_wrong(client, agent, query):
    run_id = create(client, "?wait=10")[1]["data"]["id"]

    assert client.call("GET", f"/api/v1/runs/{run_id}/events?{query}")[0] == 400


def test_a_list_has_of_long_texts_the_beginning(client, agent):
    picture = {"type": "image", "url": "data:image/png;base64," + "A" * 100_000}
    run = create(client, "?wait=10", input="x" * 5000, media=[picture])[1]["data"]

    (listed,) = client.call("GET", "/api/v1/runs")[1]["data"]

    assert (run["input"], run["media"]) == ("x" * 5000, [picture])
    assert listed["input"] == "x" * 1000 + "..."
    assert [len(attached["url"]) for attached in listed["media"]] == [1003]
    assert {**listed, "input": "", "media": []} == {**run, "input": "", "media": []}


def test_attachments_are_kept_as_they_are_meant(client, agent):
    run = create(client, "?wait=10", media=[{"type": " IMAGE", "url": "https://example.com/a.png", "size": 7}])[1][
        "data"
    ]

    assert run["media"] == [{"type": "image", "url": "https://example.com/a.png"}]


@pytest.mark.parametrize(
    ("query", "kinds"),
    [
        ("format=agno", ["run_start", "token", "token", "complete"]),
        ("format=agno&types=token,complete", ["token", "token", "complete"]),
        ("format=agno&after=3", ["token", "complete"]),
        ("format=agno&after=99", ["complete"]),
        ("format=bridge", ["text", "text", "done"]),
    ],
)
def test_a_run_can_be_read_in_the_dialects_of_the_documents(client, agent, query, kinds):
    run = create(client, "?wait=10")[1]["data"]

    headers, text = stream(client, f"/api/v1/runs/{run['id']}/events?{query}")

    told = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert [one["type"] for one in told] == kinds
    assert ids(text) == []
    assert text.endswith("\n\n")
    if "agno" in query:
        assert [line[7:] for line in text.splitlines() if line.startswith("event: ")] == kinds
        assert told[-1]["data"]["output"] == "hello world"


QUESTION = {"id": "i1", "reason": "confirmation", "message": "May I?"}


@pytest.fixture
def asking(agent):
    agent.script = asks([QUESTION], TEXT, TEXT)
    return agent


def test_a_run_that_waits_says_for_what_and_takes_the_answer(client, asking):
    status, body = create(client, "?wait=10")
    run = body["data"]

    answered = client.call("POST", f"/api/v1/runs/{run['id']}/input?wait=10", json={"text": "yes"})

    assert (status, run["status"], run["interrupts"]) == (202, "input_required", [QUESTION])
    assert run["answer_by"] > run["created_at"]
    assert (answered[0], answered[1]["data"]["status"]) == (200, "completed")
    assert "interrupts" not in answered[1]["data"]
    assert asking.inputs[1]["resume"] == [{"interruptId": "i1", "status": "resolved", "payload": True}]


def test_an_answer_as_ag_ui_has_it_is_answered_with_the_events_that_follow(client, asking):
    run_id = create(client, "?wait=10")[1]["data"]["id"]
    entry = {"interruptId": "i1", "status": "resolved", "payload": {"ok": [1, None]}}

    def answer():
        headers = {"Accept": "text/event-stream"}
        with client.open(
            f"/api/v1/runs/{run_id}/input", method="POST", json={"resume": [entry]}, headers=headers
        ) as response:
            return ids(response.get_data(as_text=True))

    assert answer() == list(range(7, 14))
    assert answer() == list(range(7, 14))  # once more, by who did not hear the first time
    assert ids(stream(client, f"/api/v1/runs/{run_id}/events")[1]) == list(range(1, 14))
    assert asking.inputs[1]["resume"] == [entry]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "INVALID_PARAMETER"),
        ({"text": "perhaps"}, 400, "INVALID_PARAMETER"),
        ({"resume": [{"interruptId": "i2", "text": "yes"}]}, 400, "INVALID_PARAMETER"),
        ({"resume": [{"interruptId": "i1", "status": "maybe"}]}, 400, "INVALID_PARAMETER"),
        ({"answer": "yes"}, 400, "UNKNOWN_FIELD"),
    ],
)
def test_answers_that_are_refused(client, world, asking, body, status, code):
    run_id = create(client, "?wait=10")[1]["data"]["id"]

    refused = client.call("POST", f"/api/v1/runs/{run_id}/input", json=body)

    assert (refused[0], refused[1]["code"]) == (status, code)
    client.call("POST", f"/api/v1/runs/{run_id}/cancel", json={"wait_s": 5})


def test_an_answer_to_nothing(client, agent):
    run_id = create(client, "?wait=10")[1]["data"]["id"]

    refused = client.call("POST", f"/api/v1/runs/{run_id}/input", json={"text": "yes"})

    assert (refused[0], refused[1]["code"]) == (409, "RUN_NOT_WAITING")
    assert client.call("POST", f"/api/v1/runs/{'0' * 8}/input", json={"text": "yes"})[0] == 404


def test_a_client_whose_going_ends_a_run_may_go_while_it_waits(client, world, asking):
    body = {"agent_id": "web", "input": "x", "on_disconnect": "cancel"}
    with client.open("/api/v1/runs", method="POST", json=body, headers={"Accept": "text/event-stream"}) as response:
        assert ids(response.get_data(as_text=True)) == list(range(1, 7))
    run_id = response.headers["Location"].split("/")[4]

    assert world.services.runs.wait(run_id, 0).status.value == "input_required"
    assert client.call("POST", f"/api/v1/runs/{run_id}/cancel", json={"wait_s": 5})[1]["data"]["status"] == "cancelled"


@pytest.mark.parametrize(
    ("query", "before", "whole"),
    [
        ("format=agno", ["run_start", "token", "token", "error"], ["run_start", *["token"] * 4, "complete"]),
        ("format=bridge", ["text", "text", "text", "done"], ["text", "text", "text", "text", "done"]),
    ],
)
def test_in_the_dialects_a_question_is_told_where_a_stream_ends_with_it_and_only_there(
    client, asking, query, before, whole
):
    run_id = create(client, "?wait=10")[1]["data"]["id"]

    def kinds():
        text = stream(client, f"/api/v1/runs/{run_id}/events?{query}")[1]
        return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]

    told = kinds()
    assert [one["type"] for one in told] == before
    assert "May I?" in json.dumps(told[-1])
    client.call("POST", f"/api/v1/runs/{run_id}/input?wait=10", json={"text": "yes"})
    assert [one["type"] for one in kinds()] == whole


def test_a_run_by_the_beginning_of_its_id(client, agent):
    run_id = create(client, "?wait=10")[1]["data"]["id"]

    for path in (run_id[:4], run_id[:-1], f"{run_id[:9]}/events"):
        assert client.call("GET", f"/api/v1/runs/{path}")[0] == 200
    assert client.call("POST", f"/api/v1/runs/{run_id[:8]}/cancel")[1]["data"]["id"] == run_id
    assert ids(stream(client, f"/api/v1/runs/{run_id[:8]}/events")[1])[-1] == 6
    for wrong in (run_id[:3], "****", f"{run_id[:4]}*", "zzzz"):
        assert client.call("GET", f"/api/v1/runs/{wrong}")[0] == 404


def test_a_beginning_that_several_have(client, world, agent):
    names = ["aaaabbbb-0000-4000-8000-000000000001", "aaaabbbb-0000-4000-8000-000000000002"]
    for name in names:
        run = Run(id=name, agent_id="a", agent="web", input="x", created_at=1.0)
        world.services.runs._writer.commit(RunStore.begin(run))

    status, refused = client.call("GET", "/api/v1/runs/aaaabb")

    assert (status, refused["code"]) == (409, "AMBIGUOUS_RUN")
    assert all(name in refused["message"] for name in names)
    assert client.call("GET", f"/api/v1/runs/{names[0]}")[0] == 200


def test_all_that_match_are_cancelled(client, world, agent):
    agent.script, agent.ends_on_cancel = waiting, False
    session = client.call("POST", "/api/v1/sessions", json={"agent_id": "web"})[1]["session_id"]
    first, queued = (create(client, session_id=session)[1]["data"]["id"] for _ in range(2))
    other = create(client)[1]["data"]["id"]
    for run_id in (first, other):
        next(event for event in world.services.runs.follow(run_id) if event and event.seq == 3)

    def cancel(**body):
        status, answer = client.call("POST", "/api/v1/runs/cancel", json=body)
        return status, [run["id"] for run in answer.get("data", ())]

    assert cancel() == (400, [])
    assert cancel(agent_id="nobody")[0] == 404
    assert cancel(status="queued") == (200, [queued])
    assert cancel(session_id=session[:8]) == (200, [first])
    assert cancel(agent_id="web", status="queued") == (200, [])
    assert cancel(agent_id="web") == (200, [other])
    agent.cancel_seen.set()
    for run_id in (first, queued, other):
        assert world.services.runs.wait(run_id, 5).status.value == "cancelled"


def test_a_cancel_that_waits_for_the_end(client, world, agent):
    agent.script = waiting
    run_id = create(client)[1]["data"]["id"]
    next(event for event in world.services.runs.follow(run_id) if event and event.seq == 3)

    answer = client.call("POST", f"/api/v1/runs/{run_id}/cancel", json={"wait_s": 5})

    assert (answer[1]["cancelled"], answer[1]["data"]["status"]) == (True, "cancelled")
    assert client.call("POST", f"/api/v1/runs/{run_id}/cancel", json={"wait_s": 1e9})[0] == 400


@pytest.mark.parametrize(
    "fields", [{"after_seconds": -1}, {"after_seconds": 1e9}, {"after_seconds": 1, "on_busy": "reject"}]
)
def test_delays_that_are_refused(client, agent, fields):
    assert create(client, **fields)[0] == 400


def test_a_list_has_of_a_long_question_the_beginning(client, agent):
    agent.script = asks([{**QUESTION, "message": "y" * 5000}])
    run = create(client, "?wait=10")[1]["data"]

    (listed,) = client.call("GET", "/api/v1/runs?status=input_required")[1]["data"]

    assert [len(one["interrupts"][0]["message"]) for one in (run, listed)] == [5000, 1003]
    client.call("POST", "/api/v1/runs/cancel", json={"status": "input_required"})
