"""Named ports through the real daemon: a container that lets in whoever shows its own token, and the ways of a person to it."""

import http.client
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.docker, pytest.mark.redis]
SCREEN = """
import http.server as h, os, threading
class Screen(h.BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.headers['Authorization'] == 'Bearer ' + os.environ['AGENT_PORT_GUI_TOKEN']
        said = repr([self.path, self.headers['Cookie']]).encode()
        self.send_response(200 if known else 403)
        self.send_header('Content-Length', str(len(said)))
        self.end_headers()
        self.wfile.write(said)
threading.Thread(target=h.ThreadingHTTPServer(('', 6080), Screen).serve_forever, daemon=True).start()
h.ThreadingHTTPServer(('', 8000), h.SimpleHTTPRequestHandler).serve_forever()
"""


def ask(port, path, **fields):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in fields.items()})
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read().decode()
    finally:
        connection.close()


def test_a_port_is_opened_by_its_address_once_and_closed_to_everybody_else(start_daemon, docker_sandbox, base_image):
    daemon = start_daemon(sandbox=docker_sandbox)
    try:
        body = {"name": "web", "image": base_image, "command": ["python3", "-c", SCREEN], "named_ports": {"gui": 6080}}
        said = daemon.control("POST", "/agents", body)
        assert said[0] == 201, said
        assert daemon.control("POST", "/agents/web/start?wait=30")[0] == 200
        done = subprocess.run(
            [sys.executable, "-m", "agentainerctl", "--host", f"unix://{daemon.control_socket}", "open", "web", "gui"],
            capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
        url = done.stdout.strip()
        host, _, path = url.removeprefix("http://").partition("/")
        assert host == f"gui.web.localhost:{daemon.port}"

        status, fields, _ = ask(daemon.port, f"/{path}", Host=host)
        assert (status, fields["Location"]) == (303, f"//{host}/")
        cookie = fields["Set-Cookie"].partition(";")[0]
        assert ask(daemon.port, f"/{path}", Host=host)[0] == 401
        assert ask(daemon.port, "/x?y", Host=host, Cookie=f"{cookie}; a=b")[::2] == (200, "['/x?y', 'a=b']")
        assert ask(daemon.port, "/agent/web/:gui/x", Cookie=cookie)[0] == 401
        assert ask(daemon.port, "/", Host=host, Cookie=cookie, Origin="http://other.localhost")[0] == 401
        assert ask(daemon.port, "/agent/web/:gui/", Host=f"rebound.example:{daemon.port}", Accept="text/html")[0] == 403
        assert ask(daemon.port, "/agent/web/:gui/", Authorization=f"Bearer {daemon.token}")[0] == 400

        token = daemon.control("POST", "/tokens", {"name": "viewer", "scopes": ["agent:web"]})[1]["data"]["token"]
        assert ask(daemon.port, "/agent/web/:gui/x", Authorization=f"Bearer {token}")[::2] == (200, "['/x', None]")
        assert daemon.control("DELETE", "/tokens/viewer")[0] == 200
        assert ask(daemon.port, "/agent/web/:gui/x", Authorization=f"Bearer {token}")[0] == 401

        agent = daemon.control("GET", "/agents/web")[1]["data"]
        assert agent["named_ports"] == {"gui": 6080}
        assert agent["env_vars"] == {}
        assert daemon.control("GET", "/agents/web/requests")[1]["data"]["requests"] == []
    finally:
        docker_sandbox.remove_containers()
