"""Agents whose runs are commands, held against what the contract says of them."""

import json

import pytest

from agentainerd.errors import NotSupported
from agentainerd.model.bridge_rules import Outcome, rules_of
from agentainerd.model.bridges import Bridge
from agentainerd.services import bridge_commands, command_links
from agentainerd.services.bridge_check import CheckRequest
from tests.fakes.programs import Program
from tests.fakes.world import ADMIN


@pytest.fixture
def check(world, monkeypatch):
    """Deploy an agent whose first run is one command and whose second run is another one, and return what is found of it."""
    monkeypatch.setattr(bridge_commands, "PATIENCE_S", 0.2)
    for module in (bridge_commands, command_links):
        monkeypatch.setattr(module, "TERM_S", 1.0)

    def examine(first, second=None, bridge="exec", words=("agent",)):
        commands = [first, second or first]
        program = Program(command=lambda it: commands.pop(0)(it), listens=False)
        world.engine.add_image("web", program)
        world.up(image="web", bridge=bridge, bridge_command=list(words))
        world.wait_ready()
        examination = world.services.bridge_checks.check(CheckRequest("web"), ADMIN)
        found = {finding.check: finding for finding in examination}
        assert set(found) == set(rules_of(Bridge(bridge)))
        assert world.route().in_flight == 0
        return {name: str(finding.outcome) for name, finding in found.items()}, found

    return examine


def answers(it):
    it.say(b"hello")
    return 0


def goes_on(it):
    it.say(b"hello")
    while True:
        it.input()


def ignores_term(it):
    it.ignores_term = True
    return goes_on(it)


def test_a_command_that_answers_and_ends_when_it_is_told_to(check):
    outcomes, found = check(answers, goes_on)

    assert outcomes == dict.fromkeys(("command", "task", "text", "terminates"), Outcome.PASS)
    assert found["text"].seen == "hello"


@pytest.mark.parametrize(
    ("first", "second", "broken"),
    [
        (lambda it: 127, answers, {"command", "task", "text"}),
        (lambda it: 3, answers, {"task", "text"}),
        (lambda it: 0, goes_on, {"text"}),
        (answers, ignores_term, {"terminates"}),
    ],
)
def test_what_a_command_gets_wrong(check, first, second, broken):
    outcomes, _ = check(first, second)

    assert {name for name, outcome in outcomes.items() if outcome == Outcome.FAIL} == broken


def test_a_command_that_is_over_at_once_is_not_cancelled(check):
    outcomes, found = check(answers, answers)

    assert (outcomes["terminates"], "give it a longer task" in found["terminates"].seen) == (Outcome.SKIP, True)


def test_an_agent_that_names_no_command(world):
    world.engine.add_image("web", Program(listens=False))
    world.up(image="web", bridge="exec")
    world.wait_ready()

    with pytest.raises(NotSupported, match="does not say which command a run is"):
        world.services.bridge_checks.check(CheckRequest("web"), ADMIN)


def speaks(*, ends=True, reason="end_turn"):
    """A command that speaks the Agent Client Protocol; its prompts end by themselves, or when they are cancelled."""

    def say(it, **message):
        it.say(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def command(it):
        rest, prompt = b"", 0
        while data := it.input():
            *lines, rest = (rest + data).split(b"\n")
            for message in map(json.loads, lines):
                method, number = message["method"], message.get("id")
                if method == "session/prompt":
                    prompt = number
                    chunk = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "hello"}}
                    say(it, method="session/update", params={"sessionId": "s", "update": chunk})
                if method in ("initialize", "session/new"):
                    say(it, id=number, result={"protocolVersion": 1, "sessionId": "s"})
                elif method == "session/cancel" or (method == "session/prompt" and ends):
                    stopped = "cancelled" if method == "session/cancel" else reason
                    say(it, id=prompt, result={"stopReason": stopped} if stopped else {})
        return 0

    return command


def test_a_command_that_speaks_the_protocol(check):
    outcomes, found = check(speaks(), speaks(ends=False), bridge="acp")

    assert outcomes == dict.fromkeys(("command", "task", "text", "stop_reason", "terminates"), Outcome.PASS)
    assert found["stop_reason"].seen == "end_turn"


@pytest.mark.parametrize(
    ("first", "broken"),
    [(speaks(reason=""), {"stop_reason"}), (speaks(reason="refusal"), {"task", "stop_reason"}), (lambda it: 1, {"task", "text", "stop_reason"})],
)  # fmt: skip
def test_what_the_protocol_asks_for(check, first, broken):
    outcomes, _ = check(first, speaks(ends=False), bridge="acp")

    assert {name for name, outcome in outcomes.items() if outcome == Outcome.FAIL} == broken
