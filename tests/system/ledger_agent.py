"""The agent of the crash tests: writes each request to a ledger outside the container before it answers. Standard library only."""

import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

LEDGER = os.open("/ledger/ledger.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)


class Agent(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        words = [
            self.headers.get(name) or "-"
            for name in ("X-Test-Id", "X-Agentainer-Request-ID", "X-Agentainer-Attempt", "X-Agentainer-Maybe-Duplicate")
        ]
        os.write(LEDGER, (" ".join(words) + "\n").encode())
        time.sleep(float(parse_qs(urlsplit(self.path).query).get("s", ["0"])[0]))
        text = words[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024


if __name__ == "__main__":
    Server(("", 8000), Agent).serve_forever()
    sys.exit(1)
