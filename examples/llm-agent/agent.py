"""An agent that answers with a language model of several providers. Python's standard library only.

POST /chat, /api/chat   {"message": "hello", "session": "s-1"?} -> {"response", "session", "provider", "model"}
GET  /history?session=  what was said, as it is kept in STATE_DIR      DELETE /history?session=   forgets it
GET  /health, /status   {"status": "ok"}; which provider and model answer
POST /invocations       AG-UI, for `agentainerctl run` and sessions: the daemon sends what was said before
GET  /ping              Healthy, or HealthyBusy
"""

import json
import os
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from providers import ModelError, choose

PORT = int(os.environ.get("PORT", "8000"))
STATE_DIR = os.environ.get("STATE_DIR", "/app/state")
INSTRUCTIONS = os.environ.get("INSTRUCTIONS", "You are a helpful assistant. Answer briefly.")
MAX_BODY_BYTES = 1024 * 1024
KEPT_MESSAGES = 40  # of a conversation that /chat sends to the model
PASSED_ON = ("X-Agentainer-Run-Id", "X-Agentainer-Session-Id")  # so that the gateway counts for the right run


class Conversations:
    """What was said in /chat: a file of lines for each session, so that it outlives the container."""

    def __init__(self, folder):
        self._folder, self._lock = folder, threading.Lock()
        os.makedirs(folder, exist_ok=True)

    def messages(self, session):
        try:
            with open(self._path(session), encoding="utf-8") as lines:
                return [json.loads(line) for line in lines if line.endswith("\n")]
        except FileNotFoundError:
            return []

    def add(self, session, *messages):
        with self._lock, open(self._path(session), "a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(message) + "\n" for message in messages)
            lines.flush()
            os.fsync(lines.fileno())

    def forget(self, session):
        with self._lock:
            try:
                os.unlink(self._path(session))
            except FileNotFoundError:
                return False
        return True

    def _path(self, session):
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", session):
            raise ValueError("a session is up to 64 letters, digits, - and _")
        return os.path.join(self._folder, f"{session}.jsonl")


class Activity:
    """How many answers are under way, and when that last changed: what /ping says."""

    def __init__(self):
        self._lock, self.busy, self.changed = threading.Lock(), 0, int(time.time())

    def __enter__(self):
        self._change(+1)

    def __exit__(self, *_):
        self._change(-1)

    def _change(self, by):
        with self._lock:
            self.busy, self.changed = self.busy + by, int(time.time())


class Handler(BaseHTTPRequestHandler):
    model = activity = conversations = None

    def do_GET(self):
        path = urlsplit(self.path).path
        if path == "/ping":
            status = "HealthyBusy" if self.activity.busy else "Healthy"
            self.answer(200, {"status": status, "time_of_last_update": self.activity.changed})
        elif path == "/health":
            self.answer(200, {"status": "ok"})
        elif path in ("/", "/status"):
            self.answer(200, {"provider": self.model.provider, "model": self.model.name, "busy": self.activity.busy})
        elif path == "/history":
            self.guarded(lambda: self.answer(200, {"messages": self.conversations.messages(self.session())}))
        else:
            self.answer(404, {"error": f"there is no {path} here"})

    def do_DELETE(self):
        if urlsplit(self.path).path == "/history":
            self.guarded(lambda: self.answer(200, {"forgotten": self.conversations.forget(self.session())}))
        else:
            self.answer(404, {"error": "only /history can be deleted"})

    def do_POST(self):
        path = urlsplit(self.path).path
        if path in ("/chat", "/api/chat"):
            self.guarded(self.chat)
        elif path == "/invocations":
            self.guarded(self.invoke)
        else:
            self.answer(404, {"error": f"there is no {path} here"})

    def session(self):
        return parse_qs(urlsplit(self.path).query).get("session", ["default"])[0]

    def guarded(self, serve):
        """Answer what the caller got wrong with 400, and a model that does not answer with 502."""
        try:
            with self.activity:
                serve()
        except (ValueError, KeyError, TypeError) as error:
            self.answer(400, {"error": f"this can't be understood: {error!r}"})
        except ModelError as error:
            self.answer(502, {"error": str(error)})

    def body(self):
        length = int(self.headers.get("Content-Length", "0"))
        if not 0 <= length <= MAX_BODY_BYTES:
            raise ValueError(f"a body has at most {MAX_BODY_BYTES} bytes")
        return json.loads(self.rfile.read(length))

    def chat(self):
        asked = self.body()
        session, said = str(asked.get("session") or "default"), {"role": "user", "content": str(asked["message"])}
        before = self.conversations.messages(session)[-KEPT_MESSAGES:]
        pieces = self.model.stream([{"role": "system", "content": INSTRUCTIONS}, *before, said])
        response = "".join(piece for piece in pieces if isinstance(piece, str))
        self.conversations.add(session, said, {"role": "assistant", "content": response})
        told = {"response": response, "session": session, "provider": self.model.provider, "model": self.model.name}
        self.answer(200, told)

    def invoke(self):
        """Answer with AG-UI's events. The conversation is the daemon's: nothing of it is kept here."""
        asked = self.body()
        run = {"threadId": str(asked["threadId"]), "runId": str(asked["runId"])}
        kept = [
            message
            for message in asked["messages"]
            if message["role"] in ("user", "assistant") and message.get("content")
        ]
        if not kept:
            raise ValueError("there is no message")
        messages = [{"role": "system", "content": INSTRUCTIONS}]
        messages += [{"role": message["role"], "content": message["content"]} for message in kept]
        headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
        name = (asked.get("forwardedProps") or {}).get("model") or ""
        self.begin(200, "text/event-stream")
        try:
            self.event("RUN_STARTED", **run)
            self.event("TEXT_MESSAGE_START", messageId="answer", role="assistant")
            usage = {}
            for piece in self.model.stream(messages, name, headers):
                if isinstance(piece, dict):
                    usage = piece
                else:
                    self.event("TEXT_MESSAGE_CONTENT", messageId="answer", delta=piece)
            self.event("TEXT_MESSAGE_END", messageId="answer")
            self.event(
                "RUN_FINISHED",
                **run,
                usage=[{"provider": self.model.provider, "model": name or self.model.name, **usage}],
            )
        except ModelError as error:
            self.event("RUN_ERROR", message=str(error), code=error.code)
        except OSError:
            pass  # whoever asked has gone: the model is not read any further

    def event(self, kind, **fields):
        self.wfile.write(f"data: {json.dumps({'type': kind, **fields})}\n\n".encode())

    def answer(self, status, body):
        self.begin(status, "application/json")
        self.wfile.write(json.dumps(body).encode() + b"\n")

    def begin(self, status, content_type):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.end_headers()

    def log_message(self, format, *args):
        print(f"{self.address_string()} {format % args}", flush=True)


def main():
    try:
        Handler.model = choose()
    except ModelError as error:
        raise SystemExit(str(error)) from None
    Handler.activity, Handler.conversations = Activity(), Conversations(STATE_DIR)
    server = ThreadingHTTPServer(("", PORT), Handler)
    print(f"listens on port {PORT}; {Handler.model.provider} answers ({Handler.model.name})", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
