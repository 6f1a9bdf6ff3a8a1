"""A secret goes in by every door, and is looked for wherever it must not come out."""

import base64
import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
import yaml

from agentainerd.store import keys
from agentainerd.store.connection import RedisClient, socket_url
from tests.fakes.agents import receive_all
from tests.fakes.daemons import NO_ENGINE, free_port

pytestmark = [pytest.mark.docker, pytest.mark.redis]
ROOT = Path(__file__).parents[2]
CANARY = "canary-4f1d"
"""Every secret has it, and a word of its own behind it."""
PLACES = (
    "env",
    "flagged",
    "agent-token",
    "control",
    "auth",
    "cookie",
    "key",
    "body",
    "query",
    "mistake",
    "basic",
    "guess",
    "passphrase",
)
HELD = re.compile(r"^(journal|journal\.damaged|spool)/|^token$")
"""Files of the state folder that hold secrets, because they must: requests, agents, the control token. All of them 0600."""


def secret(place: str) -> str:
    assert place in PLACES
    return f"{CANARY}-{place}"


def found_in(text: str | bytes) -> list[str]:
    """Return the places whose secrets are in a text, plainly or in an encoding that anybody undoes."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
    for word in set(re.findall(rb"[A-Za-z0-9+/_-]{16,}={0,2}", data)):
        plain = word.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        data += b"\n" + base64.b64decode(plain[: len(plain) // 4 * 4])
    forms = {place: (secret(place).encode(), secret(place).encode().hex().encode()) for place in PLACES}
    return [place for place, shapes in forms.items() if any(shape in data for shape in shapes)]


AGENT = """
import http.server
class Quiet(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    do_GET = do_POST = answer
http.server.ThreadingHTTPServer(("", 8000), Quiet).serve_forever()
"""


class Scene:
    """A daemon into which all secrets went."""

    def __init__(self, daemon, image):
        self.daemon, self.image = daemon, image
        self.said: list[tuple[str, str]] = []

    def ask(self, method, path, body=None):
        status, said = self.daemon.control(method, path, body)
        self.said.append((f"{method} {path}", json.dumps(said)))
        print(method, path, status, said.get("message"))
        return status, said

    def read(self, path):
        """GET whatever there is, JSON or text."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self.daemon.control_socket))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            answer = receive_all(connection, 30)
        assert answer.split(b" ")[1] in (b"200", b"400", b"404", b"409", b"410"), (path, answer[:200])
        self.said.append((f"GET {path}", answer.decode("utf-8", "replace")))

    def tell(self):
        """Send every secret where it belongs, and where somebody puts it by mistake."""
        spec = {
            "name": "web", "image": self.image, "env_vars": {"OPENAI_API_KEY": secret("env"), "MODEL": secret("flagged")},
            "secrets": ["MODEL"], "token": secret("agent-token"), "command": ["/usr/bin/python3", "-c", AGENT],
        }  # fmt: skip
        assert self.ask("POST", "/agents", spec)[0] == 201
        assert self.ask("POST", "/agents", {**spec, "name": "web"})[0] == 409
        assert self.ask("POST", "/agents", {**spec, "name": "b", "env_vars": {"BAD NAME": secret("mistake")}})[0] == 400
        assert self.ask("POST", "/agents", {**spec, "name": "b", "env_vars": [secret("mistake")]})[0] == 400
        assert self.ask("POST", "/agents", {**spec, "name": "b", "token": [secret("mistake")]})[0] == 400
        assert self.ask("POST", "/agents", {**spec, "name": "b", "token": secret("mistake") + "\n"})[0] == 400
        assert self.ask("POST", "/agents", {**spec, "name": "b", "secrets": {secret("mistake"): 1}})[0] == 400
        assert self.ask("POST", "/agents", {**spec, "name": "b", "image": "no.such:1"})[0] in (201, 404, 422, 503)
        fields = {
            "Authorization": f"Bearer {secret('agent-token')}", "Cookie": f"session={secret('cookie')}",
            "Idempotency-Key": secret("key"), "X-Api-Key": secret("auth"), "X-Auth-Token": secret("auth"),
        }  # fmt: skip
        body = secret("body").encode() * 3
        assert self.daemon.http("POST", f"/agent/web/x?api_key={secret('query')}", body, fields)[0] == 202
        big = {**fields, "Idempotency-Key": secret("key") + "-2"}
        assert self.daemon.http("POST", "/agent/web/x", body * 5000, big)[0] == 202
        assert self.ask("POST", "/agents/web/start?wait=30")[0] == 200
        assert (
            self.daemon.http("POST", "/agent/web/live", body, {**fields, "Idempotency-Key": secret("key") + "-3"})[0]
            == 200
        )
        assert self.daemon.http("GET", "/agent/web/", None, {"Authorization": f"Bearer {secret('guess')}"})[0] == 401
        control = {"Authorization": f"Bearer {secret('control')}"}
        assert self.daemon.http("GET", "/agents", None, control)[0] == 200
        assert self.daemon.http("POST", "/agent/web/x", body, control)[0] == 400
        for value in (f"Bearer {secret('guess')}", f"Basic {secret('basic')}"):
            assert self.daemon.http("GET", "/agents", None, {"Authorization": value})[0] == 401
        assert self.daemon.http("GET", f"/agents?token={secret('guess')}")[0] == 401
        assert self.daemon.http("GET", f"/requests/x?t={secret('guess')}")[0] in (401, 404)
        self.tell_badly()

    def back_up(self):
        """Make backups of all of it, with and without a passphrase; return what is in their files."""
        for name, words in (("plain", ()), ("web", ("--secrets", "--include-requests", "--passphrase-file"))):
            with tempfile.NamedTemporaryFile("w") as file:
                file.write(secret("passphrase"))
                file.flush()
                said = self.ctl("backup", "create", "--name", name, *words, *([file.name] if words else []))
            assert "successfully" in said
            self.said.append((f"backup {name}", said))
        return [gzip.decompress(path.read_bytes()) for path in (self.daemon.state_dir / "backups").glob("*.tar.gz")]

    def tell_badly(self):
        """What is no HTTP is often quoted in logs."""
        broken = (
            f"GET /agents HTTP/1.1\r\nHost: localhost\r\nAuthorization Bearer {secret('mistake')}\r\n\r\n",
            f"GET /agents HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret('mistake')}\0\r\n\r\n",
            f"{secret('mistake')}\r\n\r\n",
            f"GET /agents?token={secret('mistake')} HTTP/9.9\r\n\r\n",
            f"POST /agents HTTP/1.1\r\nHost: localhost\r\nContent-Length: {secret('mistake')}\r\n\r\n",
            f"POST /agents HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{secret('mistake')}\r\n",
        )
        for address in (("127.0.0.1", self.daemon.port), str(self.daemon.control_socket)):
            for text in broken:
                with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as connection:
                    connection.settimeout(10)
                    connection.connect(address)
                    connection.sendall(text.encode("latin-1"))
                    connection.shutdown(socket.SHUT_WR)
                    self.said.append((text[:20], receive_all(connection, 10).decode("latin-1")))

    def ctl(self, *words):
        done = subprocess.run(
            [sys.executable, "-m", "agentainerctl", "--host", f"unix://{self.daemon.control_socket}", *words],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr


@pytest.fixture
def scene(start_daemon, docker_sandbox, agent_image, eventually):
    daemon = start_daemon(
        sandbox=docker_sandbox,
        environment={"AGENTAINER_LOG_LEVEL": "debug", "AGENTAINER_SECURITY_DEFAULT_TOKEN_FILE": token_file()},
    )
    made = Scene(daemon, agent_image)
    made.tell()
    eventually(lambda: len(made.ask("GET", "/agents/web/requests?state=completed")[1]["data"]["requests"]) >= 2)
    yield made
    docker_sandbox.remove_containers()
    os.unlink(token_file())


def token_file() -> str:
    path = f"/tmp/agd-token-{os.getpid()}"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(secret("control") + "\n")
    return path


def gets() -> list[str]:
    """Every GET of the API that ends, but for the token's own."""
    document = yaml.safe_load((ROOT / "agentainerd/api/openapi.yaml").read_text())
    paths = [path for path, item in document["paths"].items() if "get" in item and item.get("x-served-by") != "proxy"]
    assert len(paths) > 12
    return [path for path in paths if path != "/token"]


def test_no_secret_comes_out_of_the_api_the_tool_the_logs_or_the_process_list(scene):
    daemon = scene.daemon
    requests = [one["id"] for one in scene.ask("GET", "/agents/web/requests?limit=100")[1]["data"]["requests"]]
    assert len(requests) >= 3
    assert [found_in(held) for held in scene.back_up()] == [[], []]
    for path in gets():
        for request_id in requests if "{request_id}" in path else [""]:
            scene.read(path.replace("{ref}", "web").replace("{request_id}", request_id))
    scene.read("/readyz?verbose")
    in_api = {path: places for path, text in scene.said if (places := found_in(text))}
    # The whole request is shown to administrators who ask for that one: without credentials, but with path and body.
    details = {path for path in in_api if re.fullmatch(r"GET /agents/web/requests/[0-9a-f-]+", path)}
    assert {place for path in details for place in in_api.pop(path)} <= {"body", "query"}
    listed = [path for path in in_api if path.startswith("GET /agents/web/requests")]
    assert {place for path in listed for place in in_api.pop(path)} <= {"query"}
    in_api.pop("GET /agents/web/logs", None)  # what the agent itself says
    assert in_api == {}

    commands = (
        ("list",), ("list", "-o", "json"), ("inspect", "web"), ("inspect", "web", "-o", "json"), ("system", "info"), ("system", "df"),
        ("requests", "list", "web"), ("requests", "web"), ("logs", "web"), ("start", "web"), ("--debug", "list"),
    )  # fmt: skip
    said = {words: places for words in commands if (places := set(found_in(scene.ctl(*words))) - {"query"})}
    assert said == {}

    assert found_in(daemon.log) == []
    daemon.wait_logged("control request served")  # it is the debug level
    for folder in (daemon.state_dir, daemon.runtime_dir):
        for path in folder.rglob("*"):
            places = found_in(path.read_bytes()) if path.is_file() else []
            assert not places or (HELD.match(str(path.relative_to(folder))) and folder == daemon.state_dir), (
                path,
                places,
            )
            assert not places or not path.stat().st_mode & 0o077, path
    ours = [psutil.Process(daemon.pid), *psutil.Process(daemon.pid).children(recursive=True)]
    for process in ours:
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert found_in(environment) == [], process
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        assert found_in(line) == [], line[:50]


def test_no_secret_comes_out_of_a_crash(scene):
    """A record that can't be read is a bug for whoever meets it; an abort is what the watchdog does."""
    daemon = scene.daemon
    redis = RedisClient(socket_url(str(daemon.runtime_dir / "redis.sock")))
    (agent_id,) = {
        one["agent_id"] if "agent_id" in one else one["id"]
        for one in scene.ask("GET", "/agents")[1]["data"]
        if one["name"] == "web"
    }
    text = redis.call("HGET", keys.AGENTS, agent_id)
    redis.call(
        "HSET",
        keys.AGENTS,
        agent_id,
        text.replace(b'"OPENAI_API_KEY":"', b'"OPENAI_API_KEY":7,"X":"').replace(b'"web"', b"7"),
    )
    status, said = scene.ask("GET", "/agents")
    assert (status, said["code"]) == (500, "INTERNAL")
    redis.call("HSET", keys.AGENTS, agent_id, text)
    redis.close()

    daemon.wait_logged("internal error")

    daemon.signal(signal.SIGABRT)
    assert daemon.wait_exit() == -signal.SIGABRT

    assert "Traceback" in daemon.log
    assert "Fatal Python error: Aborted" in daemon.log
    assert found_in(daemon.log) == []
    assert found_in(json.dumps(scene.said[-1])) == []


def test_a_token_in_the_daemons_environment_is_not_handed_on(start_daemon):
    daemon = start_daemon(engine=False, environment={"AGENTAINER_TOKEN": secret("control")})
    assert found_in(Path(f"/proc/{daemon.pid}/environ").read_bytes()) == [
        "control"
    ]  # whoever starts it so, has it there

    children = psutil.Process(daemon.pid).children(recursive=True)

    assert children
    assert [found_in(Path(f"/proc/{child.pid}/environ").read_bytes()) for child in children] == [[]] * len(children)


@pytest.mark.parametrize("form", ["url", "key"])
def test_a_password_of_redis_is_not_told_where_it_cannot_be_reached(start_daemon, form):
    port = free_port()
    password = secret("env")
    config = f"redis:\n  url: redis://user:{password}@127.0.0.1:{port}/0\n" if form == "url" else ""
    environment = {"AGENTAINER_REDIS_HOST": "127.0.0.1", "AGENTAINER_REDIS_PORT": str(port)} if form == "key" else {}
    if form == "key":
        config = f"redis:\n  password: {password}\n"

    daemon = start_daemon(
        engine=False, wait=False, config=config, environment={**environment, "AGENTAINER_LOG_LEVEL": "debug"}
    )

    assert daemon.wait_exit() == 3
    assert found_in(daemon.log) == []
    printed = subprocess.run(
        [sys.executable, "-m", "agentainerd", "--print-config", "--config", str(daemon.folder / "config.yaml")],
        capture_output=True, text=True, timeout=60, check=False, env={"PATH": os.environ["PATH"], "AGENTAINER_DOCKER_HOST": NO_ENGINE},
    )  # fmt: skip
    assert found_in(printed.stdout + printed.stderr) == []
