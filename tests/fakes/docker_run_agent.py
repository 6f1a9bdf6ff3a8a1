"""An agent of the native tier, in the standard library, for real containers: counts aloud, one event each `pause` seconds.

The input says how far, and what goes wrong: "40", "40 pause=0.05", "40 then=oom"; with "until=enough" it ends well, however far it
is, when somebody asks for `/enough`. Events are in a file per run, which a restart
of the container finds again; `/starts` says how often each run was begun.
"""

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FOLDER = "/var/runs"  # a restarted container has it still
cancelled: set[str] = set()
enough = threading.Event()


class Log:
    """The events of one run, one JSON text a line."""

    def __init__(self, run_id: str) -> None:
        self.path = f"{FOLDER}/{run_id}"

    def lines(self) -> list[str]:
        try:
            with open(self.path) as file:
                return [line for line in file.read().splitlines(keepends=True) if line.endswith("\n")]
        except FileNotFoundError:
            return []

    def add(self, event: dict) -> None:
        with open(self.path, "a") as file:
            file.write(json.dumps(event) + "\n")

    @property
    def is_over(self) -> bool:
        lines = self.lines()
        return bool(lines) and json.loads(lines[-1])["type"] in ("RUN_FINISHED", "RUN_ERROR")


def work(asked: dict) -> None:
    log, names = Log(asked["runId"]), {"threadId": asked["threadId"], "runId": asked["runId"]}
    words = asked["prompt"].split()
    options = dict(word.split("=") for word in words[1:])
    log.add({"type": "RUN_STARTED", **names})
    for number in range(int(words[0])):
        if asked["runId"] in cancelled:
            log.add({"type": "RUN_ERROR", "message": "it was cancelled", "code": "cancelled"})
            return
        if options.get("until") == "enough" and enough.is_set():
            break
        log.add({"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": f"{number} "})
        time.sleep(float(options.get("pause", "0.05")))
    if options.get("then") == "oom":
        hold = []
        while True:
            hold.append(bytearray(os.urandom(1024)) * 1024)
    usage = {"input_tokens": 40, "output_tokens": 2}
    log.add({"type": "RUN_FINISHED", **names, "result": {"usage": usage}})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/ping":
            self.answer({"status": "Healthy", "bridge": os.environ.get("TIER", "native")})
        elif path == "/enough":
            enough.set()
            self.answer({})
        elif path == "/starts":
            self.answer({name: starts(name) for name in os.listdir(FOLDER) if not name.endswith(".starts")})
        elif path.endswith("/events") and Log(path.split("/")[2]).lines():
            self.stream(path.split("/")[2], int(query.partition("=")[2]))
        else:
            self.answer({}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path.endswith("/cancel"):
            cancelled.add(self.path.split("/")[2])
            self.answer({}, 202)
            return
        asked = json.loads(body)
        with open(f"{FOLDER}/{asked['runId']}.starts", "a") as file:
            file.write("x")
        if not Log(asked["runId"]).lines():
            threading.Thread(target=work, args=(asked,), daemon=True).start()
        self.stream(asked["runId"], 0)

    def answer(self, body: dict, status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, run_id: str, after: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        log = Log(run_id)
        while True:
            is_over = log.is_over
            for number, line in enumerate(log.lines(), 1):
                if number > after:
                    after = number
                    self.wfile.write(b"data: %b\nid: %d\n\n" % (line.strip().encode(), number))
            if is_over:
                self.close_connection = True
                return
            time.sleep(0.01)

    def log_message(self, format: str, *args: object) -> None:
        pass


def starts(run_id: str) -> int:
    try:
        return os.path.getsize(f"{FOLDER}/{run_id}.starts")
    except FileNotFoundError:
        return 0


def main() -> None:
    os.makedirs(FOLDER, exist_ok=True)
    for name in os.listdir(FOLDER):
        log = Log(name)
        if not name.endswith(".starts") and not log.is_over:
            log.add({"type": "RUN_ERROR", "message": "the container was restarted", "code": "interrupted"})
    sys.stderr.write("ready\n")
    ThreadingHTTPServer(("", 8000), Handler).serve_forever()


main()
