"""POST /publish {"type": "order", "data": ...} tells it to all who listen to events:order; the answer says how many did."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from redis_client import Redis


class Publisher(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        redis = Redis()
        try:
            listeners = redis.call("PUBLISH", f"events:{event['type']}", json.dumps(event.get("data")))
        finally:
            redis.close()
        self.answer({"listeners": listeners})

    def do_GET(self):
        self.answer({"status": "ok"})

    def answer(self, content):
        text = json.dumps(content).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


ThreadingHTTPServer(("", 8000), Publisher).serve_forever()
