"""The daemon in a container, as docker-compose.yml runs it: it joins the agents' networks, and keeps its promise there."""

import http.client
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.fakes.daemons import UnixConnection, free_port
from tests.fakes.docker import run_inside

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]
REDIS = """
import json, os, socket
from urllib.parse import urlsplit
url = urlsplit(os.environ["REDIS_URL"])
with socket.create_connection((url.hostname, url.port), 10) as connection:
    connection.sendall(f"AUTH {url.username} {url.password}\\r\\nSET shared:a 1\\r\\nGET other:a\\r\\n".encode())
    said = b""
    while said.count(b"\\n") < 3:
        said += connection.recv(1000)
print(json.dumps([line.split()[0].decode() for line in said.splitlines()]))
"""
REACHED = """
import json, urllib.request
with urllib.request.urlopen("http://host.docker.internal:8081/health", timeout=10) as answer:
    print(json.dumps(answer.status))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of what is built, with the wheels that it needs: containers reach what this machine reaches, or less."""
    copy = tmp_path_factory.mktemp("source")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["xargs", "-0", "cp", "--parents", "-t", copy], cwd=ROOT, input=names, check=True)
    subprocess.run(["/usr/bin/python3", "-m", "venv", copy / ".venv"], check=True)
    subprocess.run(
        [copy / ".venv/bin/pip", "wheel", "-q", "-w", ".wheels", ".[fast,embedded]", "setuptools", "wheel", "mypy"],
        cwd=copy, check=True, capture_output=True,
    )  # fmt: skip
    next((copy / ".wheels").glob("agentainer-*")).unlink()
    return copy


class Composed:
    """One project of docker-compose, and how its daemon is asked."""

    def __init__(self, folder: Path, base_image: str, sandbox) -> None:
        self.folder, self.port, self.name = folder, free_port(), f"agentainer-test-{os.getpid()}-compose"
        self.run_dir = Path(f"/tmp/agd-compose-{os.getpid()}")  # short: the names of sockets are
        self.jobs_dir = Path(f"/tmp/agd-compose-{os.getpid()}-jobs")
        self.environment = os.environ | {
            "AGENTAINER_JOBS": str(self.jobs_dir),
            "BASE_IMAGE": base_image, "COMPILE": os.environ.get("AGENTAINER_COMPILE", "0"), "PIP_NO_INDEX": "1",
            "AGENTAINER_CONTAINER": self.name, "AGENTAINER_PORT": str(self.port), "AGENTAINER_RUN": str(self.run_dir),
            "AGENTAINER_DOCKER_NETWORK": sandbox.network, "AGENTAINER_DOCKER_ISOLATED_NETWORK": sandbox.isolated_network,
        }  # fmt: skip

    def compose(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker-compose", "-p", self.name, *arguments],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, dict]:
        """Ask on the control socket; status 0: it is not there (yet, or any more)."""
        connection = UnixConnection(str(self.run_dir / "agentainer.sock"))
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except OSError:
            return 0, {}
        finally:
            connection.close()

    def send(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Ask through the port that is published."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@pytest.fixture
def composed(source, base_image, docker_sandbox):
    made = Composed(source, base_image, docker_sandbox)
    made.compose("up", "-d", "--build")
    yield made
    made.compose("down", "-v", "--rmi", "all")
    docker_sandbox.remove_containers()
    shutil.rmtree(made.run_dir)
    shutil.rmtree(made.jobs_dir)


def test_it_joins_the_networks_of_its_agents_and_keeps_what_it_accepted(
    composed, agent_image, docker_client, eventually
):
    ready = lambda: composed.ask("GET", "/readyz")[0] == 200  # noqa: E731
    eventually(ready, limit_s=60, what="the daemon in its container")
    for name, egress in (("open", True), ("closed", False)):
        spec = {"name": name, "image": agent_image, "network_egress": egress, "services": {"redis": True}}
        assert composed.ask("POST", "/agents", spec)[0] == 201
        assert composed.ask("POST", f"/agents/{name}/start?wait=30")[0] == 200
        assert json.loads(composed.send("POST", f"/agent/{name}/say", b"hello")[1])["body"] == "hello"
        container = composed.ask("GET", f"/agents/{name}")[1]["data"]["container_id"]
        assert run_inside(docker_client, container, REACHED) == 200
        assert run_inside(docker_client, container, REDIS) == ["+OK", "+OK", "-NOPERM"]
    command = ["/bin/sh", "-c", "echo left > /workspace/output/file"]
    job = composed.ask(
        "POST", "/api/v1/jobs?wait=60", {"prompt": "leave it", "image": agent_image, "command": command}
    )[1]["data"]
    assert (job["status"], job["error"]) == ("completed", None)
    assert (composed.jobs_dir / job["id"] / "workspace/output/file").read_text() == "left\n"
    assert composed.ask("POST", "/agents/open/stop?grace=0")[0] == 200
    status, queued = composed.send("POST", "/agent/open/later", b"kept")
    assert status == 202

    docker_client.kill(composed.name)
    assert docker_client.wait(composed.name)["StatusCode"] == 137
    docker_client.start(composed.name)

    eventually(ready, limit_s=60, what="the daemon after its kill")
    assert composed.ask("POST", "/agents/open/start?wait=30")[0] == 200
    request_id = json.loads(queued)["data"]["request_id"]
    shown = lambda: composed.ask("GET", f"/agents/open/requests/{request_id}")[1]["data"]  # noqa: E731
    eventually(lambda: shown()["status"] == "completed", what="the delivery")
    began = time.monotonic()
    composed.compose("stop")
    assert time.monotonic() - began < 20, "SIGTERM reaches the daemon"
    assert "stopped" in docker_client.logs(composed.name).decode().splitlines()[-1]


def test_its_own_doctor_finds_nothing_that_is_an_error(composed, eventually):
    eventually(lambda: composed.ask("GET", "/readyz")[0] == 200, limit_s=60, what="the daemon in its container")

    def told():
        return composed.ask("GET", "/system/doctor")[1]["data"]

    eventually(lambda: any("agentainerd runs in a container" in one["message"] for one in told()), what="the finding")
    assert [one for one in told() if one["level"] == "error"] == []
