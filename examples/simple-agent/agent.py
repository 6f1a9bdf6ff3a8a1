"""A small agent: answers messages and remembers them. Python's standard library only.

GET /          who it is                         POST /chat     {"message": "hello"} -> an answer
GET /health    {"status": "ok"}                  GET  /history  every message it got, in order

What it got is kept in /data/history.jsonl, so that it survives the container's death; in memory where that folder
cannot be written. Each message is kept with the id that agentainerd gave its request, which is how one sees that a
queued request was delivered once.
"""

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = os.environ.get("AGENT_NAME", "simple-agent")
PORT = int(os.environ.get("PORT", "8000"))
DATA_DIR = os.environ.get("DATA_DIR", "/data")
MAX_BODY_BYTES = 1024 * 1024


class History:
    """Every message, in order; on disk where that can be written."""

    def __init__(self, folder):
        self._lock = threading.Lock()
        self._path = os.path.join(folder, "history.jsonl")
        self._entries = []
        try:
            os.makedirs(folder, exist_ok=True)
            with open(self._path, "a+", encoding="utf-8") as lines:
                lines.seek(0)
                self._entries = [json.loads(line) for line in lines if line.endswith("\n")]
            self.place = self._path
        except OSError as error:
            self.place = f"memory ({error})"

    def add(self, entry):
        """Keep an entry and return its number, from 1."""
        with self._lock:
            entry = {"number": len(self._entries) + 1, **entry}
            if self.place == self._path:
                with open(self._path, "a", encoding="utf-8") as lines:
                    lines.write(json.dumps(entry) + "\n")
                    lines.flush()
                    os.fsync(lines.fileno())
            self._entries.append(entry)
            return entry["number"]

    def all(self):
        with self._lock:
            return list(self._entries)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    history: History

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/":
            self._answer(
                200, {"agent": NAME, "messages": len(self.history.all()), "routes": ["/health", "/chat", "/history"]}
            )
        elif path == "/health":
            self._answer(200, {"status": "ok"})
        elif path == "/history":
            self._answer(200, {"messages": self.history.all()})
        else:
            self._answer(404, {"error": f"there is no {path} here"})

    def do_POST(self):
        if self.path.partition("?")[0] != "/chat":
            self._answer(404, {"error": f"there is no {self.path} here"})
            return
        try:
            length = int(self.headers.get("Content-Length", "0"))
            if not 0 <= length <= MAX_BODY_BYTES:
                raise ValueError(f"a body has at most {MAX_BODY_BYTES} bytes")
            message = json.loads(self.rfile.read(length))["message"]
            if not isinstance(message, str):
                raise ValueError("message is not text")
        except (ValueError, KeyError, TypeError) as error:
            self.close_connection = True
            self._answer(400, {"error": f'send {{"message": "..."}} as JSON ({error})'})
            return
        number = self.history.add(
            {
                "message": message,
                "request_id": self.headers.get("X-Agentainer-Request-ID", ""),
                "replayed": self.headers.get("X-Agentainer-Replay") == "true",
            }
        )
        self._answer(200, {"answer": f"You said: {message}", "number": number})

    def _answer(self, status, content):
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format, *args):
        print(f"{self.address_string()} {format % args}", flush=True)


def main():
    Handler.history = History(DATA_DIR)
    server = ThreadingHTTPServer(("", PORT), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"{NAME} listens on port {PORT}, history in {Handler.history.place}", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    print(f"{NAME} was stopped", flush=True)


if __name__ == "__main__":
    main()
