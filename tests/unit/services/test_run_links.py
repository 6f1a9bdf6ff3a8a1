"""Runs over the tiers that do not speak AG-UI: chat completions, AgentCore's answers, the autonomous-agent document's frames."""

import json

import ag_ui.core
import pytest
from pydantic import TypeAdapter

from agentainerd.model.runs import RunStatus
from tests.fakes.programs import Answer, Program, http
from tests.fakes.runs import SSE, ask, finish, reached, told, types
from tests.fakes.world import ADMIN

EVENT = TypeAdapter(ag_ui.core.Event)
JSON = (("Content-Type", "application/json"),)


class Speaker:
    """A container that answers GETs by path, and POSTs as `says(connection, path, body)` does; `asked` has their paths and bodies."""

    def __init__(self, says, gets=None) -> None:
        self.says = says
        self.gets = gets or {}
        self.asked: list[tuple[str, dict]] = []
        self.headers: list[str] = []

    def handle(self, connection, run) -> None:
        head = connection.recv_until(b"\r\n\r\n").decode()
        if not head:
            return
        method, path, _ = head.split(" ", 2)
        length = next(
            (int(line.split(":")[1]) for line in head.lower().split("\r\n") if line.startswith("content-length:")), 0
        )
        body = connection.recv_exactly(length)
        if method == "GET":
            self.answer(connection, self.gets.get(path), b"200 OK" if path in self.gets else b"404 Not Found")
        else:
            self.headers.append(head)
            self.asked.append((path, json.loads(body)))
            self.says(connection, *self.asked[-1])
        connection.close()

    @staticmethod
    def answer(connection, body, status: bytes = b"200 OK") -> None:
        data = json.dumps(body).encode()
        kind = b"Content-Type: application/json\r\nConnection: close\r\n"
        connection.sendall(b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, kind, len(data), data))


@pytest.fixture
def runs(world):
    return world.services.runs


@pytest.fixture
def speaker(world):
    def put(says, gets=None, **fields) -> Speaker:
        made = Speaker(says, gets)
        world.engine.add_image("web", Program(made.handle))
        world.up(image="web", **fields)
        world.wait_ready()
        return made

    return put


def valid(runs, run_id: str) -> list[dict]:
    """The events of a run, each of which AG-UI's own models take."""
    events = told(runs, run_id)
    for event in events:
        EVENT.validate_python(event)
    return events


def stream(connection, *pieces: object, end: bytes = b"data: [DONE]\n\n") -> None:
    connection.sendall(SSE)
    for piece in pieces:
        connection.sendall(b"data: " + json.dumps(piece).encode() + b"\n\n")
    connection.sendall(end)


# ---- chat completions

MODELS = {"/v1/models": {"data": [{"id": "agent"}]}}


def chunk(text: str = "", **more) -> dict:
    return {"choices": [{"index": 0, "delta": {"content": text} if text else {}, **more}]}


USED = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}


def chat(connection, path, body) -> None:
    stream(connection, chunk("hello "), chunk("world"), chunk(finish_reason="stop"), USED)


def test_a_chat_completion_is_streamed(runs, speaker):
    made = speaker(chat, MODELS)

    run = finish(runs, ask(runs).id)

    assert (run.status, run.output, run.bridge) == (RunStatus.COMPLETED, "hello world", "openai")
    assert (run.usage.input_tokens, run.usage.output_tokens) == (5, 2)
    path, body = made.asked[0]
    assert path == "/v1/chat/completions"
    assert (body["stream"], body["messages"]) == (True, [{"role": "user", "content": "say hello"}])
    assert f"X-Agentainer-Run-Id: {run.id}" in made.headers[0]
    assert [event["type"] for event in valid(runs, run.id)][-1] == "RUN_FINISHED"


def test_a_chat_completion_gets_the_conversation_with_its_tools(runs, world, speaker):
    call = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": '{"at": 1}'}}

    def says(connection, path, body):
        calls = {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
        stream(connection, chunk("I look"), calls)

    made = speaker(says, MODELS)
    session = world.services.sessions.create(ADMIN, agent_id="web")
    finish(runs, ask(runs, "one", session_id=session.id).id)

    finish(runs, ask(runs, "two", session_id=session.id).id)

    said = made.asked[1][1]["messages"]
    assert [message["role"] for message in said] == ["user", "assistant", "assistant", "tool", "user"]
    assert said[2]["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"at":1}'}
    assert (said[3]["tool_call_id"], said[4]["content"]) == ("c1", "two")


def test_a_chat_completion_that_is_not_streamed(runs, speaker):
    answer = {"choices": [{"message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}]}
    speaker(lambda connection, path, body: Speaker.answer(connection, answer), MODELS)

    run = finish(runs, ask(runs).id)

    assert (run.status, run.output) == (RunStatus.COMPLETED, "whole")


@pytest.mark.parametrize(
    ("pieces", "end", "message"),
    [
        ((chunk("half"),), b"", "broke off"),
        ((chunk("half"), {"error": {"message": "out of luck"}}), b"", "out of luck"),
        ((chunk("half"),), b"data: {nonsense\n\n", "no JSON"),
    ],
)
def test_a_chat_completion_that_goes_wrong(runs, speaker, pieces, end, message):
    speaker(lambda connection, path, body: stream(connection, *pieces, end=end), MODELS)

    run = finish(runs, ask(runs).id)

    assert (run.status, run.error.code, run.output) == (RunStatus.FAILED, "model_error", "half")
    assert message in run.error.message


def test_images_are_shown_and_other_attachments_are_named(runs, speaker):
    made = speaker(chat, MODELS)
    media = [{"type": "image", "url": "https://x/y.png"}, {"type": "file", "url": "https://x/z.pdf", "name": "z.pdf"}]

    finish(runs, ask(runs, "look", media=media).id)

    assert made.asked[0][1]["messages"][-1]["content"] == [
        {"type": "text", "text": "look\n\nAttached file: z.pdf (https://x/z.pdf)"},
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
    ]


# ---- AgentCore's contract

PING = {"/ping": {"status": "Healthy"}}


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        ({"result": "four"}, "four"),
        ({"response": "four", "other": 1}, "four"),
        ("four", "four"),
        ({"sum": 4}, '{"sum": 4}'),
        ([4], "[4]"),
    ],
)
def test_an_answer_in_json_is_told_as_text(runs, speaker, answer, output):
    made = speaker(lambda connection, path, body: Speaker.answer(connection, answer), PING)

    run = finish(runs, ask(runs).id)

    assert (run.status, run.output) == (RunStatus.COMPLETED, output)
    assert [event["type"] for event in valid(runs, run.id)] == [
        "RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END", "RUN_FINISHED",
    ]  # fmt: skip
    assert (made.asked[0][0], made.asked[0][1]["prompt"]) == ("/invocations", "say hello")


def test_a_stream_of_anything_is_told_as_text(runs, speaker):
    speaker(
        lambda connection, path, body: stream(connection, "four ", {"data": "and "}, {"text": "five"}, end=b""), PING
    )

    run = finish(runs, ask(runs).id)

    assert (run.status, run.output) == (RunStatus.COMPLETED, "four and five")
    assert types(runs, run.id)[-2:] == ["TEXT_MESSAGE_END", "RUN_FINISHED"]


def test_an_answer_that_is_too_long(runs, speaker):
    speaker(lambda connection, path, body: Speaker.answer(connection, "x" * 17_000_000), PING)

    run = finish(runs, ask(runs).id)

    assert run.status is RunStatus.FAILED
    assert "longer than 16777216 bytes" in run.error.message


# ---- the autonomous-agent document

STATUS = {"/agent/status": {"initialized": False}}
FRAMES = (
    {"type": "text", "content": "I edit"},
    {"type": "tool-call", "toolName": "write_file", "toolCallId": "c1", "args": {"path": "a"}},
    {"type": "tool-result", "toolName": "write_file", "toolCallId": "c1", "result": {"success": True}},
    {"type": "file-edit", "fileEdit": {"path": "a", "operation": "created"}},
    {"type": "something-new"},
    {"type": "text", "content": "done"},
)


def test_frames_become_events(runs, world, speaker):
    made = speaker(
        lambda connection, path, body: stream(connection, *FRAMES, {"type": "done", "state": {}}, end=b""), STATUS
    )
    session = world.services.sessions.create(ADMIN, agent_id="web")

    run = finish(runs, ask(runs, session_id=session.id).id)
    finish(runs, ask(runs, "more", session_id=session.id, model="m").id)

    assert (run.status, run.output, run.bridge) == (RunStatus.COMPLETED, "I edit\ndone", "bridge")
    assert [event["type"] for event in valid(runs, run.id)] == [
        "RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END",
        "TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT", "CUSTOM",
        "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END", "RUN_FINISHED",
    ]  # fmt: skip
    path, body = made.asked[1]
    assert (path, body["task"], body["model"]) == ("/agent/execute", "more", "m")
    assert body["conversationHistory"][0] == {"role": "user", "content": "say hello"}


@pytest.mark.parametrize(
    ("last", "message"),
    [(({"type": "error", "error": "no key"},), "no key"), ((), "without the run's last event")],
)
def test_frames_that_end_badly(runs, speaker, last, message):
    speaker(lambda connection, path, body: stream(connection, *FRAMES[:1], *last, end=b""), STATUS)

    run = finish(runs, ask(runs).id)

    assert (run.status, run.output) == (RunStatus.FAILED, "I edit")
    assert message in run.error.message


def test_a_tier_is_asked_for_once_an_image(runs, world):
    asked = []

    def respond(request, run):
        if request.method == "GET":
            asked.append(request.target)
            return Answer(200, b'{"status": "Healthy"}', JSON)
        return Answer(200, b'{"result": "x"}', JSON)

    world.engine.add_image("web", Program(http(respond)))
    for name in ("web", "other"):
        world.up(name, image="web")
        world.wait_ready(name)

    for name in ("web", "web", "other"):
        assert finish(runs, ask(runs, agent_id=name).id).status is RunStatus.COMPLETED
    assert asked == ["/ping"]


def test_a_cancel_ends_a_chat_completion(runs, speaker):
    def says(connection, path, body):
        connection.sendall(SSE + b"data: " + json.dumps(chunk("working")).encode() + b"\n\n")
        connection.recv(1)  # until it is closed

    speaker(says, MODELS)
    run = ask(runs)
    reached(runs, run.id, 3)

    runs.cancel(run.id, ADMIN)

    run = finish(runs, run.id)
    assert (run.status, run.output) == (RunStatus.CANCELLED, "working")
