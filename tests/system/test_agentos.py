"""Clients of AgentOS and of the autonomous agent, written as their documents say, against a real daemon with a real container.

They send no token: the paths are open on this machine, as those documents assume.
"""

import functools
import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.fakes.event_source import CuttingRelay, EventSource, Failed
from tests.system.test_agents_real import Host

pytestmark = [pytest.mark.docker, pytest.mark.redis]
ROOT = Path(__file__).parents[2]
OPEN = "security:\n  open_prefixes: [/api/v1, /api/agents]\n"
SESSIONS = "/api/v1/sessions"
UNKNOWN = "11111111-2222-4333-8444-555555555555"
KINDS = [
    "RUN_STARTED", "TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT", "TEXT_MESSAGE_START",
    *["TEXT_MESSAGE_CONTENT"] * 3, "TEXT_MESSAGE_END", "RUN_FINISHED",
]  # fmt: skip
ASKS = "import urllib.request as u\ntry: print(u.urlopen('http://host.docker.internal:{port}/api/v1/agents').status)\nexcept u.HTTPError as e: print(e.code)"


@pytest.fixture
def host(start_daemon, docker_sandbox, base_image):
    """A daemon with open paths and the agent `counter`, which speaks AG-UI, deployed and not started."""
    daemon = start_daemon(sandbox=docker_sandbox, config=OPEN)
    made = Host(daemon, "")
    dockerfile = str(ROOT / "examples/bridges/agui/Dockerfile")
    made.ctl("deploy", "--name", "counter", "--image", dockerfile, "--build-arg", f"BASE_IMAGE={base_image}")
    yield made
    docker_sandbox.remove_containers()


def curl(*words: str) -> str:
    """What curl prints of an answer that is streamed."""
    command = ["curl", "-sS", "-N", "--max-time", "30", *words]
    return subprocess.run(command, capture_output=True, timeout=40, check=True).stdout.decode()


def events(text: str) -> list[tuple[str, dict]]:
    """Split a stream as that document's clients do: by empty lines, and no field but these two."""
    found = [re.fullmatch(r"event: (\w+)\ndata: (.*)", frame) for frame in text.removesuffix("\n\n").split("\n\n")]
    return [(match[1], json.loads(match[2])) for match in found]


def test_clients_of_agentos_find_what_their_document_says(host, docker_client, eventually):
    host.must("POST", "/agents/counter/start?wait=30")

    use_sessions_and_runs(host)
    read_streams(host)
    read_with_event_source(host)
    come_back_with_event_source(host)
    find_open_paths_open_to_this_machine_only(host, docker_client, eventually)


def use_sessions_and_runs(up):
    """What the document's own tests do, in their order."""
    ask = up.daemon.http

    def must(method, path, body=None, status=200):
        got, said, _ = ask(method, path, body)
        assert got == status, (method, path, said)
        return said

    # Health and agents
    assert must("GET", "/health")["status"] == "healthy"
    [agent] = must("GET", "/api/v1/agents")["agents"]
    assert agent["name"] == "counter"

    # Sessions: made, listed, filtered, changed, bound to somebody else
    first = must("POST", SESSIONS, {"agent_id": "counter", "user_id": "test-user", "name": "Test Session"}, 201)
    assert (first["agent_id"], first["user_id"]) == ("counter", "test-user")
    must("POST", SESSIONS, {"agent_id": "test-agent", "user_id": "test-user"}, 201)
    must("POST", SESSIONS, {"agent_id": "test-agent"}, 201)
    must("POST", SESSIONS, {"user_id": "test-user"}, 400)
    assert must("GET", SESSIONS)["count"] == 3
    assert must("GET", f"{SESSIONS}?agent_id=test-agent")["count"] == 2
    path = f"{SESSIONS}/{first['session_id']}"
    changed = must("PUT", path, {"name": "Updated Name", "metadata": {"key": "value"}})
    assert (changed["name"], changed["metadata"]) == ("Updated Name", {"key": "value"})
    must("PUT", path, {"state": {"agui": {"pane": "history", "filters": ["runs", "errors"]}}})
    assert must("GET", path)["state"]["agui"]["pane"] == "history"
    assert must("POST", f"{path}/reuse", {"team_id": "team-42"})["team_id"] == "team-42"

    # Runs: of nobody, in the session, of media alone
    must("POST", "/api/v1/agents/test-agent/run", {"input": "Hello, agent!"}, 404)
    must("POST", "/api/v1/agents/test-agent/run", {"input": "Hello", "session_id": first["session_id"]}, 404)
    run = must("POST", "/api/v1/agents/counter/run", {"input": "ping", "session_id": first["session_id"]})
    assert (run["status"], run["content"], run["metadata"]["cache_hit"]) == (
        "completed",
        "1 word(s), in message 1.",
        False,
    )
    stored = must("GET", path)
    assert (stored["run_count"], stored["runs"][0]["run_id"]) == (1, run["run_id"])
    media = {"media": [{"type": "image", "url": "https://example.com/image.png"}]}
    alone = must("POST", f"/api/v1/agents/{agent['id']}/run", media)
    assert alone["content"]
    assert len(alone["metadata"]["media"]) == 1

    # History and summary
    said = must("GET", f"{path}/history?num_messages=1")
    assert [message["content"] for message in said["messages"]] == ["1 word(s), in message 1."]
    assert said["runs"][-1]["status"] == "completed"
    must("GET", f"{path}/summary", status=404)
    assert must("POST", f"{path}/summary")["summary"]["content"]
    assert must("GET", f"{path}/summary")["summary"]["run_count"] == 1
    must("POST", f"{path}/summary?async=true", status=202)

    # The end of a session
    must("DELETE", path)
    for method, target in (("GET", path), ("DELETE", path), ("GET", f"{SESSIONS}/{UNKNOWN}")):
        assert must(method, target, status=404)["code"] == "SESSION_NOT_FOUND"


def read_streams(up):
    """Streams are those of the document to the byte."""
    url = f"http://127.0.0.1:{up.daemon.port}/api/v1/agents/counter/run"

    text = curl("-i", f"{url}/stream", "-d", '{"input": "one two three"}')
    head, _, body = text.partition("\r\n\r\n")
    assert "\r\nContent-Type: text/event-stream\r\n" in head + "\r\n"
    assert "\r\nCache-Control: no-cache" in head
    told = events(body)
    assert [name for name, _ in told] == ["run_start", "tool_call", "token", "token", "token", "complete"]
    assert told[1][1]["data"] == {"tool_name": "count_words", "arguments": {"text": "one two three"}, "result": "3"}
    tokens = "".join(event["data"]["token"] for name, event in told if name == "token")
    assert tokens == told[-1][1]["data"]["output"] == "3 word(s), in message 1."

    assert [name for name, _ in events(curl(f"{url}?stream_events=true", "-d", '{"input": "x"}'))][-1] == "complete"
    only = curl(f"{url}/stream?types=complete", "-d", '{"input": "x"}')
    assert only.removeprefix(":\n").startswith("event: complete\ndata: {")
    assert only.endswith("\n\n")


def read_with_event_source(host):
    """A browser's EventSource reads the events of a run, ours and those of the document, whole and from a place on."""
    url = events_url_of_a_run(host)

    told = event_source(url, "RUN_FINISHED")
    assert [kind for kind, _, _ in told] == KINDS
    assert [json.loads(data)["seq"] for _, data, _ in told] == [int(last) for _, _, last in told]
    after = event_source(f"{url}?after={told[1][2]}", "RUN_FINISHED")
    assert after == told[2:]
    document = event_source(f"{url}?format=agno", "complete")
    assert [kind for kind, _, _ in document] == ["run_start", "tool_call", "token", "token", "token", "complete"]
    assert [json.loads(data)["type"] for _, data, _ in document] == [kind for kind, _, _ in document]
    with pytest.raises(Failed, match="404"):
        event_source(url.replace("/runs/", f"/runs/{UNKNOWN}/"), "RUN_FINISHED")


def come_back_with_event_source(host):
    """Cut off again and again, in the middle of an event, it comes back with Last-Event-ID, and nothing is missing or told twice."""
    url = events_url_of_a_run(host)
    told = EventSource(url).until("RUN_FINISHED")
    with CuttingRelay(host.daemon.port, [700, 701, 1000, 1, 0]) as relay:
        source = EventSource(url.replace(str(host.daemon.port), str(relay.port), 1))

        assert source.until("RUN_FINISHED") == told

    assert source.connections == 6
    seen = [each for each in source.asked_with if each]
    assert seen == sorted(seen, key=int)
    assert len(set(seen)) > 1
    over = EventSource(url, headers={"Last-Event-ID": told[-1].last_event_id}).until("RUN_FINISHED")
    assert over == told[-1:]  # who comes back after the end is told of it once more


def events_url_of_a_run(host) -> str:
    run_id = host.daemon.http("POST", "/api/v1/agents/counter/run", {"input": "x"})[1]["run_id"]
    return f"http://127.0.0.1:{host.daemon.port}/api/v1/runs/{run_id}/events"


def event_source(url: str, last: str) -> list[tuple[str, str, str]]:
    """What an EventSource is told until an event of type `last`; where there is Node, its own is told the same."""
    told = [(event.type, event.data, event.last_event_id) for event in EventSource(url).until(last)]
    if has_event_source():
        assert node_event_source(url, last, sorted({kind for kind, _, _ in told} - {last})) == told
    return told


@functools.cache
def has_event_source() -> bool:
    """Whether there is a Node that has it (20.18 or later)."""
    command = ["sh", "-c", "exec node --experimental-eventsource -e EventSource"]
    return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0


def node_event_source(url: str, last: str, others: list[str]) -> list[tuple[str, str, str]]:
    program = """
        const [url, last, ...names] = process.argv.slice(1), seen = [], source = new EventSource(url);
        for (const name of names) source.addEventListener(name, (event) => {
          seen.push([event.type, event.data, event.lastEventId]);
          if (name === last) { console.log(JSON.stringify(seen)); process.exit(0); }
        });
        setTimeout(() => process.exit(1), 10000);
    """
    command = ["node", "--experimental-eventsource", "--no-warnings", "-e", program, url, last, last, *others]
    done = subprocess.run(command, capture_output=True, timeout=20, check=True)
    return [tuple(each) for each in json.loads(done.stdout)]


def find_open_paths_open_to_this_machine_only(up, docker_client, eventually):
    """Not to an agent, not to pages of other sites, and to nobody after a reload; bodies are bounded."""
    port = up.daemon.port
    container = up.agent("counter")["container_id"]
    assert up.daemon.http("GET", "/api/v1/agents")[0] == 200
    assert up.daemon.http("GET", "/agents")[0] == 401

    asked = docker_client.exec_create(container, ["/usr/bin/python3", "-c", ASKS.format(port=port)])
    assert docker_client.exec_start(asked).decode().strip() == "401"

    page = {"Origin": "http://localhost:3000"}
    assert up.daemon.http("OPTIONS", "/api/v1/agents", headers=page)[2]["access-control-allow-origin"] == page["Origin"]
    assert up.daemon.http("GET", "/api/v1/agents", headers={"Origin": "https://evil.example"})[0] == 403
    over = b'{"input": "' + b"x" * (10 * 2**20 - 12) + b'"}'
    assert len(over) == 10 * 2**20 + 1
    assert up.daemon.http("POST", "/api/v1/agents/counter/run", over)[0] == 413

    (up.daemon.folder / "config.yaml").write_text("api:\n  max_body_bytes: 64Ki\n  summaries: false\n")
    up.daemon.signal(signal.SIGHUP)
    eventually(lambda: up.daemon.http("GET", "/api/v1/agents")[0] == 401)
    status, said = up.daemon.control("POST", SESSIONS, {"agent_id": "x" * 70_000})
    assert (status, said["code"]) == (413, "BODY_TOO_LARGE")
    session_id = up.daemon.control("POST", SESSIONS, {"agent_id": "x"})[1]["session_id"]
    status, said = up.daemon.control("POST", f"{SESSIONS}/{session_id}/summary")
    assert (status, said["code"]) == (501, "SUMMARY_DISABLED")


def test_an_autonomous_agent_works_in_one_container_and_one_conversation(host, docker_client, eventually):
    def ask(method, path, body=None):
        return host.daemon.http(method, f"/api/agents/counter{path}", body)[:2]

    status, started = ask("POST", "/start", {"task": "fix the bug"})
    assert (status, started["success"], started["message"]) == (200, True, "Agent started")
    eventually(
        lambda: host.daemon.control("GET", f"/api/v1/runs/{started['run_id']}")[1]["data"]["status"] == "completed"
    )
    container = host.agent("counter")["container_id"]

    status, resumed = ask("POST", "/resume", {"newTask": "and the tests"})
    assert (status, resumed["message"]) == (200, "Agent resumed with new task")
    run = host.daemon.control("GET", f"/api/v1/runs/{resumed['run_id']}?wait=20")[1]["data"]
    assert (run["status"], run["output"]) == ("completed", "3 word(s), in message 5.")
    assert host.agent("counter")["container_id"] == container

    url = f"http://127.0.0.1:{host.daemon.port}/api/agents/counter/chat"
    frames = curl(url, "-d", '{"message": "what did you do?"}').removeprefix(":\n").removesuffix("\n\n").split("\n\n")
    told = [json.loads(frame.removeprefix("data: ")) for frame in frames]
    assert [one["type"] for one in told] == ["tool-call", "tool-result", "text", "text", "text", "done"]
    assert len(told[-1]["state"]["conversationHistory"]) == 6

    assert ask("DELETE", "") == (200, {"success": True})
    assert ask("POST", "/start")[0] == 404
    assert [one for one in docker_client.containers(all=True) if one["Id"] == container] == []
