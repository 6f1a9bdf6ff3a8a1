"""An agent that keeps the contract of a tier (docs/bridge.md) but for the one rule that it is told to break.

Standard library only: it is also copied into an image, where POST /become says what it is from now on. A run lasts `pieces`
times STEP_S, so that it can be seen while it goes on.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECES = 8
STEP_S = 0.02
KNOWN = {"threadId", "runId", "messages", "state", "tools", "context", "forwardedProps", "prompt", "input"}
KNOWN |= {"model", "stream", "stream_options", "task", "conversationHistory"}


class Run:
    """One run of the native tier: its events from the first on, made by a thread of its own."""

    def __init__(self, run_id, thread_id, agent):
        self.id, self.thread_id, self.agent = run_id, thread_id, agent
        self.events, self.changed, self.is_cancelled = [], threading.Condition(), False
        agent.busy += 1
        agent.touch()
        threading.Thread(target=self._work, daemon=True).start()

    @property
    def has_ended(self):
        return bool(self.events) and self.events[-1] is None

    def tell(self, kind, **fields):
        with self.changed:
            self.events.append({"type": kind, **fields})
            self.changed.notify_all()

    def _work(self):
        breaks, names = self.agent.breaks, {"threadId": self.thread_id, "runId": self.id}
        if breaks == "run_id":
            names["runId"] = "another"
        if breaks != "first":
            self.tell("RUN_STARTED", **names)
        if breaks == "same_run":
            self.tell("CUSTOM", name="when", value=time.time())
        self.tell("STEP_STARTED", stepName="1")
        self.tell("TEXT_MESSAGE_START", **({} if breaks == "fields" else {"messageId": "m"}))
        for number in range(self.agent.pieces):
            if self.is_cancelled and breaks != "cancel":
                break
            self.tell("TEXT_MESSAGE_CONTENT", messageId="m", delta=f"{number} ")
            time.sleep(STEP_S)
        if breaks != "pairs":
            self.tell("TEXT_MESSAGE_END", messageId="m")
        self.tell("STEP_FINISHED", stepName="1")
        if self.is_cancelled and breaks != "cancel":
            self.tell("RUN_ERROR", message="it was cancelled", code="cancelled")
        elif breaks == "task":
            self.tell("RUN_ERROR", message="there is no key for the model", code="model_error")
        elif breaks != "last":
            usage = {} if breaks == "usage" else {"usage": {"input_tokens": 1, "output_tokens": 2}}
            self.tell("RUN_FINISHED", **names, result={**usage, "steps": 1})
        with self.changed:
            self.events.append(None)
            self.changed.notify_all()
        self.agent.busy -= 1
        self.agent.touch()

    def stream(self, after):
        """Yield (number, event) from after on, until the run has ended."""
        number = after
        while True:
            with self.changed:
                self.changed.wait_for(lambda number=number: len(self.events) > number)
                event = self.events[number]
            if event is None:
                return
            number += 1
            yield number, event


class Agent:
    """What the handler serves. `breaks`: the name of the rule that it breaks, "" for none."""

    def __init__(self, tier="native", breaks="", whole_seconds=False, pieces=PIECES):
        self.tier, self.breaks, self.pieces = tier, breaks, pieces
        self.now = (lambda: int(time.time())) if whole_seconds else time.time
        self.runs, self.busy, self.updated = {}, 0, self.now()

    def touch(self):
        if self.breaks != "progress":
            self.updated = self.now()


class Handler(BaseHTTPRequestHandler):
    agent: Agent

    def do_GET(self):
        path, _, query = self.path.partition("?")
        agent, breaks = self.agent, self.agent.breaks
        if path == "/ping" and agent.tier in ("native", "agui", "agentcore") and breaks != "ping":
            while breaks == "ping_busy" and agent.busy:
                time.sleep(STEP_S)
            if breaks == "drip":  # a head in pieces, each of which is in time
                for piece in (b"HTTP/1.0 200 OK\r\n", b"Content-Type: application/json\r\n"):
                    self.wfile.write(piece)
                    time.sleep(10 * STEP_S)
                self.wfile.write(b"\r\n" + json.dumps(self.health()).encode())
                return
            if breaks == "last_update":
                agent.updated = agent.now()
            self.answer(200, self.health())
        elif path == "/v1/models" and agent.tier == "openai" and breaks != "models":
            self.answer(200, {"object": "list", "data": [{"id": "m"}]})
        elif path == "/agent/status" and agent.tier in ("native", "bridge") and breaks != "agent_status":
            self.answer(200, {"ok": 1} if breaks == "initialized" else {"initialized": False})
        elif path.startswith("/runs/") and agent.tier == "native" and breaks != "rejoin":
            run = self.known(path.split("/")[2])
            after = 0 if not query else int(query.partition("=")[2])
            self.stream(run.stream(after), numbered=True) if run else self.answer(404, {"error": "no such run"})
        else:
            self.answer(404, {"error": "not found"})

    def health(self):
        agent, breaks = self.agent, self.agent.breaks
        busy = "HealthyBusy" if agent.busy and breaks != "busy" else "Healthy"
        body = {"status": "ok" if breaks == "ping_status" else busy, "time_of_last_update": agent.updated}
        return body | ({"bridge": "native"} if agent.tier == "native" else {}) | (
            {"version": "1"} if breaks != "identity" else {}
        )  # fmt: skip

    def known(self, run_id):
        if self.agent.breaks == "unknown_run" and run_id not in self.agent.runs:
            return Run(run_id, "t", self.agent)
        return self.agent.runs.get(run_id)

    def do_POST(self):
        data, breaks = self.rfile.read(int(self.headers.get("Content-Length") or 0)), self.agent.breaks
        if self.path.endswith("/cancel") and self.agent.tier == "native":
            if run := self.known(self.path.split("/")[2]):
                run.is_cancelled = True
            return self.answer(202 if run else 404, {})
        if self.path == "/become":
            self.agent.__init__(**json.loads(data))
            return self.answer(200, {})
        try:
            asked = json.loads(data)
        except ValueError:
            return self.answer(500 if breaks == "bad_request" else 400, {"error": "no JSON"})
        if breaks == "unknown_fields" and set(asked) - KNOWN:
            return self.answer(422, {"error": "extra fields not permitted"})
        if breaks == "answer":
            return self.answer(200, "text", "text/html")
        if breaks == "history" and len(asked.get("messages", ())) > 1:
            return self.answer(400, {"error": "one message only"})
        return {"openai": self.complete, "bridge": self.execute, "agentcore": self.invoke}.get(
            self.agent.tier, self.run
        )(asked)  # fmt: skip

    def run(self, asked):
        agent, breaks, run_id = self.agent, self.agent.breaks, asked["runId"]
        if run_id not in agent.runs or breaks == "same_run":
            agent.runs[run_id] = Run(run_id, asked["threadId"], agent)
        run = agent.runs[run_id]
        try:
            self.stream(run.stream(0), numbered=agent.tier == "native")
        except OSError:
            if breaks == "disconnect":
                run.is_cancelled = True

    def stream(self, events, numbered):
        self.begin(200, "text/event-stream")
        step = 2 if self.agent.breaks == "numbering" else 1
        for number, event in events:
            ident = f"id: {number * step}\n" if numbered else ""
            self.wfile.write(f"data: {json.dumps(event)}\n{ident}\n".encode())
        while self.agent.breaks == "open" and self.rfile.read(1):
            pass  # until whoever reads has gone

    def invoke(self, asked):
        agent = self.agent
        agent.busy += 1
        agent.touch()
        time.sleep(STEP_S * agent.pieces)
        agent.busy -= 1
        told = {"task": {"error": "no key"}, "text": {}}.get(agent.breaks, {"response": f"done: {asked['prompt']}"})
        self.answer(200, told)

    def complete(self, asked):
        breaks = self.agent.breaks
        if breaks == "streamed":
            return self.answer(
                200, {"choices": [{"message": {"content": "all"}, "finish_reason": "stop"}], "usage": {"x": 1}}
            )
        self.begin(200, "text/event-stream")
        for number in range(0 if breaks == "text" else PIECES):
            self.data({"choices": [{"delta": {"content": f"{number} "}}]})
        if breaks == "task":
            self.data({"error": {"message": "there is no key for the model"}})
        if breaks not in ("end", "usage"):
            self.data(
                {
                    "choices": [{"delta": {}, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
                }
            )
        if breaks != "end":
            self.wfile.write(b"data: [DONE]\n\n")
        return None

    def execute(self, asked):
        breaks = self.agent.breaks
        self.begin(200, "text/event-stream")
        if breaks != "text":
            self.data({"type": "text", "content": "hello"})
        if breaks == "frames":
            self.wfile.write(b"data: hello\n\n")
        if breaks == "task":
            self.data({"type": "error", "error": "there is no key for the model"})
        elif breaks != "done":
            self.data({"type": "done", "state": {}})

    def data(self, value):
        self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())

    def answer(self, status, body, content_type="application/json"):
        self.begin(status, content_type)
        self.wfile.write(json.dumps(body).encode())

    def begin(self, status, content_type):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.end_headers()

    def log_message(self, *args):
        pass


def serve(agent, port=0):
    """Return a server that listens; the caller has it serve."""
    server = ThreadingHTTPServer(("", port), type("Bound", (Handler,), {"agent": agent}))
    server.daemon_threads = True
    return server


if __name__ == "__main__":
    serve(Agent(whole_seconds=True), 8080).serve_forever()
