"""The agent in the test image: echoes requests as JSON, as the fake engine's `echo` does. Only the standard library.

Paths of its own: /exit/N ends with exit code N, /say/WORD and /shout/WORD print to stdout and stderr.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = int(os.environ.get("PORT", "8000"))


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        verb, _, word = self.path.strip("/").partition("/")
        if verb == "exit":
            os._exit(int(word))
        if verb in ("say", "shout"):
            print(word, file=sys.stdout if verb == "say" else sys.stderr, flush=True)
        said = {
            "agent_id": os.environ.get("AGENT_ID", ""),
            "method": self.command,
            "target": self.path,
            "headers": list(self.headers.items()),
            "body": body.decode("utf-8", "replace"),
        }
        text = json.dumps(said).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

    def log_message(self, *args: object) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("", PORT), Echo)
    print("listening", flush=True)
    server.serve_forever()
