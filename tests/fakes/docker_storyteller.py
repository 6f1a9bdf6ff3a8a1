"""An agent in a container that speaks the native tier and does what its prompt says. Only the standard library, no model.

`tell N EVERY` tells N pieces of text, one each EVERY seconds; `fix` reads, edits and tells of it; `recall` counts what it was told in
the session; `fail` fails; anything else is repeated. Events are kept per run, so that a run can be joined again, and cancelled.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DIFF = "--- a/add.py\n+++ b/add.py\n@@ -1,2 +1,2 @@\n def add(a, b):\n-    return a - b\n+    return a + b\n"


def call(number, name, given, result):
    yield {"type": "TOOL_CALL_START", "toolCallId": number, "toolCallName": name}
    yield {"type": "TOOL_CALL_ARGS", "toolCallId": number, "delta": json.dumps(given)}
    yield {"type": "TOOL_CALL_END", "toolCallId": number}
    yield {"type": "TOOL_CALL_RESULT", "messageId": f"r{number}", "toolCallId": number, "content": result}


def text(*pieces, every=0.0):
    yield {"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"}
    for piece in pieces:
        time.sleep(every)
        yield {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": piece}
    yield {"type": "TEXT_MESSAGE_END", "messageId": "m"}


def story(asked):
    messages = asked["messages"]
    said = str(messages[-1]["content"])
    verb, *more = said.split() or [""]
    if verb == "tell":
        yield from text(*(f"{number}\n" for number in range(1, int(more[0]) + 1)), every=float(more[1]))
    elif verb == "fix":
        yield {"type": "STEP_STARTED", "stepName": "step 1"}
        yield from call("1", "run_command", {"command": "pytest -q"}, "\x1b[31mF\x1b[0m\n1 failed")
        yield from call("2", "edit_file", {"path": "add.py", "old": "a - b", "new": "a + b"}, "edited")
        change = {"path": "add.py", "operation": "modified", "diff": DIFF}
        yield {"type": "CUSTOM", "name": "file.changed", "value": change}
        yield {"type": "STEP_FINISHED", "stepName": "step 1"}
        yield from text("Fixed.\n", "\x1b[2JIt subtracted.")
    elif verb == "recall":
        yield from text(f"You said {sum(each['role'] == 'user' for each in messages)} things.")
    elif verb == "fail":
        yield {"type": "RUN_ERROR", "message": "the model does not answer", "code": "model_error"}
    else:
        yield from text(f"{len(said)} characters and {len(asked['forwardedProps'].get('media') or ())} attachments")


class Run:
    """One run, told by a thread of its own, whoever listens."""

    def __init__(self, asked):
        self.asked = asked
        self.events = []
        self.grown = threading.Condition()
        self.is_cancelled = False
        threading.Thread(target=self.tell, daemon=True).start()

    def tell(self):
        run = {"threadId": self.asked["threadId"], "runId": self.asked["runId"]}
        self.add({"type": "RUN_STARTED", **run})
        for event in story(self.asked):
            if self.is_cancelled:
                event = {"type": "RUN_ERROR", "message": "cancelled", "code": "cancelled"}
            self.add(event)
            if event["type"] == "RUN_ERROR":
                return
        usage = {"input_tokens": 512, "output_tokens": 80, "cost_usd": 0.0123, "cost_source": "provider"}
        self.add({"type": "RUN_FINISHED", **run, "result": {"usage": usage, "steps": 1}})

    def add(self, event):
        with self.grown:
            self.events.append(event)
            self.grown.notify_all()

    def after(self, number):
        is_last = False
        while not is_last:
            with self.grown:
                while number >= len(self.events):
                    self.grown.wait()
            number += 1
            event = self.events[number - 1]
            yield number, event
            is_last = event["type"] in ("RUN_FINISHED", "RUN_ERROR")


runs = {}
started = int(time.time())


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        parts = self.path.partition("?")[0].split("/")
        if self.path == "/ping":
            status = {"status": "Healthy", "time_of_last_update": started, "bridge": "native", "version": "test"}
            self.begin(200, "application/json")
            self.wfile.write(json.dumps(status).encode())
        elif len(parts) == 4 and parts[2] in runs:
            self.stream(runs[parts[2]], int(self.path.rpartition("=")[2]))
        else:
            self.begin(404, "application/json")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/invocations":
            asked = json.loads(body)
            if asked["runId"] not in runs:
                runs[asked["runId"]] = Run(asked)
            self.stream(runs[asked["runId"]], 0)
            return
        run = runs.get(self.path.split("/")[2])
        if run:
            run.is_cancelled = True
        self.begin(202 if run else 404, "application/json")

    def stream(self, run, after):
        self.begin(200, "text/event-stream")
        for number, event in run.after(after):
            self.wfile.write(f"data: {json.dumps(event)}\nid: {number}\n\n".encode())
            self.wfile.flush()

    def begin(self, status, content_type):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.end_headers()

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("", 8000), Handler).serve_forever()
