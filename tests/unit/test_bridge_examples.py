"""The examples of other people's containers, run as in their containers but without one: each keeps its tier's contract."""

import http.client
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import ag_ui.core
import openai
import pytest
from pydantic import TypeAdapter

from agentainerd.model.bridge_rules import Outcome
from agentainerd.model.bridges import Bridge
from agentainerd.proxy.target import Target
from agentainerd.services.bridge_check import TASK, Examination
from agentainerd.services.bridge_trials import Trial, invocation
from agentainerd.supervisor import Supervisor
from tests.fakes.daemons import free_port

EXAMPLES = Path(__file__).parents[2] / "examples" / "bridges"
TIERS = ("openai", "agentcore", "agui")
EVENT = TypeAdapter(ag_ui.core.Event)


@pytest.fixture(scope="module")
def started():
    """Tier to the port where its example listens."""
    processes, ports = [], {}
    for tier in TIERS:
        ports[tier] = free_port("")  # as the agent listens
        program = [sys.executable, str(EXAMPLES / tier / "agent.py")]
        processes.append(
            subprocess.Popen(program, env={**os.environ, "PORT": str(ports[tier])}, stderr=subprocess.DEVNULL)
        )
    yield ports
    for process in processes:
        process.terminate()
        process.wait(10)


def listening(port, eventually):
    def can_connect():
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", port)) == 0

    eventually(can_connect, what="the example to listen")
    return port


@pytest.mark.parametrize("tier", TIERS)
def test_each_is_short_and_keeps_the_contract(tier, started, eventually):
    assert len((EXAMPLES / tier / "agent.py").read_text().splitlines()) < 60
    target = Target(("127.0.0.1", listening(started[tier], eventually)))
    supervisor = Supervisor()

    found = list(Examination(Trial(target, supervisor.spawn, TASK, wall_s=10.0, pause_s=0.01), Bridge(tier)))

    supervisor.stop(1)
    assert [finding for finding in found if finding.outcome is Outcome.FAIL] == []
    assert {finding.check for finding in found if finding.outcome is Outcome.SKIP} <= {"progress", "ping_busy"}


def test_the_chat_server_is_one_to_openais_own_client(started, eventually):
    port = listening(started["openai"], eventually)
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
    talk = [
        {"role": "user", "content": "one two"},
        {"role": "assistant", "content": "hm"},
        {"role": "user", "content": "three"},
    ]

    with client:
        whole = client.chat.completions.create(model="counter-1", messages=talk).choices[0].message.content
        chunks = list(client.chat.completions.create(model="counter-1", messages=talk, stream=True))

    assert whole == "2 thing(s) said, 1 word(s) in the last one."
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).strip() == whole
    assert chunks[-1].usage.prompt_tokens == 30


def test_every_event_of_the_agui_agent_is_one_to_the_protocols_own_models(started, eventually):
    connection = http.client.HTTPConnection("127.0.0.1", listening(started["agui"], eventually))
    body = invocation("three words here", "r-1", "s-1")
    ag_ui.core.RunAgentInput.model_validate(body)
    connection.request("POST", "/invocations", json.dumps(body))
    frames = connection.getresponse().read().decode().split("\n\n")
    connection.close()

    events = [EVENT.validate_json(frame.removeprefix("data: ")) for frame in frames if frame]

    assert events[0].type == "RUN_STARTED"
    assert (events[-1].type, events[-1].run_id, events[-1].thread_id) == ("RUN_FINISHED", "r-1", "s-1")
    assert (
        "".join(event.delta for event in events if event.type == "TEXT_MESSAGE_CONTENT") == "3 word(s), in message 1."
    )
