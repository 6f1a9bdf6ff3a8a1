"""The example, run as it runs in its container, but without one."""

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.daemons import free_port

AGENT = Path(__file__).parents[2] / "examples" / "simple-agent" / "agent.py"


@pytest.fixture
def start(tmp_path):
    processes = []

    def run(data_dir: str):
        port = free_port("")  # as the agent listens
        process = subprocess.Popen(
            [sys.executable, str(AGENT)],
            env={**os.environ, "PORT": str(port), "DATA_DIR": data_dir, "AGENT_NAME": "hello"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        processes.append(process)
        assert "listens on port" in process.stdout.readline()
        return process, port

    yield run
    for process in processes:
        process.kill()
        process.wait(10)
        process.stdout.close()


def ask(port: int, method: str, path: str, body: object = None, **headers: str) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_it_answers_and_remembers_over_its_own_death(start, tmp_path):
    process, port = start(str(tmp_path))
    assert ask(port, "GET", "/health") == (200, {"status": "ok"})
    headers = {"X-Agentainer-Request-ID": "r-1", "X-Agentainer-Replay": "true"}
    assert ask(port, "POST", "/chat", {"message": "hi"}, **headers) == (200, {"answer": "You said: hi", "number": 1})
    process.kill()

    _, port = start(str(tmp_path))

    assert ask(port, "POST", "/chat", {"message": "again"})[1]["number"] == 2
    assert ask(port, "GET", "/history")[1]["messages"] == [
        {"number": 1, "message": "hi", "request_id": "r-1", "replayed": True},
        {"number": 2, "message": "again", "request_id": "", "replayed": False},
    ]
    assert ask(port, "GET", "/")[1]["agent"] == "hello"


def test_without_a_folder_it_remembers_in_memory(start):
    _, port = start("/proc/nowhere")

    ask(port, "POST", "/chat", {"message": "hi"})

    assert len(ask(port, "GET", "/history")[1]["messages"]) == 1


@pytest.mark.parametrize("body", [{}, [], "text", {"message": 1}])
def test_what_is_no_message_gets_400(start, tmp_path, body):
    _, port = start(str(tmp_path))

    status, answer = ask(port, "POST", "/chat", body)

    assert status == 400
    assert answer["error"].startswith('send {"message": "..."} as JSON')


def test_sigterm_ends_it_well(start, tmp_path):
    process, _ = start(str(tmp_path))

    process.send_signal(signal.SIGTERM)

    assert process.wait(10) == 0
    assert process.stdout.read().endswith("hello was stopped\n")
