"""The runtime of agents as a process of its own, and as an image.

start_runtime(turns, **environment)   one that plays `turns` (or asks a model: AGENT_MODEL=...), listening; `folder` is of an
                                      earlier one: the same workspace
runtime_image                         the image, built by scripts/runtime-image
"""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from agentainerd.model.event_sequences import SequenceChecker
from tests.fakes.docker import BASE_IMAGE, LAYERS, docker_api, only_user_of

ROOT = Path(__file__).parents[2]
IMAGE = "agentainer-runtime:test"


class RuntimeProcess:
    """One agentainer-runtime. `folder/workspace` is its workspace."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self.workspace.mkdir(exist_ok=True)
        self.port = 0
        self._begin = len(self.log)
        path = [str(ROOT / "agentainerd/runtime"), *filter(None, [environment.get("PYTHONPATH", "")])]
        own = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        with open(folder / "runtime.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agentainer_runtime"],
                env={**own, "AGENT_WORKSPACE": str(self.workspace), "PORT": "0", **environment, "PYTHONPATH": ":".join(path)},
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def log(self) -> str:
        path = self.folder / "runtime.log"
        return path.read_text() if path.exists() else ""

    def wait_ready(self, limit_s: float = 20.0) -> None:
        """Wait until it says where it serves."""
        end = time.monotonic() + limit_s
        while not (found := re.findall(r"serving on port (\d+),", self.log[self._begin :])):
            if self.process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"the runtime did not start:\n{self.log}")
            time.sleep(0.01)
        self.port = int(found[0])

    def ask(self, method: str, path: str, body: object = None, headers: Mapping[str, str] = {}) -> tuple[int, Any]:  # noqa: B006
        """Return status and body, as JSON where it is, else as text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, dict(headers))
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        is_json = (response.headers.get("Content-Type") or "").startswith("application/json")
        return response.status, json.loads(text) if is_json else text

    def stream(self, method: str, path: str, body: object = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Give (number, event) as they come; closing it closes the connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, None if body is None else json.dumps(body).encode())
            response = connection.getresponse()
            assert response.status == 200, response.read()
            data = ""
            for line in response:
                if line.startswith(b"data: "):
                    data = line[6:].decode()
                elif line.startswith(b"id: "):
                    yield int(line[4:]), json.loads(data)
        finally:
            connection.close()

    def lines(self, method: str, path: str, body: object) -> Iterator[str]:
        """Send a request; give the lines of its answer as they come."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, json.dumps(body).encode())
        response = connection.getresponse()

        def read() -> Iterator[str]:
            for line in response:
                yield line.decode()
            connection.close()

        return read()

    def run(self, text: str = "go on", waiting: Iterable[str] = (), **fields: Any) -> list[dict[str, Any]]:
        """Do one run and return its events; their numbers have no gap. `waiting`: the calls that a run before it left open."""
        found = list(self.stream("POST", "/invocations", run_input(text, **fields)))
        assert [number for number, _ in found] == list(range(1, len(found) + 1))
        return checked([event for _, event in found], waiting)

    def stop(self, number: signal.Signals = signal.SIGTERM, limit_s: float = 15.0) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(limit_s)


def run_input(
    text: str = "go on",
    *,
    run: str = "",
    thread: str = "",
    limits: object = None,
    model: str | None = None,
    resume: object = None,
) -> dict[str, Any]:
    """Return AG-UI's RunAgentInput with what agentainerd puts into it."""
    return {
        "threadId": thread or str(uuid.uuid4()),
        "runId": run or str(uuid.uuid4()),
        "messages": [{"id": str(uuid.uuid4()), "role": "user", "content": text}],
        "state": {}, "tools": [], "context": [],
        "forwardedProps": {"limits": limits or {"steps": None, "wall_s": None, "cost_usd": None}, "model": model, "media": []},
        **({"resume": resume} if resume else {}),
    }  # fmt: skip


def checked(events: list[dict[str, Any]], waiting: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Return the events of a whole run, once nothing is wrong with their order and fields."""
    checker = SequenceChecker(waiting=waiting)
    problems = [problem for event in events for problem in checker.feed(event)] + checker.end()
    assert not problems, problems
    return events


def answer_of(events: list[dict[str, Any]]) -> str:
    """Return the text that the model said."""
    return "".join(event["delta"] for event in events if event["type"] == "TEXT_MESSAGE_CONTENT")


@contextmanager
def runtimes(place: Path) -> Iterator[Any]:
    """Give what starts runtimes in a folder; they are killed in the end."""
    started: list[RuntimeProcess] = []

    def start(turns: object = None, *, folder: Path | None = None, **environment: str) -> RuntimeProcess:
        scripts = place / "scripts"
        scripts.mkdir(exist_ok=True)
        if turns is not None:
            (scripts / "turns.json").write_text(json.dumps(turns))
        settings = {"AGENT_MODEL": "script/turns.json", "AGENT_SCRIPTS": str(scripts), **environment}
        runtime = RuntimeProcess(folder or place, settings)
        started.append(runtime)
        runtime.wait_ready()
        return runtime

    try:
        yield start
    finally:
        for runtime in started:
            runtime.stop(signal.SIGKILL)


@pytest.fixture
def start_runtime(tmp_path: Path) -> Iterator[Any]:
    with runtimes(tmp_path) as start:
        yield start


@pytest.fixture(scope="session")
def runtime_image(docker_host: str, base_image: str) -> Iterator[str]:
    """The layers stay with IMAGE, which the next session may build anew; this one has a name of its own for what it built."""
    name = f"agentainer-test-{os.getpid()}:runtime"
    with docker_api(docker_host) as client:
        with only_user_of(LAYERS):
            before = {image["Id"] for image in client.images(IMAGE)}
            made = subprocess.run(
                [ROOT / "scripts/runtime-image", IMAGE], env={**os.environ, "BASE_IMAGE": BASE_IMAGE},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if made.returncode != 0:
                pytest.fail(
                    f"this test needs the image of the runtime, and it can't be built:\n{made.stdout}{made.stderr}"
                )
            client.tag(made.stdout.split()[-1], *name.split(":"))
            for image in client.images(filters={"dangling": True}):
                if image["Id"] in before:
                    with suppress(docker.errors.APIError):  # somebody's container is of it
                        client.remove_image(image["Id"])
        yield name
        with only_user_of(LAYERS):
            client.remove_image(name, force=True)
