"""The files of examples/deployments, applied as they are; only their base images are others where no registry is reached."""

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.fakes.docker import docker_api
from tests.fakes.models import KEY, MODEL, ModelServer, Turn, When
from tests.system.test_agents_real import Host, host  # noqa: F401 - a fixture

pytestmark = [pytest.mark.docker, pytest.mark.redis]
EXAMPLES = Path(__file__).parents[2] / "examples" / "deployments"
STAND_IN = b"""\
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ.get("DATABASE_SERVICE", "fine").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", int(os.environ.get("PORT", os.environ["LISTEN"]))), Handler).serve_forever()
"""


@pytest.fixture
def stock_images(docker_host, base_image):
    """Stand-ins for stock images: what they listen on, and the programs that the file names. Yields name -> tag."""
    made = {}
    with docker_api(docker_host) as client:
        for name, port, program in (
            ("nginx:alpine", 80, "nginx"),
            ("node:18-alpine", 3000, "node"),
            ("postgres:15-alpine", 5432, "pg_isready"),
        ):
            tag = f"agentainer-test-{os.getpid()}:{name.partition(':')[0]}"
            recipe = (
                f"FROM {base_image}\nCOPY agent.py /agent.py\nCOPY {program} /usr/bin/{program}\nENV LISTEN={port}\n"
                f'EXPOSE {port}\nCMD ["/usr/bin/python3", "/agent.py"]\n'
            )
            script = b"#!/usr/bin/python3\n" + (STAND_IN if program == "node" else b"")
            files = {"Dockerfile": (recipe.encode(), 0o644), "agent.py": (STAND_IN, 0o644), program: (script, 0o755)}
            list(client.build(fileobj=packed(files), custom_context=True, tag=tag, rm=True, decode=True))
            made[name] = tag
        yield made
        for tag in made.values():
            client.remove_image(tag, force=True)


def packed(files):
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, (data, mode) in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), mode
            archive.addfile(member, io.BytesIO(data))
    tar.seek(0)
    return tar


def test_basic_agents_is_applied(host, stock_images, docker_client, tmp_path):  # noqa: F811
    folder = tmp_path / "deployments"
    shutil.copytree(EXAMPLES, folder)
    path = folder / "basic-agents.yaml"
    text = path.read_text()
    for name, tag in stock_images.items():
        assert name in text
        text = text.replace(name, tag)
    path.write_text(text.replace("database-data", f"{host.daemon.folder.name}-database"))

    host.ctl("deploy", "--config", str(path))

    assert host.agent("web-service")["health"] == "healthy"
    assert len(host.agent("web-service")["containers"]) == 2
    assert host.agent("database")["status"] == "running"
    assert host.daemon.http("GET", "/agent/api-service/")[1] == {"raw": "http://database:5432"}
    mounts = docker_client.inspect_container(host.agent("web-service")["container_id"])["Mounts"]
    assert {(each["Source"], each["RW"]) for each in mounts} == {
        (str(folder / "web/pages"), False), (str(folder / "web/nginx.conf"), False),
    }  # fmt: skip
    out, _ = host.ctl("diff", "-f", str(path))
    assert out == "Plan: 3 unchanged.\n"
    assert "POSTGRES_PASSWORD: ${POSTGRES_PASSWORD}" in host.ctl("export", "basic-agent-deployment")[0]
    assert "defaultpass" not in host.ctl("inspect", "database", "-o", "json")[0]
    host.must("DELETE", "/agents/database")
    docker_client.remove_volume(f"{host.daemon.folder.name}-database")


def test_event_driven_is_applied_and_each_subscriber_hears_what_is_published(host, base_image, monkeypatch, eventually):  # noqa: F811
    monkeypatch.setenv("BASE_IMAGE", base_image)

    host.ctl("apply", "-f", str(EXAMPLES / "event-driven.yaml"))

    def heard():
        return [host.daemon.http("GET", f"/agent/subscriber-{number}/events")[1] for number in (1, 2)]

    status, said, _ = host.daemon.http("POST", "/agent/publisher/publish", {"type": "order", "data": {"number": 1}})
    assert (status, said) == (200, {"listeners": 2})
    expected = [{"channel": "events:order", "data": {"number": 1}}]
    eventually(lambda: heard() == [{"replica": number, "events": expected} for number in ("1", "2")])


def test_llm_pipeline_is_applied_and_its_agents_reach_a_model_through_the_daemon(
    start_daemon, docker_sandbox, agent_image, base_image, monkeypatch
):
    monkeypatch.setenv("BASE_IMAGE", base_image)
    monkeypatch.setenv("AGENT_MODEL", f"local/{MODEL}")
    turns = [
        Turn(text="1. Leaves", when=When(system="outline of at most five", user="tea")),
        Turn(text="Tea is leaves", when=When(system="from outlines", user="1. Leaves")),
        Turn(text="Tea is leaves.", when=When(system="corrected text", user="Tea is leaves")),
    ]
    with ModelServer(turns) as server:
        config = (
            f"models:\n  providers:\n    local: {{base_url: {server.base_url}, api_key: {KEY}, models: [{MODEL}]}}\n"
        )
        host = Host(start_daemon(sandbox=docker_sandbox, config=config), agent_image)
        host.ctl("apply", "-f", str(EXAMPLES / "llm-pipeline.yaml"))
        answer, told = host.ctl("run", "pipeline", "A page about tea")

    assert answer == "Tea is leaves.\n"
    assert [line for line in told.splitlines() if line.startswith("> ")] == [
        "> outline A page about tea", "> draft 1. Leaves", "> review Tea is leaves",
    ]  # fmt: skip
    assert {request.headers["authorization"] for request in server.received} == {f"Bearer {KEY}"}
    docker_sandbox.remove_containers()
