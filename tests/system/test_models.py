"""Models through the real daemon, asked from inside real containers: who may, what it costs, and where the key is not."""

import json
import os
import subprocess
import sys

import pytest

from tests.fakes.models import MODEL, Faults, ModelServer, Rules, ToolCall, Turn, When

pytestmark = [pytest.mark.docker, pytest.mark.redis]
KEY = "sk-canary-71c0ffee"
AGENT = """
import http.server, json, os, urllib.request
class Agent(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", json.dumps({
            "model": os.environ["AGENT_MODEL"], "messages": [{"role": "user", "content": "hello"}], "stream": True,
        }).encode(), {"Authorization": "Bearer " + (asked.get("token") or os.environ["OPENAI_API_KEY"])})
        try:
            with urllib.request.urlopen(request) as answer:
                status, said = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, said = error.code, error.read()
        self.send_response(status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
http.server.ThreadingHTTPServer(("", 8000), Agent).serve_forever()
"""
CONFIG = """
models:
  providers:
    openai: {{base_url: "{url}", models: [{model}], prices: {{{model}: {{input: 1, output: 2}}}}}}
"""


class Scene:
    """A daemon with a provider, and two agents that use it."""

    def __init__(self, daemon, sandbox, image):
        self.daemon, self.sandbox = daemon, sandbox
        for name in ("writer", "other"):
            spec = {
                "name": name,
                "image": image,
                "command": ["/usr/bin/python3", "-c", AGENT],
                "model": f"openai/{MODEL}",
                "network_egress": name == "writer",
            }
            status, said = daemon.control("POST", "/agents", spec)
            assert status == 201, said
            status, said = daemon.control("POST", f"/agents/{name}/start?wait=30")
            assert status == 200, said

    def ask(self, name="writer", **asked):
        status, said, _ = self.daemon.http("POST", f"/agent/{name}/", asked)
        return status, said

    def inspect(self, name):
        container = self.daemon.control("GET", f"/agents/{name}")[1]["data"]["container_id"]
        words = ["docker", "-H", self.sandbox.host, "inspect", container]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    def token(self, name):
        variables = json.loads(self.inspect(name))[0]["Config"]["Env"]
        return next(each.partition("=")[2] for each in variables if each.startswith("OPENAI_API_KEY="))

    def ctl(self, *words):
        return subprocess.run(
            [sys.executable, "-m", "agentainerctl", "--host", f"unix://{self.daemon.control_socket}", *words],
            capture_output=True, text=True, timeout=60, check=True,
        ).stdout  # fmt: skip


@pytest.fixture
def scene(start_daemon, docker_sandbox, agent_image):
    turn = Turn(text="hi there", input_tokens=1000, output_tokens=500, times=100)
    with ModelServer([turn], rules=Rules(keys=(KEY,))) as server:
        config = CONFIG.format(url=server.base_url, model=MODEL)
        daemon = start_daemon(sandbox=docker_sandbox, config=config, environment={"OPENAI_API_KEY": KEY})
        yield Scene(daemon, docker_sandbox, agent_image)
    docker_sandbox.remove_containers()


def test_agents_use_models_without_the_key(scene, eventually):
    status, said = scene.ask()
    assert status == 200
    assert "hi" in said["raw"]
    assert "[DONE]" in said["raw"]

    stolen, said = scene.ask("other", token=scene.token("writer"))
    assert (stolen, said["error"]["code"]) == (401, "wrong_source")

    eventually(lambda: "1,000" in scene.ctl("usage"))
    lines = scene.ctl("usage").splitlines()
    assert lines[1].split() == ["writer", "1", "0", "1,000", "0", "500", "$0.0020"]
    assert scene.ask("other")[0] == 200  # without egress, models are reached all the same
    assert scene.ctl("models", "-o", "name").split() == [f"openai/{MODEL}"]
    assert "use_model" in scene.ctl("audit", "--result", "refused")

    scene.ctl("backup", "create", "--name", "all")
    places = {
        "docker inspect": scene.inspect("writer"),
        "log": scene.daemon.log,
        "answers": scene.ctl("inspect", "writer", "-o", "json") + scene.ctl("system", "info", "-o", "json"),
        **{
            str(file): file.read_bytes().decode("latin-1")
            for file in scene.daemon.state_dir.rglob("*")
            if file.is_file()
        },
    }
    assert [place for place, text in places.items() if KEY in text] == []


def test_a_daemon_that_was_killed_knows_its_agents_and_what_they_used(scene, start_daemon, docker_sandbox, eventually):
    assert scene.ask()[0] == 200
    eventually(lambda: "1,000" in scene.ctl("usage"))

    scene.daemon.kill()
    scene.daemon = start_daemon(like=scene.daemon, sandbox=docker_sandbox, environment={"OPENAI_API_KEY": KEY})

    eventually(lambda: scene.ask()[0] == 200, limit_s=30)
    eventually(lambda: "2,000" in scene.ctl("usage"))


NAME = f"fixer-{os.getpid()}"  # volumes are the engine's, which others use too
BUG = "def add(a, b):\n    return a - b\n"
TEST = "from sums import add\nassert add(2, 2) == 4, 'wrong sum'\nprint('all is well')\n"
WORK = (
    Turn(calls=(ToolCall("write_file", {"path": "sums.py", "content": BUG}), ToolCall("write_file", {"path": "try.py", "content": TEST})),
         when=When(user="make it add", tools=("write_file", "run_command", "edit_file"))),
    Turn(calls=(ToolCall("run_command", {"command": "python3 try.py"}),), when=When(tool="")),
    Turn(text="I see.", calls=(ToolCall("edit_file", {"path": "sums.py", "old_string": "a - b", "new_string": "a + b + 0"}),),
         when=When(tool="wrong sum"), faults=Faults(piece_bytes=7, comments=True)),
    Turn(calls=(ToolCall("run_command", {"command": "python3 try.py"}),), when=When(tool="sums.py")),
    Turn(text="It adds now.", when=When(tool="all is well"), cost_usd=0.25),
)  # fmt: skip


@pytest.fixture
def coder(start_daemon, docker_sandbox, docker_client, runtime_image):
    """A daemon with a provider, and an agent of the runtime image, which knows of neither key nor provider."""
    with ModelServer(rules=Rules(keys=(KEY,))) as server:
        config = CONFIG.format(url=server.base_url, model=MODEL) + "  default: openai/" + MODEL + "\n"
        daemon = start_daemon(sandbox=docker_sandbox, config=config, environment={"OPENAI_API_KEY": KEY})

        def ctl(*words, code=0):
            done = subprocess.run(
                [sys.executable, "-m", "agentainerctl", "--host", f"unix://{daemon.control_socket}", *words],
                capture_output=True, text=True, timeout=100, check=False,
            )  # fmt: skip
            assert done.returncode == code, (done.returncode, done.stdout, done.stderr, daemon.tail())
            return done.stdout

        ctl("deploy", "--runtime", "--image", runtime_image, "--name", NAME, "--wait")
        yield server, ctl
    docker_sandbox.remove_containers()
    for volume in docker_client.volumes(filters={"name": f"{NAME}-workspace"})["Volumes"] or ():
        docker_client.remove_volume(volume["Name"], force=True)


def test_an_agent_of_the_runtime_works_with_a_model_through_the_daemon(coder, eventually):
    server, ctl = coder
    server.add(*WORK)

    run = json.loads(ctl("run", NAME, "make it add", "--no-stream", "-o", "json"))

    assert (run["status"], run["output"]) == ("completed", "I see.\nIt adds now.")
    assert server.unplayed == []
    assert not any(name.startswith("x-agentainer") for each in server.received for name in each.headers)
    used = json.loads(ctl("usage", "-o", "json"))
    assert used["total"]["calls"] == len(WORK)
    assert used["total"]["input_tokens"] == run["usage"]["input_tokens"]

    server.add(Turn(text="a word", calls=(ToolCall("list_directory", {}),), cost_usd=0.2, times=50))
    eventually(lambda: json.loads(ctl("usage", "-o", "json"))["total"]["cost_usd"] > 0.25)
    run = json.loads(ctl("run", NAME, "for ever", "--max-cost", "0.3", "--no-stream", "-o", "json", code=9))
    assert run["error"]["code"] == "cost_limit"
    assert len(server.received) - len(WORK) == 2
