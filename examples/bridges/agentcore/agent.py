"""A container as Bedrock AgentCore hosts it: POST /invocations and GET /ping on port 8080. Standard library only, no model.

The conversation is its own: it remembers what it was told under each session's id.
"""

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SESSION = "X-Amzn-Bedrock-AgentCore-Runtime-Session-Id"
state = {"busy": 0, "changed": int(time.time())}
memory = {}
lock = threading.Lock()


def change(by):
    """Count invocations. The time is that of the last change, never that of a ping."""
    with lock:
        state.update(busy=state["busy"] + by, changed=int(time.time()))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        status = "HealthyBusy" if state["busy"] else "Healthy"
        known = {"status": status, "time_of_last_update": state["changed"]}
        self.answer(200, known) if self.path == "/ping" else self.answer(404, {"error": "not found"})

    def do_POST(self):
        try:
            prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"]
        except (ValueError, KeyError, TypeError):
            return self.answer(400, {"error": 'send {"prompt": "..."}'})
        change(+1)
        with lock:
            told = memory.setdefault(self.headers.get(SESSION, ""), [])
            told.append(prompt)
        change(-1)
        return self.answer(200, {"response": f"Thing {len(told)} that you told me: {prompt!r}."})

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())


ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
