"""examples/llm-agent, run as in its container but without one: against a strict model server, and with its script."""

import http.client
import json
import os
import subprocess
import sys
from pathlib import Path

import ag_ui.core
import pytest
from pydantic import TypeAdapter

from agentainerd.model.event_sequences import SequenceChecker
from agentainerd.services.bridge_trials import invocation, names
from tests.fakes.daemons import free_port
from tests.fakes.models import KEY, MODEL, Faults, ModelServer, Turn, When

EXAMPLES = Path(__file__).parents[2] / "examples"
AGENT = EXAMPLES / "llm-agent" / "agent.py"
PIPELINE = EXAMPLES / "deployments" / "pipeline" / "pipeline.py"
EVENT = TypeAdapter(ag_ui.core.Event)
PROVIDERS = ("OPENAI", "ANTHROPIC", "GEMINI", "OPENROUTER")


def environment(tmp_path, **given):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(PROVIDERS)}
    return {**clean, "STATE_DIR": str(tmp_path / "state"), "AGENT_MODEL": MODEL, **given}


@pytest.fixture
def start(tmp_path):
    processes = []

    def run(program=AGENT, **given):
        port = free_port("")  # as the agent listens
        process = subprocess.Popen(
            [sys.executable, str(program)], env=environment(tmp_path, PORT=str(port), **given),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        processes.append(process)
        assert "listens on port" in process.stdout.readline()
        return port

    yield run
    for process in processes:
        process.kill()
        process.wait(10)
        process.stdout.close()


def ask(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def said(port, method, path, body=None):
    status, data = ask(port, method, path, body)
    return status, json.loads(data)


def events_of(port, task):
    body = invocation(task, "r-1", "s-1")
    status, data = ask(port, "POST", "/invocations", body, names("r-1", "s-1"))
    assert status == 200
    events = [json.loads(frame.removeprefix("data: ")) for frame in data.decode().split("\n\n") if frame]
    checker = SequenceChecker("r-1")
    assert [problem for event in events for problem in checker.feed(event)] + checker.end() == []
    for event in events:
        EVENT.validate_python(event)
    return events


def test_a_conversation_is_sent_to_the_model_and_outlives_the_container(start):
    turns = [
        Turn(text="Hello, Ann.", when=When(user="I am Ann")),
        Turn(text="You are Ann.", when=When(user="Who am I")),
    ]
    with ModelServer(turns) as server:
        given = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.base_url}
        first = said(start(**given), "POST", "/chat", {"message": "I am Ann", "session": "s-1"})
        port = start(**given)
        second = said(port, "POST", "/api/chat", {"message": "Who am I?", "session": "s-1"})

    answer = {"response": "Hello, Ann.", "session": "s-1", "provider": "openai", "model": MODEL}
    assert (first, second[1]["response"]) == ((200, answer), "You are Ann.")
    assert [message["role"] for message in server.received[-1].body["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert len(said(port, "GET", "/history?session=s-1")[1]["messages"]) == 4
    assert said(port, "GET", "/history?session=another")[1]["messages"] == []
    assert said(port, "DELETE", "/history?session=s-1") == (200, {"forgotten": True})
    assert said(port, "GET", "/history?session=s-1")[1]["messages"] == []


def test_a_run_streams_what_the_model_says(start):
    with ModelServer([Turn(text="one two three", faults=Faults(piece_bytes=1, comments=True))]) as server:
        events = events_of(start(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=server.base_url), "count")

    text = "".join(event.get("delta", "") for event in events)
    assert (text, events[-1]["type"], events[-1]["usage"][0]["provider"]) == ("one two three", "RUN_FINISHED", "openai")
    assert events[-1]["usage"][0]["inputTokens"] > 0


def test_a_run_names_itself_to_the_gateway_and_to_nobody_else(start):
    with ModelServer([Turn(text="one")]) as server:
        start_as = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.base_url}
        events_of(start(**start_as), "count")
        events_of(start(**start_as, AGENTAINER_URL=server.base_url.removesuffix("/v1")), "count")

    named = [request.headers.get("x-agentainer-run-id") for request in server.received]
    assert named == [None, "r-1"]


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        (Faults(refusals=1, status=500), "openai answered 500"),
        (Faults(cut_after=2), "broke off"),
        (Faults(cut_after=2, reset=True), "openai could not be asked"),
        (Faults(error_after=1), "overloaded"),
    ],
)
def test_a_model_that_fails_ends_the_run_with_the_reason(start, faults, words):
    with ModelServer([Turn(text="one two three", faults=faults)]) as server:
        events = events_of(start(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=server.base_url), "count")

    assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "model_error")
    assert words in events[-1]["message"]


def test_without_a_key_a_script_answers_and_says_that_it_is_one(start):
    port = start()

    assert said(port, "GET", "/status")[1] == {"provider": "script", "model": "script", "busy": 0}
    assert (
        said(port, "POST", "/chat", {"message": "hi"})[1]["response"] == "[script, no model] You said: hi (message 1)"
    )
    assert "[script, no model]" in "".join(event.get("delta", "") for event in events_of(port, "hi"))
    for path, body in (
        ("/chat", {}),
        ("/chat", {"message": "x", "session": "../x"}),
        ("/invocations", {"threadId": "t"}),
    ):
        assert said(port, "POST", path, body)[0] == 400
    assert said(port, "GET", "/nothing")[0] == 404
    assert said(port, "GET", "/ping")[1]["status"] == "Healthy"


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ({"ANTHROPIC_API_KEY": "k"}, ("anthropic", "https://api.anthropic.com/v1")),
        ({"GEMINI_API_KEY": "k", "OPENROUTER_API_KEY": "k"}, ("gemini", "https://generativelanguage.googleapis.com/v1beta/openai")),
        ({"OPENAI_API_KEY": "k", "OPENROUTER_API_KEY": "k", "LLM_PROVIDER": "openrouter"}, ("openrouter", "https://openrouter.ai/api/v1")),
        ({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://local/v1/"}, ("openai", "http://local/v1")),
        ({"OPENAI_API_KEY": "k", "LLM_PROVIDER": "script"}, ("script", "")),
    ],
)  # fmt: skip
def test_the_provider_is_the_one_that_the_environment_has_a_key_for(monkeypatch, given, chosen):
    monkeypatch.syspath_prepend(str(AGENT.parent))
    import providers

    model = providers.choose(given)

    assert (model.provider, model.address) == chosen


@pytest.mark.parametrize(
    ("given", "words"),
    [({"LLM_PROVIDER": "acme"}, "not one of"), ({"LLM_PROVIDER": "openai"}, "OPENAI_API_KEY is not set")],
)
def test_a_provider_that_can_not_be_asked_keeps_it_from_starting(tmp_path, given, words):
    done = subprocess.run(
        [sys.executable, str(AGENT)], env=environment(tmp_path, **given), capture_output=True, text=True, timeout=10, check=False
    )  # fmt: skip

    assert (done.returncode, words in done.stderr, "Traceback" in done.stderr) == (1, True, False)


def test_a_pipeline_gives_each_agent_the_answer_of_the_one_before_it(start):
    agent = f"http://127.0.0.1:{start()}"
    port = start(PIPELINE, STAGES="first, second-one", FIRST_SERVICE=agent, SECOND_ONE_SERVICE=agent)

    events = events_of(port, "tea")
    answer = said(port, "POST", "/chat", {"message": "tea"})[1]

    calls = [(event["toolCallName"]) for event in events if event["type"] == "TOOL_CALL_START"]
    first, second = (event["content"] for event in events if event["type"] == "TOOL_CALL_RESULT")
    assert calls == ["first", "second-one"]
    assert (first in second, events[-2]["type"], events[-1]["type"]) == (True, "TEXT_MESSAGE_END", "RUN_FINISHED")
    assert list(answer["stages"]) == calls
    assert answer["response"] == answer["stages"]["second-one"]
    assert said(port, "POST", "/invocations", {"threadId": "t"})[0] == 400


def test_a_stage_that_does_not_answer_is_the_reason_for_the_end_of_the_run(start):
    port = start(PIPELINE, STAGES="gone", GONE_SERVICE="http://127.0.0.1:9")

    last = events_of(port, "tea")[-1]

    assert (last["type"], last["message"]) == ("RUN_ERROR", "gone did not answer: [Errno 111] Connection refused")
    assert said(port, "POST", "/chat", {"message": "tea"})[0] == 502
