"""An agent that speaks AG-UI: messages in, a stream of typed events out, with a tool call. Standard library only, no model."""

import json
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

state = {"running": 0, "changed": int(time.time()), "stopping": False}


def events(asked):
    """Yield what happens in one run: a tool counts the words of the last message."""
    run = {"threadId": asked["threadId"], "runId": asked["runId"]}
    text = str([message["content"] for message in asked["messages"] if message["role"] == "user"][-1])
    count = str(len(text.split()))
    yield {"type": "RUN_STARTED", **run}
    yield {"type": "TOOL_CALL_START", "toolCallId": "call-1", "toolCallName": "count_words"}
    yield {"type": "TOOL_CALL_ARGS", "toolCallId": "call-1", "delta": json.dumps({"text": text})}
    yield {"type": "TOOL_CALL_END", "toolCallId": "call-1"}
    yield {"type": "TOOL_CALL_RESULT", "messageId": "tool-1", "toolCallId": "call-1", "content": count}
    yield {"type": "TEXT_MESSAGE_START", "messageId": "text-1", "role": "assistant"}
    for piece in (count, " word(s), ", f"in message {len(asked['messages'])}."):
        yield {"type": "TEXT_MESSAGE_CONTENT", "messageId": "text-1", "delta": piece}
    yield {"type": "TEXT_MESSAGE_END", "messageId": "text-1"}
    yield {"type": "RUN_FINISHED", **run, "usage": [{"inputTokens": 10 * len(asked["messages"]), "outputTokens": 9}]}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.begin(200 if self.path == "/ping" else 404, "application/json")
        status = "HealthyBusy" if state["running"] else "Healthy"
        self.wfile.write(json.dumps({"status": status, "time_of_last_update": state["changed"]}).encode())

    def do_POST(self):
        try:
            run = list(events(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
        except (ValueError, LookupError, TypeError):
            return self.begin(400, "application/json")
        self.begin(200, "text/event-stream")
        state.update(running=state["running"] + 1, changed=int(time.time()))
        for event in run:
            if state["stopping"]:
                event = {"type": "RUN_ERROR", "message": "the container stops", "code": "interrupted"}
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            if event["type"] == "RUN_ERROR":
                break
        return state.update(running=state["running"] - 1, changed=int(time.time()))

    def begin(self, status, content_type):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.end_headers()


signal.signal(signal.SIGTERM, lambda *_: state.update(stopping=True) or threading.Timer(1, os._exit, [0]).start())
ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
