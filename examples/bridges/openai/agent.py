"""A plain OpenAI-compatible server, as there are many: it knows nothing of agentainerd. Standard library only, no model.

It counts what it is told, so that one sees that the conversation is sent with every request.
"""

import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "counter-1"


def reply(messages):
    said = [message["content"] for message in messages if message["role"] == "user"]
    return f"{len(said)} thing(s) said, {len(str(said[-1]).split())} word(s) in the last one."


def completion(kind, **choice):
    return {
        "id": "c-1",
        "object": kind,
        "created": int(time.time()),
        "model": MODEL,
        "choices": [{"index": 0, **choice}],
    }


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        models = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
        self.answer(200, models) if self.path == "/v1/models" else self.answer(404, {})

    def do_POST(self):
        try:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = reply(asked["messages"])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            return self.answer(400, {"error": {"message": f"bad request: {error!r}", "type": "invalid_request_error"}})
        usage = {"prompt_tokens": 10 * len(asked["messages"]), "completion_tokens": len(text.split())}
        message = {"role": "assistant", "content": text}
        if not asked.get("stream"):
            whole = completion("chat.completion", message=message, finish_reason="stop")
            return self.answer(200, {**whole, "usage": usage})
        last = completion("chat.completion.chunk", delta={}, finish_reason="stop")
        chunks = [completion("chat.completion.chunk", delta={"content": f"{word} "}) for word in text.split()]
        frames = [json.dumps(chunk) for chunk in (*chunks, {**last, "usage": usage})] + ["[DONE]"]
        return self.answer(200, None, "text/event-stream", "".join(f"data: {frame}\n\n" for frame in frames))

    def answer(self, status, body, content_type="application/json", text=""):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.end_headers()
        self.wfile.write((text or json.dumps(body)).encode())


ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
