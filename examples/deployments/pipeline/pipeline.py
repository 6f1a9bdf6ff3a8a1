"""Gives a text to one agent after the other, each of which gets what the one before it answered. Standard library only.

STAGES has their names in order; where each is says <NAME>_SERVICE, which agentainerd sets for every dependency. A run's events
have each stage as a call of a tool, with its answer as the result, and the last stage's answer as the text.

POST /invocations, GET /ping     AG-UI, for `agentainerctl run`
POST /chat {"message": "..."}    {"response", "stages": {name: answer}}        GET /health
"""

import json
import os
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STAGES = [name for name in os.environ.get("STAGES", "").replace(" ", "").split(",") if name]
TIMEOUT_S = 600
state = {"busy": 0, "changed": int(time.time())}
lock = threading.Lock()


class StageFailed(Exception):
    """One of the agents did not answer; the message says which, and why."""


def note(by):
    with lock:
        state.update(busy=state["busy"] + by, changed=int(time.time()))


def ask(stage, text, session):
    """Return what a stage makes of a text."""
    address = os.environ.get(f"{stage.upper().replace('-', '_')}_SERVICE", f"http://{stage}:8000")
    body = json.dumps({"message": text, "session": session}).encode()
    request = urllib.request.Request(f"{address}/chat", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return json.load(answer)["response"]
    except urllib.error.HTTPError as error:
        raise StageFailed(
            f"{stage} answered {error.code}: {error.read(500).decode('utf-8', 'replace').strip()}"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise StageFailed(f"{stage} did not answer: {getattr(error, 'reason', error)!s}") from error


def events(asked):
    """Yield the events of one run."""
    run = {"threadId": str(asked["threadId"]), "runId": str(asked["runId"])}
    text = str([message["content"] for message in asked["messages"] if message["role"] == "user"][-1])
    yield {"type": "RUN_STARTED", **run}
    try:
        for number, stage in enumerate(STAGES, 1):
            call = f"{run['runId']}-{number}"
            yield {"type": "TOOL_CALL_START", "toolCallId": call, "toolCallName": stage}
            yield {"type": "TOOL_CALL_ARGS", "toolCallId": call, "delta": json.dumps({"text": text})}
            yield {"type": "TOOL_CALL_END", "toolCallId": call}
            text = ask(stage, text, run["runId"])
            note(0)
            yield {"type": "TOOL_CALL_RESULT", "messageId": f"{call}-result", "toolCallId": call, "content": text}
    except StageFailed as error:
        yield {"type": "RUN_ERROR", "message": str(error), "code": "error"}
        return
    yield {"type": "TEXT_MESSAGE_START", "messageId": "answer", "role": "assistant"}
    yield {"type": "TEXT_MESSAGE_CONTENT", "messageId": "answer", "delta": text}
    yield {"type": "TEXT_MESSAGE_END", "messageId": "answer"}
    yield {"type": "RUN_FINISHED", **run}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        known = {
            "/ping": {"status": "HealthyBusy" if state["busy"] else "Healthy", "time_of_last_update": state["changed"]},
            "/health": {"status": "ok", "stages": STAGES},
        }
        self.answer(200 if self.path in known else 404, known.get(self.path, {"error": "not found"}))

    def do_POST(self):
        serve = {"/invocations": self.invoke, "/chat": self.chat}.get(self.path)
        if serve is None:
            return self.answer(404, {"error": "not found"})
        note(+1)
        try:
            return serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        except (ValueError, LookupError, TypeError) as error:
            return self.answer(400, {"error": f"this can't be understood: {error!r}"})
        except StageFailed as error:
            return self.answer(502, {"error": str(error)})
        except OSError:
            return None  # whoever asked has gone
        finally:
            note(-1)

    def chat(self, asked):
        text, answers = str(asked["message"]), {}
        for stage in STAGES:
            text = answers[stage] = ask(stage, text, f"chat-{time.time_ns()}")
        self.answer(200, {"response": text, "stages": answers})

    def invoke(self, asked):
        told = events(asked)
        first = next(told)  # what can't be understood is refused before the answer begins
        self.begin(200, "text/event-stream")
        self.event(first)
        for event in told:
            self.event(event)

    def event(self, event):
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())

    def answer(self, status, body):
        self.begin(status, "application/json")
        self.wfile.write(json.dumps(body).encode() + b"\n")

    def begin(self, status, content_type):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.end_headers()


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    server = ThreadingHTTPServer(("", port), Handler)
    print(f"listens on port {port}; {' > '.join(STAGES) or 'no stages'}", flush=True)
    server.serve_forever()
