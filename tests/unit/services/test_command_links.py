"""Runs that are commands: any program, and those that speak the Agent Client Protocol."""

import json

import pytest

from agentainerd import defaults
from agentainerd.model.runs import Limits, RunStatus
from agentainerd.services import command_links
from tests.fakes.commands import FakeCommand
from tests.fakes.programs import Program
from tests.fakes.runs import ask, finish, reached, types
from tests.fakes.world import ADMIN
from tests.unit.services.test_run_links import valid as told


@pytest.fixture
def runs(world):
    return world.services.runs


@pytest.fixture
def agent(world):
    """Return a function that deploys an agent whose runs are this command; nothing listens in its container."""

    def put(command, bridge="exec", words=("agent", "--fast"), **fields):
        world.engine.add_image("web", Program(command=command, listens=False))
        world.up(image="web", bridge=bridge, bridge_command=list(words), **fields)
        world.wait_ready()

    return put


# ---- any program


def test_a_command_gets_the_input_and_says_the_answer(runs, world, agent):
    def command(it: FakeCommand) -> int:
        assert it.environment["JOB_PROMPT"] == "say hello"
        asked = b""
        while data := it.input():
            asked += data
        it.say(b"you said \xc3")
        it.say(b"\xa4: " + asked)
        it.say(b"a warning\n", "stderr")
        return 0

    agent(command)

    run = finish(runs, ask(runs).id)

    assert (run.status, run.output, run.bridge) == (RunStatus.COMPLETED, "you said ä: say hello", "exec")
    events = told(runs, run.id)
    assert [event["value"] for event in events if event["type"] == "CUSTOM"] == [
        {"stream": "stderr", "text": "a warning\n"}
    ]
    assert events[-1]["result"] == {"exit_code": 0}
    given = world.engine.commands[0]
    assert given.words == ["agent", "--fast"]
    assert given.environment["JOB_ID"] == run.id
    assert world.route().in_flight == 0


@pytest.mark.parametrize(("code", "meaning"), [(3, ""), (127, " (it is not in the image)")])
def test_a_command_that_fails(runs, agent, code, meaning):
    def command(it):
        it.say(b"half")
        return code

    agent(command)

    run = finish(runs, ask(runs).id)

    assert (run.status, run.output, run.error.message) == (
        RunStatus.FAILED,
        "half",
        f"the command ended with {code}{meaning}",
    )
    assert told(runs, run.id)[-1]["rawEvent"] == {"exit_code": code}


def test_a_long_prompt_is_on_standard_input_only(runs, world, agent):
    def command(it):
        size = 0
        while data := it.input():
            size += len(data)
        it.say(str(size).encode())
        return 0

    agent(command)

    run = finish(runs, ask(runs, "ä" * 150_000).id)

    assert run.output == "300000"
    assert "JOB_PROMPT" not in world.engine.commands[0].environment


def forever(it: FakeCommand) -> int:
    it.say(b"working")
    while True:
        it.input()


def test_a_command_ends_with_its_run(runs, world, agent):
    agent(forever)
    run = ask(runs)
    reached(runs, run.id, 3)

    runs.cancel(run.id, ADMIN)

    assert finish(runs, run.id).status is RunStatus.CANCELLED
    assert world.engine.commands[0].signals == ["TERM"]


def test_a_command_that_ignores_the_first_signal(runs, world, agent, monkeypatch):
    monkeypatch.setattr(command_links, "TERM_S", 0.1)

    def command(it):
        it.ignores_term = True
        return forever(it)

    agent(command)
    run = ask(runs)
    reached(runs, run.id, 3)

    runs.cancel(run.id, ADMIN)

    assert finish(runs, run.id).status is RunStatus.CANCELLED
    assert world.engine.commands[0].signals == ["TERM", "KILL"]


def test_a_command_that_takes_too_long_is_killed(runs, world, agent):
    agent(forever)

    run = finish(runs, ask(runs, limits=Limits(wall_s=0.2)).id)

    assert run.error.code == "timeout"
    assert world.engine.commands[0].signals == ["KILL"]


def test_the_label_of_the_image_says_what_a_run_is(runs, world):
    labels = {"agentainer.bridge": "exec", "agentainer.bridge.command": "tool --name 'two words'"}
    world.engine.add_image("web", Program(command=lambda it: 0, listens=False), labels)
    world.up(image="web")
    world.wait_ready()

    assert finish(runs, ask(runs).id).status is RunStatus.COMPLETED
    assert world.engine.commands[0].words == ["tool", "--name", "two words"]


def test_nobody_says_which_command_a_run_is(runs, agent):
    agent(lambda it: 0, words=())

    run = finish(runs, ask(runs).id)

    assert "does not say which command a run is" in run.error.message


# ---- the Agent Client Protocol


class Acp:
    """An agent that speaks it. `updates` are told for each prompt; `asked` has what it was sent."""

    def __init__(self, *updates, reason="end_turn", **more):
        self.updates = updates
        self.reason = reason
        self.asked = []
        self.answers = []
        self.options = more
        self.rest = b""

    def __call__(self, it: FakeCommand) -> int:
        it.say(b"a banner that is no JSON\n")
        while message := self.next(it):
            self.asked.append(message)
            method = message.get("method")
            if method == "initialize":
                self.say(it, {"id": message["id"], "result": {"protocolVersion": 1, "agentCapabilities": {}}})
            elif method == "session/new":
                self.say(it, self.options.get("new", {"result": {"sessionId": "s1"}}) | {"id": message["id"]})
            elif method == "session/prompt":
                self.work(it, message["id"])
            elif method == "session/cancel":
                self.say(it, {"id": 3, "result": {"stopReason": "cancelled"}})
        return self.options.get("code", 0)

    def work(self, it, number):
        if self.options.get("permission"):
            options = [{"optionId": "no", "kind": "reject_once"}, {"optionId": "yes", "kind": "allow_once"}]
            self.say(it, {"id": 77, "method": "session/request_permission", "params": {"options": options}})
            self.say(it, {"id": 78, "method": "fs/read_text_file", "params": {"path": "/x"}})
            self.answers += [self.next(it), self.next(it)]
        for update in self.updates:
            self.say(it, {"method": "session/update", "params": {"sessionId": "s1", "update": update}})
        if self.reason:
            self.say(it, {"id": number, "result": {"stopReason": self.reason}})

    def say(self, it, message):
        line = json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"
        it.say(line[:7])
        it.say(line[7:])

    def next(self, it):
        while b"\n" not in self.rest:
            data = it.input()
            if not data:
                return None
            self.rest += data
        line, _, self.rest = self.rest.partition(b"\n")
        return json.loads(line)


def text(words: str, kind: str = "agent_message_chunk") -> dict:
    return {"sessionUpdate": kind, "content": {"type": "text", "text": words}}


CALL = {
    "sessionUpdate": "tool_call",
    "toolCallId": "c1",
    "title": "Edit a.py",
    "kind": "edit",
    "rawInput": {"path": "a.py"},
}
DONE = {
    "sessionUpdate": "tool_call_update", "toolCallId": "c1", "status": "completed",
    "content": [
        {"type": "content", "content": {"type": "text", "text": "edited"}},
        {"type": "diff", "path": "/workspace/a.py", "oldText": "1", "newText": "2"},
    ],
}  # fmt: skip


def test_an_acp_agent_works(runs, world, agent):
    acp = Acp(
        text("hm", "agent_thought_chunk"), text("I "), text("edit"), CALL, DONE, text("done"), {"sessionUpdate": "plan"}
    )
    agent(acp, bridge="acp")

    run = finish(runs, ask(runs).id)

    assert (run.status, run.output, run.bridge) == (RunStatus.COMPLETED, "I edit\ndone", "acp")
    assert types(runs, run.id) == [
        "RUN_STARTED",
        "REASONING_START", "REASONING_MESSAGE_START", "REASONING_MESSAGE_CONTENT", "REASONING_MESSAGE_END", "REASONING_END",
        "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END",
        "TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT", "CUSTOM",
        "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "CUSTOM", "TEXT_MESSAGE_END",
        "RUN_FINISHED",
    ]  # fmt: skip
    changed = [event for event in told(runs, run.id) if event.get("name") == "file.changed"]
    assert changed[0]["value"] == {"path": "/workspace/a.py", "operation": "modified"}
    assert [message["method"] for message in acp.asked] == ["initialize", "session/new", "session/prompt"]
    assert acp.asked[0]["params"]["protocolVersion"] == 1
    assert acp.asked[1]["params"] == {"cwd": "/", "mcpServers": []}
    assert acp.asked[2]["params"]["prompt"] == [{"type": "text", "text": "say hello"}]
    assert world.engine.commands[0].signals == ["KILL"]  # it would wait for a further prompt


def test_an_acp_agent_gets_permission_and_no_files(runs, agent):
    acp = Acp(text("ok"), permission=True)
    agent(acp, bridge="acp")

    assert finish(runs, ask(runs).id).status is RunStatus.COMPLETED
    assert acp.answers[0]["result"] == {"outcome": {"outcome": "selected", "optionId": "yes"}}
    assert acp.answers[1]["error"]["code"] == -32601


def test_an_acp_agent_is_told_the_conversation(runs, world, agent):
    acp = Acp(text("an answer"))
    agent(acp, bridge="acp")
    session = world.services.sessions.create(ADMIN, agent_id="web")
    for words in ("one", "two"):
        finish(runs, ask(runs, words, session_id=session.id).id)

    told_first, asked = acp.asked[-1]["params"]["prompt"]
    assert told_first["text"] == "The conversation so far:\n\nuser: one\n\nassistant: an answer"
    assert asked["text"] == "two"


def test_an_acp_agent_is_asked_to_cancel(runs, agent):
    acp = Acp(text("working"), reason="")
    agent(acp, bridge="acp")
    run = ask(runs)
    reached(runs, run.id, 3)

    runs.cancel(run.id, ADMIN)

    run = finish(runs, run.id)
    assert (run.status, run.error.code) == (RunStatus.CANCELLED, "cancelled")
    assert acp.asked[-1]["method"] == "session/cancel"


@pytest.mark.parametrize(
    ("acp", "code", "message"),
    [
        (Acp(reason="max_tokens"), "model_error", "the agent stopped: max_tokens"),
        (Acp(reason="refusal"), "error", "the agent stopped: refusal"),
        (Acp(new={"error": {"code": -32000, "message": "Authentication required"}}), "error", "the agent answered: Authentication required"),
        (lambda it: it.say(b"no key\n", "stderr") or 1, "error", "the agent's command ended with 1: no key"),
    ],
)  # fmt: skip
def test_what_an_acp_agent_can_not_do(runs, agent, acp, code, message):
    agent(acp, bridge="acp")

    run = finish(runs, ask(runs).id)

    assert (run.status, run.error.code, run.error.message) == (RunStatus.FAILED, code, message)


def test_an_acp_agent_that_writes_without_end(runs, agent, monkeypatch):
    monkeypatch.setattr(defaults, "MAX_RUN_EVENT_BYTES", 10_000)

    def command(it):
        for _ in range(20):
            it.say(b"x" * 1000)
        return forever(it)

    agent(command, bridge="acp")

    assert "a line longer than 10000 bytes" in finish(runs, ask(runs).id).error.message
