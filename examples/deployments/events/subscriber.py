"""Listens to events:* and keeps what it heard under its own name, the last 100; GET /events shows it.

It is healthy while it listens: one that lost Redis gets no requests, and comes back by itself.
"""

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from redis_client import Redis

LIST = f"{os.environ['AGENT_NAME']}:heard:{os.environ['AGENT_REPLICA']}"
listening = threading.Event()


def listen():
    """Follow the events, also after Redis was away."""
    while True:
        try:
            keeper = Redis()
            for channel, message in Redis().subscribed("events:*"):
                listening.set()
                if channel:
                    keeper.call("LPUSH", LIST, json.dumps({"channel": channel, "data": json.loads(message)}))
                    keeper.call("LTRIM", LIST, "0", "99")
        except OSError as error:
            listening.clear()
            print(f"lost Redis: {error}", flush=True)
            time.sleep(1)


class Subscriber(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/health":
            self.answer(200 if listening.is_set() else 503, {"listening": listening.is_set()})
            return
        redis = Redis()
        try:
            heard = [json.loads(entry) for entry in redis.call("LRANGE", LIST, "0", "-1")]
        finally:
            redis.close()
        self.answer(200, {"replica": os.environ.get("AGENT_REPLICA", "1"), "events": heard[::-1]})

    def answer(self, status, content):
        text = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


threading.Thread(target=listen, daemon=True).start()
ThreadingHTTPServer(("", 8000), Subscriber).serve_forever()
