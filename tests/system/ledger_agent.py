"""The agent of the crash tests: writes each request to a ledger outside the container before it answers. Standard library only.

FIRST_S=5 FIRST=reset|503|deaf    behave so for the first seconds of each run: reset every connection, answer 503, never read
CRASH_EVERY=10                    die on every tenth request, after it is in the ledger and before it is answered
/health    503 while there is a file sick-<replica> beside the ledger; nothing of it is in there
While there is a file stuck-<replica>, nothing is answered at all.
/stream    an answer in five pieces      /die    die before the answer      /oom    take all memory there is
"""

import itertools
import os
import socket
import struct
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

LEDGER = os.open("/ledger/ledger.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
STARTED = time.monotonic()
FIRST_S = float(os.environ.get("FIRST_S", "0"))
FIRST = os.environ.get("FIRST", "")
REPLICA = os.environ.get("AGENT_REPLICA", "")
CRASH_EVERY = int(os.environ.get("CRASH_EVERY", "0"))
requests = itertools.count(1)


def is_first(what):
    return what == FIRST and time.monotonic() - STARTED < FIRST_S


class Agent(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # an answer goes out whole or not at all: to die in the middle of one is another row of the table

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        while os.path.exists(f"/ledger/stuck-{REPLICA}"):
            time.sleep(0.1)
        if self.path == "/health":
            self.send_response(503 if os.path.exists(f"/ledger/sick-{REPLICA}") else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if is_first("503"):
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        words = [
            self.headers.get(name) or "-"
            for name in ("X-Test-Id", "X-Agentainer-Request-ID", "X-Agentainer-Attempt", "X-Agentainer-Maybe-Duplicate")
        ]
        os.write(LEDGER, (" ".join(words) + "\n").encode())
        path = urlsplit(self.path)
        if path.path == "/die" or (CRASH_EVERY and next(requests) % CRASH_EVERY == 0):
            os._exit(1)
        if path.path == "/oom":
            hog = [b"x" * 1024 * 1024 for _ in range(100_000)]
            os._exit(len(hog))
        time.sleep(float(parse_qs(path.query).get("s", ["0"])[0]))
        text = words[0].encode()
        self.send_response(200)
        if path.path == "/stream":
            self.stream(text)
            return
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def stream(self, text):
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        size = max(len(text) // 5, 1)
        for at in range(0, len(text), size):
            piece = text[at : at + size]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.flush()
            time.sleep(0.02)
        self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024

    def get_request(self):
        while is_first("deaf"):
            time.sleep(0.05)  # the kernel accepts for us, and nobody reads
        connection, address = super().get_request()
        if is_first("reset"):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            raise OSError("reset")
        return connection, address


if __name__ == "__main__":
    Server(("", 8000), Agent).serve_forever()
    sys.exit(1)
