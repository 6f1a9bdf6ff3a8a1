"""The loop and the model client against the scripted model server, which refuses what a provider refuses."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.fakes.models import KEY, MODEL, Faults, ModelServer, Rules, ToolCall, Turn, When
from tests.fakes.runtime import answer_of, run_input, runtimes

TOOLS = {
    "add": "Adder",
    "write": "Writer",
    "sleep": "Sleeper",
    "broken": "Broken",
    "not_json": "NotJson",
    "note": "Note",
    "append": "Appender",
}
ADD = ToolCall("add", {"a": 2, "b": 40})


@pytest.fixture
def models():
    with ModelServer() as server:
        yield server


def asking(start, place):
    """Return what starts a runtime that asks a model server, and has the tools of tools_for_tests.py."""
    package = place / "site"
    info = package / "tools_for_tests-1.dist-info"
    info.mkdir(parents=True)
    (package / "tools_for_tests.py").write_bytes((Path(__file__).parent / "tools_for_tests.py").read_bytes())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tools-for-tests\nVersion: 1\n")
    points = [f"{name} = tools_for_tests:{kind}" for name, kind in {**TOOLS, "gone": "Gone"}.items()]
    (info / "entry_points.txt").write_text("[agentainer.tools]\n" + "\n".join(points) + "\n")

    def start_on(server, **environment):
        return start(**{
            "AGENT_MODEL": MODEL, "OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": KEY, "PYTHONPATH": str(package),
            "AGENT_RETRY_PAUSE_S": "0.01", "AGENT_MODEL_TIMEOUT_S": "0.7", **environment,
        })  # fmt: skip

    return start_on


@pytest.fixture
def runtime_on(start_runtime, tmp_path):
    return asking(start_runtime, tmp_path)


@pytest.fixture
def both(model_and_runtime):
    model_and_runtime[0].clear()
    return model_and_runtime


@pytest.fixture(scope="module")
def model_and_runtime(tmp_path_factory):
    """A model server and a runtime that asks it; each test adds its own turns."""
    place = tmp_path_factory.mktemp("both")
    with ModelServer() as server, runtimes(place) as start:
        yield server, asking(start, place)(server)


def end_of(events):
    return events[-1]["type"], events[-1].get("code")


def results_of(events):
    return [json.loads(event["content"]) for event in events if event["type"] == "TOOL_CALL_RESULT"]


def test_it_does_what_the_model_asks_for_until_the_model_is_done(both):
    models, runtime = both
    models.add(
        Turn(text="I add.", calls=(ADD,), when=When(user="sum", system="an agent that works", tools=("add", "write"))),
        Turn(text="It is 42.", when=When(tool='"sum": 42'), cost_usd=0.25, cached_tokens=3, reasoning_tokens=2),
        Turn(text="42, as I said.", when=When(user="again")),
    )

    events = runtime.run("the sum?", thread="t")

    assert end_of(events) == ("RUN_FINISHED", None)
    assert answer_of(events) == "I add.It is 42."
    assert results_of(events) == [{"sum": 42}]
    assert [event["stepName"] for event in events if event["type"] == "STEP_FINISHED"] == ["step 1", "step 2"]
    usage = events[-1]["result"]["usage"]
    assert (usage["cost_usd"], usage["cost_source"], usage["cached_tokens"], usage["reasoning_tokens"]) == (
        0.25,
        "provider",
        3,
        2,
    )
    assert answer_of(runtime.run("again", thread="t")) == "42, as I said."
    assert {request.status for request in models.received} == {200}


def test_three_calls_at_once_are_done_in_order_and_edits_are_told(models, runtime_on):
    calls = (ToolCall("write", {"path": "a.txt"}), ADD, ToolCall("add", {"a": 1, "b": 1}))
    models.add(Turn(calls=calls), Turn(text="done", when=When(tool=r'"success": true.*"sum": 42.*"sum": 2')))
    runtime = runtime_on(models, GITHUB_TOKEN="ghp_nobody", DATABASE_URL=f"x://{KEY}@y")

    events = runtime.run()

    assert end_of(events) == ("RUN_FINISHED", None)
    edits = [event["value"] for event in events if event.get("name") == "file.changed"]
    assert edits == [{"path": "a.txt", "operation": "created", "diff": "+x\n"}]
    environment = results_of(events)[0]["environment"]
    assert "PATH" in environment
    assert not {"GITHUB_TOKEN", "OPENAI_API_KEY", "DATABASE_URL"} & set(environment)
    status = runtime.ask("GET", "/agent/status")[1]
    assert [edit["path"] for edit in status["filesEdited"]] == ["a.txt"]
    assert [call["name"] for call in status["toolCalls"]] == ["write", "add", "add"]
    assert status["tools"] == sorted(TOOLS)


def test_what_goes_wrong_with_a_tool_is_told_to_the_model(both):
    models, runtime = both
    calls = (
        ToolCall("nothing"),
        ToolCall("add", '{"a": 1,'),
        ToolCall("add", "[1]"),
        ToolCall("broken"),
        ToolCall("not_json"),
    )
    models.add(
        Turn(calls=calls), Turn(text="I see.", when=When(tool="no tool.*not JSON.*not an object.*a bug.*not JSON"))
    )

    events = runtime.run()

    assert end_of(events) == ("RUN_FINISHED", None)
    assert len(results_of(events)) == 5
    assert all("error" in result for result in results_of(events))


@pytest.mark.parametrize(
    "faults",
    [
        Faults(refusals=2, status=429, retry_after_s=0),
        Faults(refusals=1, status=529),
        Faults(refusals=4, status=500),
        Faults(piece_bytes=1, comments=True),
        Faults(is_done_absent=True),
        Faults(is_finish_absent=True),
        Faults(is_usage_absent=True),
        Faults(index="missing"),
        Faults(index="zero"),
        Faults(late_name=True, null_arguments=True),
        Faults(newline="\r\n"),
    ],
)
def test_what_a_provider_may_do_is_no_reason_to_fail(both, faults):
    models, runtime = both
    models.add(
        Turn(text="ü🎉", calls=(ADD, ToolCall("add", {"a": 1, "b": 1})), faults=faults),
        Turn(text="ok", when=When(tool="42")),
    )

    events = runtime.run()

    assert end_of(events) == ("RUN_FINISHED", None)
    assert results_of(events) == [{"sum": 42}, {"sum": 2}]


@pytest.mark.parametrize(
    "faults",
    [Faults(cut_after=4), Faults(cut_after=4, reset=True), Faults(error_after=4), Faults(stall_after=4, stall_s=30)],
)
def test_an_answer_that_breaks_off_is_asked_for_again(both, faults):
    models, runtime = both
    models.add(Turn(text="one two three four five", faults=faults), Turn(text="whole"))

    events = runtime.run()

    retry = next(event["value"] for event in events if event.get("name") == "model.retry")
    broken = {event["messageId"] for event in events if event["type"] == "TEXT_MESSAGE_END"}
    assert end_of(events) == ("RUN_FINISHED", None)
    assert retry["attempt"] == 2
    assert faults.reset or retry["discardedMessageId"] in broken  # a reset takes what had not been read with it
    assert answer_of(events).endswith("whole")
    assert events[-1]["result"]["steps"] == 1


@pytest.mark.parametrize(
    ("faults", "code", "words"),
    [
        (Faults(refusals=9, status=503), "model_error", "after 5 attempts"),
        (Faults(refusals=9, status=400), "model_error", "400"),
        (Faults(refusals=9, status=402), "cost_limit", "402"),
    ],
)
def test_what_a_provider_means_ends_the_run(both, faults, code, words):
    models, runtime = both
    models.add(Turn(text="never", faults=faults))

    events = runtime.run()

    assert end_of(events) == ("RUN_ERROR", code)
    assert words in events[-1]["message"]
    assert MODEL in events[-1]["message"]


def test_a_wrong_key_and_a_model_that_is_none_are_said(models, runtime_on):
    runtime = runtime_on(models, OPENAI_API_KEY="sk-wrong-0123456789")

    refused = runtime.run()[-1]

    assert "401" in refused["message"]
    assert "0123456789" not in refused["message"]
    assert "404" in runtime_on(models).run(model="no-such")[-1]["message"]


def test_nobody_to_ask_is_said_with_what_would_help(start_runtime):
    runtime = start_runtime(AGENT_MODEL="gpt-9")

    assert "OPENAI_BASE_URL" in runtime.run()[-1]["message"]
    assert "AGENT_MODEL" in start_runtime(AGENT_MODEL="").run()[-1]["message"]


def test_limits_end_a_run_and_the_session_goes_on(models, runtime_on):
    models.add(*[Turn(calls=(ToolCall("add", {"a": n, "b": 1}),), cost_usd=0.6) for n in range(4)])
    models.add(Turn(text="slow", when=When(user="slow"), faults=Faults(first_token_s=30)), Turn(text="fine", times=2))
    runtime = runtime_on(models)

    steps = runtime.run(thread="t", limits={"steps": 2})
    cost = runtime.run(thread="t", limits={"cost_usd": 1.0})
    began = time.monotonic()
    wall = runtime.run("slow", thread="t", limits={"wall_s": 0.3})

    assert end_of(steps) == ("RUN_ERROR", "step_limit")
    assert steps[-1]["rawEvent"]["steps"] == 2
    assert end_of(cost) == ("RUN_ERROR", "cost_limit")
    assert cost[-1]["rawEvent"]["usage"]["cost_usd"] == pytest.approx(1.2)
    assert end_of(wall) == ("RUN_ERROR", "timeout")
    assert time.monotonic() - began < 5
    assert answer_of(runtime.run("now", thread="t")) == "fine"


def test_going_round_in_circles_is_said_once_and_then_ends(models, runtime_on):
    models.add(Turn(calls=(ADD,), times=9))

    events = runtime_on(models).run()

    assert end_of(events) == ("RUN_ERROR", "stuck")
    assert [event["name"] for event in events if event["type"] == "CUSTOM"] == ["agent.nudge"]
    assert "repeating the same calls or words" in models.received[-1].body["messages"][-1]["content"]


def test_a_model_that_says_the_same_again_and_again_is_told_so_and_then_ends(models, runtime_on):
    models.add(Turn(text="on and on", is_cut_off=True, times=9))

    events = runtime_on(models).run()

    assert end_of(events) == ("RUN_ERROR", "stuck")
    nudges = [event["value"]["text"] for event in events if event["type"] == "CUSTOM"]
    assert ["repeating" in nudge for nudge in nudges] == [False, False, True]


def test_a_model_that_says_nothing_is_told_so_and_then_ends(both):
    models, runtime = both
    models.add(Turn(text=" "), Turn(text="sorry", when=When(user="was empty")), Turn(text="", times=3))

    assert answer_of(runtime.run()).endswith("sorry")
    assert end_of(runtime.run()) == ("RUN_ERROR", "model_error")


def test_a_cancelled_tool_is_gone_and_its_call_has_a_result(both, eventually):
    models, runtime = both
    models.add(Turn(text="I sleep.", calls=(ToolCall("sleep"), ADD)), Turn(text="fine", when=When(user="on")))
    stream = runtime.stream("POST", "/invocations", run_input(run="tool", thread="tool"))
    next(stream)
    pid = eventually(
        lambda: (runtime.workspace / "sleeper.pid").exists() and (runtime.workspace / "sleeper.pid").read_text()
    )

    assert runtime.ask("GET", "/agent/status")[1]["isExecuting"]  # looking at it changes nothing
    runtime.ask("POST", "/runs/tool/cancel")
    events = [event for _, event in stream]

    assert end_of(events) == ("RUN_ERROR", "cancelled")
    assert [result["error"] for result in results_of(events)] == ["the run was cancelled"] * 2
    assert not os.path.exists(f"/proc/{int(pid)}")
    assert answer_of(runtime.run("go on", thread="tool")) == "fine"
    assert models.received[-1].status == 200


def test_a_cancelled_answer_is_kept_as_far_as_it_came(both):
    models, runtime = both
    models.add(
        Turn(text="one two three", faults=Faults(stall_after=3, stall_s=30)), Turn(text="fine", when=When(user="on"))
    )
    stream = runtime.stream("POST", "/invocations", run_input(run="answer", thread="answer"))
    events = []
    for _, event in stream:
        events.append(event)
        if event["type"] == "TEXT_MESSAGE_CONTENT":
            runtime.ask("POST", "/runs/answer/cancel")

    assert end_of(events) == ("RUN_ERROR", "cancelled")
    runtime.run("go on", thread="answer")
    said = models.received[-1].body["messages"]
    assert [message["role"] for message in said] == ["system", "user", "assistant", "user"]
    assert said[2]["content"] == answer_of(events)


def test_a_tool_that_was_at_work_when_the_container_died_is_not_repeated(models, runtime_on, eventually):
    models.add(Turn(calls=(ToolCall("sleep"),)), Turn(text="I look first.", when=When(user="on")))
    runtime = runtime_on(models)
    stream = runtime.stream("POST", "/invocations", run_input(run="r", thread="t"))
    next(stream)
    eventually(lambda: (runtime.workspace / "sleeper.pid").exists())
    runtime.stop(signal.SIGKILL)
    os.kill(int((runtime.workspace / "sleeper.pid").read_text()), signal.SIGKILL)

    runtime = runtime_on(models, AGENT_SCRIPTS="")
    events = [event for _, event in runtime.stream("GET", "/runs/r/events")]

    assert end_of(events) == ("RUN_ERROR", "interrupted")
    assert "not known" in results_of(events)[0]["error"]
    assert answer_of(runtime.run("go on", thread="t")) == "I look first."
    assert "not known" in models.received[-1].body["messages"][3]["content"]
    assert len(models.received) == 2


def test_what_does_not_go_through_the_gateway_is_told_nothing_of_the_run(models, runtime_on):
    models.add(Turn(text="ok", times=3))
    runtime = runtime_on(models, AGENTAINER_URL="http://host.docker.internal:8081")

    assert end_of(runtime.run()) == ("RUN_FINISHED", None)  # the server refuses X-Agentainer-*

    gateway = runtime_on(models, AGENTAINER_URL=models.base_url.removesuffix("/v1"))
    gateway.run(run="r-7", thread="s-7")
    assert models.received[-1].headers["x-agentainer-run-id"] == "r-7"
    assert models.received[-1].headers["x-agentainer-session-id"] == "s-7"
    gateway.ask("POST", "/invocations", run_input(run="r-7.1", thread="s-7"), {"X-Agentainer-Run-Id": "r-7"})
    assert models.received[-1].headers["x-agentainer-run-id"] == "r-7"  # a part of what the daemon counts as one


def test_a_conversation_that_is_too_long_is_said(runtime_on):
    with ModelServer([Turn(text="never")], rules=Rules(context_tokens=50)) as models:
        events = runtime_on(models, AGENT_COMPRESSION="off").run("x" * 400)

    assert end_of(events) == ("RUN_ERROR", "model_error")
    assert "context" in events[-1]["message"]


def test_a_conversation_that_gets_too_long_is_made_shorter_and_goes_on(runtime_on):
    size = "x" * 1500
    turns = [Turn(calls=(ToolCall("note", {"text": f"{n} {size}"}),)) for n in range(4)]
    summary = Turn(text="four notes were made", when=When(system="Summarize"), times=9)
    done = Turn(text="done", when=When(user="four notes were made"))
    with ModelServer([summary, done, *turns], rules=Rules(context_tokens=2500)) as models:
        runtime = runtime_on(models, AGENT_CONTEXT_TOKENS="100000")  # more than the model takes: it refuses

        events = runtime.run("make notes", thread="t")

        assert end_of(events) == ("RUN_FINISHED", None)
        told = [event["value"] for event in events if event.get("name") == "context.compressed"]
        assert told[0]["after_tokens"] < told[0]["before_tokens"]
        assert events[-1]["result"]["steps"] <= 5
        assert answer_of(events) == "done"


def test_what_a_model_refuses_again_is_not_made_shorter_again(runtime_on):
    summary = Turn(text="notes were made", when=When(system="Summarize"), times=9)
    notes = [Turn(calls=(ToolCall("note", {"text": "x" * size}),)) for size in (2000, 2001, 6000)]  # the last one stays
    with ModelServer([summary, *notes], rules=Rules(context_tokens=5200)) as models:
        runtime = runtime_on(models, AGENT_CONTEXT_TOKENS="100000", AGENT_INSTRUCTIONS="y" * 9000)

        events = runtime.run("make notes")

    assert end_of(events) == ("RUN_ERROR", "model_error")
    assert "context length" in events[-1]["message"]
    asked = [each.body["messages"][0]["content"] for each in models.received]
    assert sum("Summarize" in system for system in asked) == 1
    assert [each.status for each in models.received][-3:] == [400, 200, 400]


def test_a_run_is_cancelled_while_it_waits_for_its_turn_and_the_one_before_goes_on(both):
    models, runtime = both
    models.add(Turn(text="first", when=When(user="one"), faults=Faults(first_token_s=0.6)))
    first = runtime.stream("POST", "/invocations", run_input("one", run="turn-1", thread="turn"))
    next(first)
    second = runtime.stream("POST", "/invocations", run_input("two", run="turn-2", thread="turn"))
    next(second)

    runtime.ask("POST", "/runs/turn-2/cancel")

    assert [event.get("code") for _, event in second] == ["cancelled"]
    assert end_of([event for _, event in first]) == ("RUN_FINISHED", None)
    assert len(models.received) == 1


def test_a_run_is_cancelled_between_two_attempts(both):
    models, runtime = both
    models.add(Turn(text="never", faults=Faults(refusals=9, status=503, retry_after_s=30)))
    stream = runtime.stream("POST", "/invocations", run_input(run="pause"))
    while next(stream)[1].get("name") != "model.retry":
        pass

    began = time.monotonic()
    runtime.ask("POST", "/runs/pause/cancel")

    assert end_of([event for _, event in stream]) == ("RUN_ERROR", "cancelled")
    assert time.monotonic() - began < 5


def test_sigterm_ends_a_tool_that_is_at_work_too(models, runtime_on, eventually):
    models.add(Turn(calls=(ToolCall("sleep"),)))
    runtime = runtime_on(models)
    stream = runtime.stream("POST", "/invocations", run_input(run="r"))
    next(stream)
    pid = eventually(
        lambda: (runtime.workspace / "sleeper.pid").exists() and (runtime.workspace / "sleeper.pid").read_text()
    )

    began = time.monotonic()
    code = runtime.stop()

    assert code == 0
    assert time.monotonic() - began < 10
    assert not os.path.exists(f"/proc/{int(pid)}")
    assert end_of([event for _, event in stream]) == ("RUN_ERROR", "interrupted")
