"""`/api/v1/agents/{ref}/bridge/check` as its handler is, on containers that keep a contract, or none."""

import json

import pytest

from agentainerd.model.bridge_rules import rules_of
from agentainerd.model.bridges import Bridge
from tests.fakes.contract_agent import Agent, Handler
from tests.fakes.programs import Answer, Program, http
from tests.fakes.world import ADMIN

PATH = "/api/v1/agents/web/bridge/check"


def speaks(agent):
    """A program whose connections are served as a container's with that agent are."""
    bound = type("Bound", (Handler,), {"agent": agent})
    return Program(lambda connection, run: bound(connection._sock, ("", 0), None))


@pytest.fixture(autouse=True)
def quick(world):
    world.services.bridge_checks._pause_s = 0.01


@pytest.fixture
def up(world):
    def start(program, **fields):
        world.engine.add_image("echo", program)
        return world.up("web", **fields)

    return start


def ask(world, path=PATH, **body):
    with world.client().post(path, json=body) as answer:
        lines = [json.loads(line) for line in answer.get_data().splitlines() if line]
        return answer.status_code, lines


def test_findings_are_streamed_and_the_result_counts_them(world, up):
    up(speaks(Agent("native", "pairs")))

    status, lines = ask(world)

    findings, result = [line["finding"] for line in lines[:-1]], lines[-1]["result"]
    assert status == 200
    assert [one["check"] for one in findings if one["outcome"] == "fail"] == ["pairs"]
    assert "TEXT_MESSAGE_END" in next(one["seen"] for one in findings if one["check"] == "pairs")
    assert sorted(one["check"] for one in findings) == sorted(rules_of(Bridge.NATIVE))
    assert result == {"bridge": "native", "passed": len(findings) - 1, "failed": 1, "skipped": 0}
    assert '"action":"check_bridge"' in world.log_of("audit.log")


def test_a_container_of_agentcore_is_told_from_one_of_agui_by_its_answer(world, up):
    up(speaks(Agent("agentcore")))

    _, lines = ask(world)

    assert (lines[-1]["result"]["bridge"], lines[-1]["result"]["failed"]) == ("agentcore", 0)


def test_a_tier_that_was_named_is_the_one_that_is_checked(world, up):
    up(speaks(Agent("agentcore")), bridge="agui")

    _, lines = ask(world)
    _, asked = ask(world, bridge="openai")

    assert (lines[-1]["result"]["bridge"], asked[-1]["result"]["bridge"]) == ("agui", "openai")
    assert "answer" in {line["finding"]["check"] for line in lines[:-1] if line["finding"]["outcome"] == "fail"}


@pytest.mark.parametrize(
    ("body", "field"),
    [({"bridge": "soap"}, "bridge"), ({"task": " "}, "task"), ({"task": "x" * 1_100_000}, "task"), ({"timeout_s": 0}, "timeout_s"), ({"timeout_s": 1e9}, "timeout_s"), ({"x": 1}, "x")],
)  # fmt: skip
def test_what_can_not_be_meant_is_refused(world, up, body, field):
    up(speaks(Agent("native")))

    status, lines = ask(world, **body)

    assert (status, field in lines[0]["message"]) == (400, True)


def test_an_agent_that_is_not_there_or_not_ready_or_speaks_nothing(world, up):
    assert ask(world)[0] == 404
    world.deploy("web")
    status, lines = ask(world)
    assert (status, lines[0]["code"]) == (409, "AGENT_NOT_RUNNING")
    world.services.agents.remove("web", ADMIN)
    up(Program(http(lambda request, run: Answer(404, b"no"))))

    status, lines = ask(world)

    assert (status, lines[0]["code"]) == (501, "BRIDGE_UNKNOWN")
