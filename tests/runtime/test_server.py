"""The runtime as a process: the native tier's contract over real HTTP, kills and restarts."""

import json
import signal

import pytest
from ag_ui.core import Event
from pydantic import TypeAdapter

from tests.fakes.runtime import answer_of, run_input, runtimes

EVENT = TypeAdapter(Event)
SLOW = [{"text": "one two three", "calls": [{"name": "none"}], "pause_s": 0}, {"text": "slow", "first_token_s": 60}]


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    with runtimes(tmp_path_factory.mktemp("echo")) as start:
        yield start([{"text": "You said: {{input}}", "thinking": "let me see", "times": 0}])


def test_a_run_streams_events_that_the_protocol_knows_and_ends(echo):
    events = echo.run("good morning", run="run-1", thread="thread-1")

    for event in events:
        EVENT.validate_python(event)
    assert [event["type"] for event in events][:3] == ["RUN_STARTED", "STEP_STARTED", "REASONING_START"]
    assert (events[0]["runId"], events[0]["threadId"]) == ("run-1", "thread-1")
    assert answer_of(events) == "You said: good morning"
    assert events[-1]["type"] == "RUN_FINISHED"
    assert events[-1]["result"]["usage"]["cost_usd"] is None
    assert events[-1]["result"]["usage"]["input_tokens"] > 0
    assert events[-1]["result"]["steps"] == 1
    assert events[-1]["result"]["model"] == "script/turns.json"


def test_ping_says_whether_it_is_busy_and_since_when(start_runtime):
    runtime = start_runtime(SLOW)
    assert runtime.ask("GET", "/ping")[1]["status"] == "Healthy"
    stream = runtime.stream("POST", "/invocations", run_input(run="r"))
    next(stream)

    first, second = runtime.ask("GET", "/ping")[1], runtime.ask("GET", "/ping")[1]

    assert (first["status"], first["bridge"]) == ("HealthyBusy", "native")
    assert first["time_of_last_update"] == second["time_of_last_update"]
    stream.close()


def test_a_reader_that_leaves_takes_nothing_with_it_and_another_joins_without_a_gap(start_runtime, eventually):
    runtime = start_runtime([{"text": " ".join(map(str, range(300))), "pause_s": 0.001}])
    stream = runtime.stream("POST", "/invocations", run_input(run="r"))
    seen = [next(stream) for _ in range(20)]
    stream.close()

    rest = list(runtime.stream("GET", "/runs/r/events?after=20"))
    again = list(runtime.stream("GET", "/runs/r/events"))

    assert [number for number, _ in seen + rest] == list(range(1, len(again) + 1))
    assert seen + rest == again
    assert again[-1][1]["type"] == "RUN_FINISHED"
    assert list(runtime.stream("GET", f"/runs/r/events?after={len(again) + 5}")) == again[-1:]


def test_a_run_that_is_known_is_not_run_again(echo):
    asked = run_input("hello", run="same", thread="t")

    first = list(echo.stream("POST", "/invocations", asked))
    second = list(echo.stream("POST", "/invocations", asked))

    assert first == second
    assert len(echo.ask("GET", "/agent/status")[1]["conversationHistory"]) == 2


def test_a_run_is_cancelled_and_its_session_goes_on(start_runtime, eventually):
    runtime = start_runtime(
        [{"text": "slow", "when": {"user": "slow"}, "first_token_s": 15}, {"text": "fine", "times": 0}]
    )
    stream = runtime.stream("POST", "/invocations", run_input("slow", run="r", thread="t"))
    next(stream)

    assert runtime.ask("POST", "/runs/r/cancel")[0] == 202
    events = [event for _, event in stream]

    assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "cancelled")
    assert set(events[-1]["rawEvent"]["usage"]) >= {"input_tokens", "cost_usd", "cost_source"}
    eventually(lambda: runtime.ask("GET", "/ping")[1]["status"] == "Healthy")
    assert runtime.ask("POST", "/runs/r/cancel")[0] == 202
    assert answer_of(runtime.run("quick", thread="t")) == "fine"


def test_a_killed_container_ends_its_runs_as_interrupted_and_remembers(start_runtime):
    runtime = start_runtime([{"text": "I remember: {{input}}", "when": {"user": "what"}}, *SLOW])
    stream = runtime.stream("POST", "/invocations", run_input("a long one", run="r", thread="t"))
    seen = [next(stream) for _ in range(9)]
    runtime.stop(signal.SIGKILL)

    runtime = start_runtime(folder=runtime.folder)
    found = list(runtime.stream("GET", "/runs/r/events"))

    assert found[:9] == seen
    assert (found[-1][1]["type"], found[-1][1]["code"]) == ("RUN_ERROR", "interrupted")
    assert sum(event["type"] in ("RUN_ERROR", "RUN_FINISHED") for _, event in found) == 1
    assert answer_of(runtime.run("what did I say?", thread="t")) == "I remember: what did I say?"
    said = [message["content"] for message in runtime.ask("GET", "/agent/status")[1]["conversationHistory"]]
    assert said[0] == "a long one"


def test_a_log_that_was_cut_in_the_middle_of_a_line_is_read_up_to_there(start_runtime):
    runtime = start_runtime([{"text": "one two three"}])
    whole = runtime.run(run="r")
    runtime.stop()
    path = runtime.workspace / ".agentainer/runs/r.jsonl"
    path.write_bytes(b"\n".join(path.read_bytes().splitlines()[:4]) + b'\n{"type":"TEXT_MES')

    runtime = start_runtime(folder=runtime.folder)
    events = [event for _, event in runtime.stream("GET", "/runs/r/events")]

    assert events[:-1] == whole[:4]
    assert events[-1]["code"] == "interrupted"


def test_sigterm_ends_what_runs_and_the_process(start_runtime):
    runtime = start_runtime(SLOW)
    stream = runtime.stream("POST", "/invocations", run_input(run="r"))
    seen = [next(stream)]

    runtime.process.send_signal(signal.SIGTERM)
    events = [event for _, event in [*seen, *stream]]

    assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "interrupted")
    assert runtime.stop() == 0


@pytest.mark.parametrize("body", [{"prompt": "hello"}, {"input": "hello"}])
def test_a_prompt_alone_is_enough(echo, body):
    headers = {"X-Agentainer-Session-Id": "s-1", "X-Agentainer-Run-Id": "r-1"}

    status, text = echo.ask("POST", "/invocations", body, headers)

    started = json.loads(text.splitlines()[0].removeprefix("data: "))
    assert (status, started["runId"], started["threadId"]) == (200, "r-1", "s-1")


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"{", "JSON"),
        (b"[1]", "object"),
        ({}, "prompt"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "nobody", "content": ""}]}, "role"),
        ({"messages": [{"role": "user", "content": 7}]}, "content"),
        ({"messages": [{"role": "assistant", "toolCalls": [{"id": 1}]}]}, "toolCalls"),
        ({"runId": "x" * 300, "prompt": "hi"}, "runId"),
        ({"runId": 5, "prompt": "hi"}, "runId"),
        ({"prompt": "hi", "forwardedProps": {"limits": {"steps": -1}}}, "limits.steps"),
        ({"prompt": "hi", "forwardedProps": {"model": 1}}, "model"),
        (b"[" * 100_000, "JSON"),
    ],
)
def test_what_is_no_run_is_refused_with_the_reason(echo, body, word):
    status, said = echo.ask("POST", "/invocations", body)

    assert status == 400
    assert word in said["error"]


def test_the_rest_of_http(echo):
    assert echo.ask("GET", "/nope") == (404, {"error": "Not found"})
    assert echo.ask("GET", "/runs/nope/events")[0] == 404
    assert echo.ask("POST", "/runs/nope/cancel")[0] == 404
    assert echo.ask("GET", "/runs/..%2f..%2fetc%2fpasswd/events")[0] == 404
    assert echo.ask("OPTIONS", "/agent/execute")[0] == 200
    assert echo.ask("POST", "/invocations", b"x" * (10 * 1024 * 1024 + 1))[0] == 413
    assert echo.ask("GET", "/health") == (200, {"status": "ok", "workspace": str(echo.workspace)})


def test_variables_that_mean_nothing_are_said(start_runtime):
    with pytest.raises(pytest.fail.Exception, match="AGENT_MAX_STEPS: 'many' is not a number"):
        start_runtime([], AGENT_MAX_STEPS="many")


def test_only_so_many_runs_are_kept_and_what_stood_alone_goes_with_its_run(start_runtime, eventually):
    runtime = start_runtime([{"text": "hi", "times": 0}], AGENT_KEEP_RUNS="2")
    runtime.run(run="alone", thread="alone")
    runtime.run(run="second", thread="session")

    def is_forgotten(run):
        last = runtime.run()[0]["runId"]
        assert runtime.ask("GET", f"/runs/{last}/events")[0] == 200
        return runtime.ask("GET", f"/runs/{run}/events")[0] == 404

    eventually(lambda: is_forgotten("alone") and is_forgotten("second"), what="a run to be one too many")
    kept = [path.stem for path in (runtime.workspace / ".agentainer/conversations").iterdir()]
    assert "session" in kept
    assert "alone" not in kept
    assert len(list((runtime.workspace / ".agentainer/runs").iterdir())) <= 5


def test_a_conversation_is_forgotten_with_the_logs_of_its_runs(start_runtime):
    runtime = start_runtime([{"text": "a b c", "pause_s": 0.2, "when": {"user": "slow"}}, {"text": "fine", "times": 0}])
    runtime.run("one", thread="t", run="r1")
    runtime.run("two", thread="u", run="r2")
    stream = runtime.stream("POST", "/invocations", run_input("slow", thread="v"))
    next(stream)

    assert runtime.ask("DELETE", "/conversations/t") == (204, "")
    assert runtime.ask("DELETE", "/conversations/t") == (204, "")
    assert runtime.ask("DELETE", "/conversations/v")[0] == 409

    state = runtime.workspace / ".agentainer"
    assert sorted(path.name for path in (state / "conversations").iterdir()) == ["u.jsonl", "v.jsonl"]
    assert not (state / "runs/r1.jsonl").exists()
    assert runtime.ask("GET", "/runs/r1/events")[0] == 404
    assert runtime.ask("GET", "/runs/r2/events")[0] == 200
    assert list(stream)[-1][1]["type"] == "RUN_FINISHED"
