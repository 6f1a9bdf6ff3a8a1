"""Driving agents as the autonomous-agent document does: start, resume, chat, remove, and what each refuses."""

import json

import pytest
from gevent.event import Event

from agentainerd.api.access import Door
from agentainerd.model.runs import RunStatus
from tests.conftest import wait_until
from tests.fakes.programs import Program
from tests.fakes.runs import TEXT, AguiAgent, asks

ROOT = "/api/agents/web"


@pytest.fixture
def client(world):
    return world.client()


@pytest.fixture
def agent(world):
    """Return a function that deploys the agent `web`, which is not started."""

    def put(script=None, **fields) -> AguiAgent:
        made = AguiAgent(script)
        world.engine.add_image("web", Program(made.handle))
        world.deploy("web", image="web", **fields)
        return made

    return put


@pytest.fixture
def hanging(agent):
    """An agent that says a word, and then nothing until the test is over."""
    over = Event()

    def hang(made, connection, body):
        made.begin(connection, body, TEXT[:2])
        over.wait(20)

    yield agent(hang)
    over.set()


def error(answer):
    status, said = answer
    return status, said["error"]


def ended(world, run_id):
    run = world.services.runs.wait(run_id, 10)
    assert run.status is RunStatus.COMPLETED, run.error
    return run


def chat(client, message):
    answer = client.open(f"{ROOT}/chat", method="POST", json={"message": message})
    return answer, [json.loads(line[6:]) for line in answer.get_data().split(b"\n") if line.startswith(b"data: ")]


def test_start_brings_the_agent_up_and_gives_it_its_task(client, agent, world):
    made = agent()

    status, said = client.call("POST", f"{ROOT}/start", json={"task": "Fix the bug"})

    assert (status, said["success"], said["message"]) == (200, True, "Agent started")
    run = ended(world, said["run_id"])
    assert (run.input, run.session_id, run.on_disconnect) == ("Fix the bug", said["session_id"], "continue")
    assert world.state() == "running"
    assert [one["content"] for one in made.inputs[0]["messages"]] == ["Fix the bug"]


def test_the_task_may_be_in_the_environment_of_the_agent(client, agent, world):
    agent(env_vars={"AGENT_TASK": "Fix the other bug"})

    status, said = client.call("POST", f"{ROOT}/start")

    assert status == 200
    assert ended(world, said["run_id"]).input == "Fix the other bug"


def test_an_agent_without_a_task_is_only_started_and_not_twice(client, agent, world):
    agent()

    assert client.call("POST", f"{ROOT}/start") == (200, {"success": True, "message": "Agent started"})
    assert world.state() == "running"
    assert error(client.call("POST", f"{ROOT}/start")) == (400, "Agent is already running")


def test_resume_goes_on_with_the_same_conversation_and_container(client, agent, world):
    made = agent()
    first = client.call("POST", f"{ROOT}/start", json={"task": "one"})[1]
    ended(world, first["run_id"])
    container = world.agent().container_id

    status, said = client.call("POST", f"{ROOT}/resume", json={"newTask": "two"})

    assert (status, said["message"]) == (200, "Agent resumed with new task")
    assert said["session_id"] == first["session_id"]
    ended(world, said["run_id"])
    assert [one["content"] for one in made.inputs[1]["messages"]] == ["one", "hello world", "two"]
    assert world.agent().container_id == container


@pytest.mark.parametrize(("verb", "state"), [("", "created"), ("stop", "stopped"), ("pause", "paused")])
def test_resume_brings_an_agent_up_whatever_took_it_down(client, agent, world, verb, state):
    agent()
    if verb:
        client.call("POST", f"{ROOT}/start")
        client.call("POST", f"/agents/web/{verb}")
    assert world.state() == state

    status, said = client.call("POST", f"{ROOT}/resume", json={"newTask": "go on"})

    assert status == 200
    ended(world, said["run_id"])


def test_one_task_at_a_time(client, hanging, world):
    said = client.call("POST", f"{ROOT}/start", json={"task": "long"})[1]
    wait_until(lambda: hanging.inputs, what="the run being given to the agent")

    assert error(client.call("POST", f"{ROOT}/start", json={"task": "more"})) == (400, "Agent is already running")
    assert error(client.call("POST", f"{ROOT}/resume", json={"newTask": "more"})) == (400, "Agent is currently running")
    assert error(client.call("POST", f"{ROOT}/resume", json={})) == (400, "Agent is currently running")
    answer, told = chat(client, "hello?")
    assert (answer.status_code, told) == (200, [{"type": "error", "error": "Agent is already executing a task"}])
    assert world.services.runs.get(said["run_id"]).status is RunStatus.RUNNING


def test_chat_streams_what_the_agent_does_and_ends_with_its_state(client, agent, world):
    agent()
    ended(world, client.call("POST", f"{ROOT}/start", json={"task": "one"})[1]["run_id"])

    answer, told = chat(client, "What did you do?")

    assert answer.headers["Content-Type"] == "text/event-stream"
    assert [one["type"] for one in told] == ["text", "text", "done"]
    assert "".join(one["content"] for one in told[:-1]) == "hello world"
    assert told[-1]["state"]["isExecuting"] is False
    assert told[-1]["state"]["conversationHistory"] == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "hello world"},
        {"role": "user", "content": "What did you do?"},
        {"role": "assistant", "content": "hello world"},
    ]


def test_a_chat_that_nobody_reads_any_more_goes_on(client, hanging, world):
    answer = client.open(f"{ROOT}/chat", method="POST", json={"message": "hello"})
    pieces = answer.iter_encoded()
    while b'"type":"text"' not in next(pieces):
        pass
    answer.close()

    assert world.services.runs.get(hanging.inputs[0]["runId"]).status is RunStatus.RUNNING


def test_a_chat_that_fails_says_so(client, agent):
    agent(
        lambda made, connection, body: made.play(
            connection, body, [], type="RUN_ERROR", code="model_error", message="no key"
        )
    )

    assert chat(client, "hello")[1] == [{"type": "error", "error": "no key"}]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("resume", {}, "New task is required"),
        ("resume", {"newTask": "  "}, "New task is required"),
        ("chat", {}, "Message required"),
        ("chat", {"message": None}, "Message required"),
    ],
)
def test_what_is_missing_is_said(client, agent, path, body, said):
    agent()

    assert error(client.call("POST", f"{ROOT}/{path}", json=body)) == (400, said)


@pytest.mark.parametrize("path", ["start", "resume", "chat"])
@pytest.mark.parametrize("data", [b"{", b'{"task": 7, "newTask": 7, "message": 7}', b"[]"])
def test_a_body_that_is_wrong_is_400(client, agent, path, data):
    agent()

    assert client.call("POST", f"{ROOT}/{path}", data=data)[0] == 400


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/start"), ("POST", "/resume"), ("POST", "/chat"), ("DELETE", "")]
)
def test_an_agent_that_is_not_there(client, method, path):
    answer = client.call(method, f"/api/agents/nobody{path}", json={"newTask": "x", "message": "x"})

    assert error(answer) == (404, "Agent not found")


def test_an_agent_that_can_not_be_started_says_why(client, agent, world):
    agent()
    world.engine.go_down("the engine was stopped")

    status, said = client.call("POST", f"{ROOT}/start")

    assert status == 500
    assert "stopped" in said["error"]
    assert said["code"]


def test_delete_removes_the_agent_and_its_container(client, agent, world):
    agent()
    ended(world, client.call("POST", f"{ROOT}/start", json={"task": "x"})[1]["run_id"])
    assert client.call("GET", "/api/v1/sessions")[1]["count"] == 1

    assert client.call("DELETE", ROOT) == (200, {"success": True})
    assert error(client.call("DELETE", ROOT)) == (404, "Agent not found")
    assert world.agents.all() == []
    assert client.call("GET", "/api/v1/sessions")[1]["count"] == 0


def test_over_tcp_a_token_is_asked_for(world):
    assert world.client(Door.GATEWAY).call("POST", f"{ROOT}/start")[0] == 401


def test_what_is_said_to_an_agent_that_asked_is_the_answer(client, agent, world):
    question = {"id": "i1", "reason": "tool_call", "message": "May I?"}
    made = agent(asks([question], TEXT, TEXT))

    asked = chat(client, "tidy up")[1]
    busy = error(client.call("POST", f"{ROOT}/resume", json={"newTask": "another"}))
    answer, told = chat(client, "sure")

    assert [frame["type"] for frame in asked] == ["text", "text", "text", "done"]
    assert asked[-2]["content"] == "May I?"
    assert asked[-1]["state"]["conversationHistory"][-1] == {"role": "assistant", "content": "hello world\nMay I?"}
    assert busy == (400, "Agent is currently running")
    assert [frame["type"] for frame in told] == ["text", "text", "done"]
    assert made.inputs[1]["resume"][0]["payload"] == {"approved": False}
    ended(world, answer.headers["Location"].split("/")[4])
