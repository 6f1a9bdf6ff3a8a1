"""A small control API on a Unix socket or TCP: answers what the test says, keeps what it was asked."""

import json
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

AGENT = {
    "id": "agent-00000000000000a1",
    "name": "web",
    "image": "nginx:alpine",
    "image_id": "sha256:1",
    "container_id": "c0ffee00c0ffee00c0ffee00",
    "status": "running",
    "reason": "",
    "ready": True,
    "health": "none",
    "env_vars": {"MODEL": "small", "API_KEY": "***"},
    "secrets": ["API_KEY"],
    "cpu_limit": 500_000_000,
    "memory_limit": 512 * 1024 * 1024,
    "auto_restart": True,
    "token": "***",
    "ports": [],
    "port": 8000,
    "volumes": [{"host_path": "/srv/data", "container_path": "/data", "read_only": True}],
    "command": [],
    "services": {"redis": False},
    "labels": {"team": "search"},
    "network_egress": True,
    "hold_timeout_s": 10.0,
    "request_timeout_s": 600.0,
    "stop_grace_s": 10.0,
    "persistence": True,
    "replay_policy": "auto",
    "replay_concurrency": 4,
    "ordered": False,
    "max_pending": 10000,
    "max_pending_bytes": 268435456,
    "endpoint": "/agent/web/",
    "restarts": 0,
    "crashes": 0,
    "next_restart_at": None,
    "last_exit": None,
    "requests": {"pending": 2, "processing": 0, "failed": 1, "in_flight": 0},
    "created_at": "2026-01-01T00:00:00.000Z",
    "updated_at": "2026-01-01T00:00:00.000Z",
    "started_at": "2026-01-01T00:00:00.000Z",
}
NOT_FOUND = {"status": 404, "message": "Agent not found: x", "code": "AGENT_NOT_FOUND"}


def agent(**changes: Any) -> dict[str, Any]:
    return {**AGENT, **changes}


class Asked:
    """One request as it came."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes):
        parts = urlsplit(target)
        self.method = method
        self.path = parts.path
        self.query = parse_qs(parts.query, keep_blank_values=True)
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"{self.method} {self.path} {self.query}"


Answer = Callable[[BaseHTTPRequestHandler, Asked], None]


class FakeApi:
    """`on("POST", "/agents/web/start", ...)` says what is answered; a route that was not said is 404 with AGENT_NOT_FOUND.

    `asked` has every request. `before_body` answers a path before its body is read. Several answers on one route come one after the other; the last one stays.
    """

    def __init__(self, address: str | tuple[str, int]):
        self.asked: list[Asked] = []
        self.before_body: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self._routes: dict[tuple[str, str], list[Answer]] = {}
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                early = api.before_body.get(self.path.partition("?")[0])
                if early:
                    early(self)
                    return
                asked = Asked(self.command, self.path, dict(self.headers), _read_body(self))
                api.asked.append(asked)
                api._answer(asked)(self, asked)

            do_GET = do_POST = do_DELETE = _serve

            def address_string(self) -> str:
                return "test"

            def log_message(self, *_: object) -> None:
                pass

        family = socketserver.UnixStreamServer if isinstance(address, str) else socketserver.TCPServer

        class Server(socketserver.ThreadingMixIn, family):  # type: ignore[misc, valid-type]
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 64

            def handle_error(self, *_: object) -> None:
                pass  # clients that leave are part of the tests

        self._server = Server(address, Handler)
        self.url = (
            f"unix://{address}" if isinstance(address, str) else f"http://127.0.0.1:{self._server.server_address[1]}"
        )
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def on(self, method: str, path: str, data: Any = None, **envelope: Any) -> None:
        """Answer with an envelope; `status` from 400 on makes it an error with `message`, `code`, `hint`, `details`."""
        status = envelope.pop("status", 200)
        body: dict[str, Any] = {"success": status < 400, "message": "done", **envelope}
        if status >= 400:
            body["error"] = body["message"]
        elif data is not None:
            body["data"] = data
        self.on_raw(method, path, lambda handler, _: send(handler, status, json.dumps(body).encode()))

    def on_lines(self, method: str, path: str, *lines: Any) -> None:
        """Answer with NDJSON, each line a chunk; the last one may be an exception: the connection breaks there."""

        def answer(handler: BaseHTTPRequestHandler, _: Asked) -> None:
            begin_stream(handler)
            for line in lines:
                if isinstance(line, Exception):
                    handler.close_connection = True
                    return
                send_line(handler, line)
            end_stream(handler)

        self.on_raw(method, path, answer)

    def on_events(self, path: str, *events: Any) -> None:
        """Answer GET `path` with server-sent events, as the daemon frames them; bytes are sent as they are, an exception breaks off."""

        def answer(handler: BaseHTTPRequestHandler, _: Asked) -> None:
            begin_stream(handler, "text/event-stream")
            for event in events:
                if isinstance(event, Exception):
                    handler.close_connection = True
                    return
                send_line(handler, event if isinstance(event, bytes) else frame(event))
            end_stream(handler)

        self.on_raw("GET", path, answer)

    def on_raw(self, method: str, path: str, answer: Answer) -> None:
        self._routes.setdefault((method, path), []).append(answer)

    def forget(self, method: str, path: str) -> None:
        """Take back what was said of a route."""
        del self._routes[(method, path)]

    def paths(self, method: str) -> list[str]:
        """Return the paths that were asked with `method`, in order."""
        return [asked.path for asked in self.asked if asked.method == method]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, asked: Asked) -> Answer:
        answers = self._routes.get((asked.method, asked.path))
        if not answers:
            body = json.dumps(
                {"success": False, "message": f"Agent not found: {asked.path}", "code": "AGENT_NOT_FOUND"}
            )
            return lambda handler, _: send(handler, 404, body.encode())
        return answers.pop(0) if len(answers) > 1 else answers[0]


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, content_type: str = "application/json") -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", content_type)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def frame(event: dict[str, Any]) -> bytes:
    """Return an event of a run as the daemon sends it."""
    return f"event: {event['event']['type']}\ndata: {json.dumps(event)}\nid: {event['seq']}\n\n".encode()


def begin_stream(handler: BaseHTTPRequestHandler, content_type: str = "application/x-ndjson") -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", content_type)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()


def send_line(handler: BaseHTTPRequestHandler, line: Any) -> None:
    data = line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"
    handler.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
    handler.wfile.flush()


def end_stream(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"0\r\n\r\n")


def _read_body(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("Transfer-Encoding") != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    body = b""
    while size := int(handler.rfile.readline(), 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return body
