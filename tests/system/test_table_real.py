"""Rows of the promise's table that only a real container, a real kill and a real Redis can make."""

import os
import signal
import socket
import time

import gevent
import pytest

from tests.fakes.agents import receive_all
from tests.fakes.ledger import redis_of
from tests.fakes.planes import Answered

pytestmark = [pytest.mark.docker, pytest.mark.redis]
AGENT = """
import http.server, os, socketserver, sys, time
time.sleep(float(os.environ.get("LATE", "0")))
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        print(self.path, self.headers.get("X-Agentainer-Maybe-Duplicate"), flush=True)
        if self.path == "/half":
            self.wfile.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 100\\r\\n\\r\\nhalf")
            self.wfile.flush()
        if self.path in ("/half", "/slow") and not os.path.exists("/var/again"):
            open("/var/again", "w").close()
            time.sleep(60)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = do
    def log_message(self, *a): pass
class S(http.server.ThreadingHTTPServer): pass
S(("", 8000), H).serve_forever()
"""


class Host:
    def __init__(self, daemon, image):
        self.daemon, self.image = daemon, image

    def must(self, method, path, body=None):
        status, said = self.daemon.control(method, path, body)
        assert status < 300, said
        return said["data"]

    def up(self, wait=30, **fields):
        command = ["/usr/bin/python3", "-u", "-c", AGENT]
        self.must("POST", "/agents", {"name": "web", "image": self.image, "command": command, **fields})
        return self.must("POST", f"/agents/web/start?wait={wait}" if wait else "/agents/web/start")

    def send(self, method, path, body=b""):
        """One request on a connection of its own."""
        head = f"{method} /agent/web{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.daemon.port), timeout=30) as connection:
            connection.sendall(head.encode() + body)
            return Answered(receive_all(connection, 30))

    def requests(self, state):
        return self.must("GET", f"/agents/web/requests?state={state}")["requests"]

    def said(self):
        return self.daemon.http(
            "GET", "/agents/web/logs", headers={"Authorization": f"Bearer {self.daemon.token}"}
        )[1].get("raw", "")  # fmt: skip


@pytest.fixture
def host(start_daemon, docker_sandbox, base_image):
    yield Host(start_daemon(sandbox=docker_sandbox), base_image)
    docker_sandbox.remove_containers()


def test_an_agent_killed_before_it_answered_gets_the_request_again_marked(host, docker_client, eventually):
    container = host.up()["container_id"]
    asked = gevent.spawn(host.send, "POST", "/slow", b"precious")
    eventually(lambda: "/slow" in host.said())

    docker_client.kill(container)

    got = asked.get(timeout=20)
    assert got.status == 202
    assert host.requests("pending")[0]["maybe_duplicate"] is True
    host.must("POST", "/agents/web/resume?wait=30")
    eventually(lambda: host.requests("completed"), limit_s=30)
    assert host.said().count("/slow") == 2
    assert "/slow 1" in host.said()
    answer = host.daemon.http("GET", got.fields["location"].replace("?", "/response?"))
    assert answer[1] == {"raw": "precious"}


def test_under_policy_safe_it_is_502_and_a_dead_letter(host, docker_client, eventually):
    container = host.up(replay_policy="safe")["container_id"]
    asked = gevent.spawn(host.send, "POST", "/slow", b"precious")
    eventually(lambda: "/slow" in host.said())

    docker_client.kill(container)

    assert asked.get(timeout=20).status == 502
    eventually(lambda: [each["reason"] for each in host.requests("failed")] == ["outcome_unknown"])
    assert host.requests("pending") == []


def test_an_agent_killed_in_mid_answer_breaks_the_connection_off(host, docker_client, eventually):
    container = host.up()["container_id"]
    asked = gevent.spawn(host.send, "GET", "/half")
    eventually(lambda: "/half" in host.said())

    docker_client.kill(container)

    got = asked.get(timeout=20)
    assert (got.status, got.fields["content-length"], got.body) == (200, "100", b"half")
    eventually(lambda: [each["reason"] for each in host.requests("failed")] == ["interrupted"])


def test_an_agent_that_listens_late_is_waited_for(host):
    host.up(wait=0, env_vars={"LATE": "1.5"})

    got = host.send("POST", "/x", b"patience")

    assert (got.status, got.body) == (200, b"patience")


def test_a_paused_agent_is_away_and_gets_it_when_it_goes_on(host, eventually):
    host.up()
    host.must("POST", "/agents/web/pause")
    assert host.send("POST", "/x", b"b").status == 202

    host.must("POST", "/agents/web/resume?wait=30")

    eventually(lambda: host.requests("completed"))


def test_while_redis_hangs_a_ready_agent_goes_on_and_nothing_is_promised(host, eventually):
    host.up()
    assert host.send("GET", "/x").status == 200
    redis = redis_of(host.daemon)
    os.kill(redis.pid, signal.SIGSTOP)
    try:
        live = host.send("POST", "/x", b"live")
        second = host.send("GET", "/y")
    finally:
        os.kill(redis.pid, signal.SIGCONT)

    assert (live.status, live.body, live.fields.get("x-agentainer-journal")) == (200, b"live", "unavailable")
    assert (second.status, second.fields.get("x-agentainer-journal")) == (200, "unavailable")
    eventually(lambda: "x-agentainer-journal" not in host.send("GET", "/x").fields, limit_s=30)


def test_while_redis_hangs_a_stopped_agent_is_503_and_neither_202_nor_404(host, eventually):
    host.up()
    host.must("POST", "/agents/web/stop?grace=0")
    redis = redis_of(host.daemon)
    os.kill(redis.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        got = host.send("POST", "/x", b"lost?")
        took_s = time.monotonic() - began
    finally:
        os.kill(redis.pid, signal.SIGCONT)

    assert got.status == 503
    assert "retry-after" in got.fields
    assert took_s < 15
    eventually(lambda: host.send("POST", "/x", b"kept").status == 202, limit_s=30)
    assert len(host.requests("pending")) == 1  # the one that was refused was taken back
