"""The routes of the autonomous-agent document, over HTTP and a WebSocket."""

import asyncio
import json

import pytest

from tests.fakes.runtime import runtimes
from tests.fakes.websockets import WebSocketClient

TURNS = [
    {"text": "I look.", "when": {"user": "files"}, "calls": [{"name": "list_directory", "arguments": {}}]},
    {
        "when": {"tool": "entries"},
        "text": "I write.",
        "calls": [{"name": "write_file", "arguments": {"path": "b.txt", "content": "x\n"}}],
    },
    {"text": "slow", "when": {"user": "slow"}, "first_token_s": 0.7},
    {"error": "no more", "when": {"user": "fail"}},
    {"text": "You said: {{input}}", "times": 0},
]
BUILT_IN = {"list_directory", "write_file", "read_file", "run_command", "search_files", "git_commit"}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """One with the runtime's own tools, as its package names them when it is installed."""
    place = tmp_path_factory.mktemp("bridge")
    info = place / "site/agentainer_runtime_tools-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: agentainer-runtime-tools\nVersion: 1\n")
    points = [f"{name} = agentainer_runtime.tools.{name}:tool" for name in sorted(BUILT_IN)]
    (info / "entry_points.txt").write_text("[agentainer.tools]\n" + "\n".join(points) + "\n")
    with runtimes(place) as start:
        yield start(TURNS, PYTHONPATH=str(place / "site"))


def frames_of(runtime, path, body):
    status, text = runtime.ask("POST", path, body)
    assert status == 200, text
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def test_a_task_is_told_in_frames_and_the_conversation_goes_on(runtime):
    assert runtime.ask("GET", "/agent/status")[1]["initialized"] is False
    assert runtime.ask("POST", "/agent/chat", {"message": "hi"}) == (
        400, {"error": "Agent not initialized. Call /agent/execute first."})  # fmt: skip

    frames = frames_of(
        runtime, "/agent/execute", {"task": "which files?", "conversationHistory": [{"role": "user", "content": "hm"}]}
    )

    assert [frame["type"] for frame in frames if frame["type"] != "text"] == [
        "tool-call", "tool-result", "tool-call", "file-edit", "tool-result", "done",
    ]  # fmt: skip
    call, result = frames[2], next(frame for frame in frames if frame["type"] == "tool-result")
    assert (call["toolName"], call["args"], call["toolCallId"]) == ("list_directory", {}, result["toolCallId"])
    assert "entries" in result["result"]
    edit = next(frame["fileEdit"] for frame in frames if frame["type"] == "file-edit")
    assert (edit["path"], edit["operation"]) == ("b.txt", "created")
    state = frames[-1]["state"]
    assert state["isExecuting"] is False
    assert [entry["content"] for entry in state["conversationHistory"]][:2] == ["hm", "which files?"]

    chat = frames_of(runtime, "/agent/chat", {"message": "thanks"})
    assert "".join(frame["content"] for frame in chat[:-1]) == "You said: thanks"
    assert chat[-1]["state"]["toolCallsCount"] == 2
    assert len(chat[-1]["state"]["conversationHistory"]) > len(state["conversationHistory"])

    again = frames_of(runtime, "/agent/execute", {"task": "anew"})
    assert [entry["content"] for entry in again[-1]["state"]["conversationHistory"]] == ["anew", "You said: anew"]


def test_what_is_wrong_is_said(runtime):
    for body in (
        {},
        {"task": " "},
        {"task": 1},
        {"task": "x", "conversationHistory": [{}]},
        {"task": "x", "apiKey": 1},
    ):
        assert runtime.ask("POST", "/agent/execute", body)[0] == 400
    frames_of(runtime, "/agent/execute", {"task": "hello"})
    assert runtime.ask("POST", "/agent/chat", {"message": ""}) == (400, {"error": "Message required"})
    assert frames_of(runtime, "/agent/execute", {"task": "fail"})[-1] == {"type": "error", "error": "no more"}
    assert runtime.ask("POST", "/agent/execute", {"task": "x", "model": "gpt-9"})[0] == 400


def test_a_second_task_at_once_is_an_error_in_its_stream(runtime):
    stream = runtime.lines("POST", "/agent/execute", {"task": "slow"})

    assert frames_of(runtime, "/agent/execute", {"task": "other"}) == [
        {"type": "error", "error": "Agent is already executing a task"}
    ]
    assert "slow" in "".join(stream)


@pytest.fixture
def client(runtime):
    client = WebSocketClient(runtime.port)
    yield client
    client.close()


def test_requests_over_the_websocket_are_answered_with_their_id(client, runtime):
    assert client.ask(type="ping")["type"] == "pong"
    wrote = client.ask(id="1", type="writeFile", payload={"path": "ws.txt", "content": "hello\n"})
    read = client.ask(id="2", type="readFile", payload={"path": "ws.txt"})
    ran = client.ask(id="3", type="runCommand", payload={"command": "echo out"})
    tree = client.ask(id="4", type="fileTree")

    assert (wrote["id"], wrote["success"]) == ("1", True)
    assert "hello" in read["data"]["content"]
    assert (ran["data"]["stdout"].strip(), ran["data"]["exitCode"]) == ("out", 0)
    assert {"path": "ws.txt", "type": "file"} in tree["data"]["files"]
    assert client.ask(id="5", type="reportError", payload={"message": "boom"})["success"]
    assert client.ask(id="6", type="getConsoleLogs")["data"]["logs"][0]["error"] == {"message": "boom"}
    assert client.ask(id="7", type="clearConsoleLogs")["success"]
    assert [edit["path"] for edit in runtime.ask("GET", "/agent/status")[1]["filesEdited"]][-1:] == ["ws.txt"]


def test_what_cannot_be_done_over_the_websocket_is_said(client):
    outside = client.ask(id="1", type="readFile", payload={"path": "../../etc/passwd"})
    unknown = client.ask(id="2", type="launch")
    client.send("nonsense")
    nonsense = client.receive()

    assert (outside["success"], unknown["success"], nonsense["success"]) == (False, False, False)
    assert "readFile" in unknown["error"]
    assert client.ask(id="3", type="readFile", payload=[])["success"] is False


def test_what_a_client_that_leaves_has_asked_for_is_ended(runtime, eventually):
    client = WebSocketClient(runtime.port)
    client.send(json.dumps({"id": 1, "type": "runCommand", "payload": {"command": "touch began && sleep 31.7"}}))
    eventually(lambda: (runtime.workspace / "began").exists())

    client.close()

    eventually(lambda: asyncio.run(running("sleep 31.7")) == 0)


async def running(command):
    process = await asyncio.create_subprocess_exec("pgrep", "-fxc", command, stdout=asyncio.subprocess.PIPE)
    return int((await process.communicate())[0])
