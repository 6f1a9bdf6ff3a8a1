"""Make the state that a version leaves behind, for tests/system/test_upgrade.py: run once, with the code of that version.

    PYTHONPATH=<checkout of the version> python tests/states/make.py tests/states/<version>.tar.gz

Needs an engine and the image STATE_IMAGE (tests/system/test_upgrade.py builds it). The daemon is killed while it works. The
archive holds its state folder and promised.json: what it had promised by then.
"""

import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

STATE_IMAGE = "agentainer-state:agent"
LEFT_OUT = ("lock", "redis.log")
FOR_GOOD_S = 100 * 365 * 86400.0
DAEMON = f"""
from agentainerd import defaults
defaults.MAX_AGE_S = defaults.RESPONSE_TTL_S = defaults.FAILED_TTL_S = {FOR_GOOD_S}
import sys
from agentainerd.__main__ import main
sys.exit(main())
"""
"""A daemon whose records do not expire before the test is run."""
WORKER = """
import http.server, time
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(600 if self.path == "/slow" else 0)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + 4))
        self.end_headers()
        self.wfile.write(b"got " + body)
    do_GET = do_POST = do
http.server.ThreadingHTTPServer(("", 8000), H).serve_forever()
"""


class Maker:
    """A daemon of the version, and what it promised."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "state"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.daemon = subprocess.Popen(
            [
                sys.executable, "-c", DAEMON, "--state-dir", self.state, "--runtime-dir", folder / "run",
                "--listen", f"127.0.0.1:{self.port}",
            ],
            env=os.environ | {
                "AGENTAINER_DOCKER_NETWORK": "agentainer-state-network",
                "AGENTAINER_DOCKER_ISOLATED_NETWORK": "agentainer-state-isolated",
            },
        )  # fmt: skip
        until(lambda: self.ask("GET", "/readyz")[0] == 200)
        self.token = (self.state / "token").read_text().strip()

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, dict]:
        """Return status and envelope; 0: nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        try:
            connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            text = answer.read()
        except OSError:
            return 0, {}
        try:
            said = json.loads(text)
        except ValueError:
            said = {}
        return answer.status, said | {"location": answer.getheader("Location") or ""}

    def must(self, method: str, path: str, body: object = None) -> dict:
        status, said = self.ask(method, path, body, Authorization=f"Bearer {self.token}")
        assert 200 <= status < 300, said
        return said.get("data") or {}

    def queue(self, method: str, path: str, body: bytes = b"", **headers: str) -> dict:
        """Send a request that is answered with 202; return what was promised."""
        status, said = self.ask(method, f"/agent/keeper{path}", body, **headers)
        assert status == 202, said
        return {
            "id": said["data"]["request_id"], "location": said["location"], "method": method, "path": path,
            "size": len(body), "sha256": hashlib.sha256(body).hexdigest(),
        }  # fmt: skip


def until(done: object, limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def promise(maker: Maker) -> dict:
    keeper = maker.must("POST", "/agents", {
        "name": "keeper", "image": STATE_IMAGE, "env_vars": {"API_KEY": "hidden-7391", "MODE": "kept"},
        "auto_restart": True, "memory_limit": 134217728, "labels": {"made-by": "an older version"},
    })  # fmt: skip
    worker = maker.must("POST", "/agents", {
        "name": "worker", "image": STATE_IMAGE, "command": ["/usr/bin/python3", "-u", "-c", WORKER],
    })  # fmt: skip
    maker.must("POST", "/agents/worker/start?wait=30")
    pending = [
        maker.queue("POST", "/first", b"one"),
        maker.queue("POST", "/large", b"0123456789" * 10_000),
        maker.queue("GET", "/third?a=1&a=&b=%2f"),
        maker.queue("POST", "/keyed", b'{"once": true}', Idempotency_Key="order-17"),
        maker.queue("PUT", "/last", b"five", Prefer="respond-async"),
    ]
    cancelled = maker.queue("POST", "/never", b"never")
    assert maker.ask("DELETE", cancelled["location"])[0] == 200
    for number in range(3):
        assert maker.ask("POST", "/agent/worker/live", str(number).encode())[0] == 200
    status, said = maker.ask("POST", "/agent/worker/later", b"later", Prefer="respond-async")
    assert status == 202
    until(lambda: maker.ask("GET", said["location"])[1]["data"]["status"] == "completed")
    threading.Thread(target=maker.ask, args=("POST", "/agent/worker/slow", b"cut off"), daemon=True).start()
    until(lambda: len(maker.must("GET", "/agents/worker/requests?state=processing")["requests"]) == 1)
    cut_off = maker.must("GET", "/agents/worker/requests?state=processing")["requests"][0]["id"]
    return {
        "agents": {"keeper": keeper["id"], "worker": worker["id"]},
        "pending": pending, "cancelled": cancelled["id"], "answered": said["location"], "answer": "got later",
        "cut_off": cut_off,
    }  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="agd-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        maker = Maker(folder)
        try:
            promised = promise(maker)
        finally:
            maker.daemon.send_signal(signal.SIGKILL)
            maker.daemon.wait()
        redis_log = maker.state / "redis.log"
        until(lambda: "bye bye" in redis_log.read_text())
        (folder / "promised.json").write_text(json.dumps(promised, indent=1))
        for agent_id in promised["agents"].values():
            subprocess.run(["docker", "rm", "-f", f"agentainer-{agent_id}"], check=True, capture_output=True)
        for network in ("agentainer-state-network", "agentainer-state-isolated"):
            subprocess.run(["docker", "network", "rm", network], check=True, capture_output=True)
        with tarfile.open(sys.argv[1], "w:gz") as archive:
            archive.add(folder / "promised.json", "promised.json")
            archive.add(maker.state, "state", filter=lambda one: None if Path(one.name).name in LEFT_OUT else one)


if __name__ == "__main__":
    main()
