"""A scripted model server: speaks OpenAI's API over real HTTP/1.1, and checks its caller as strictly as a provider does.

It plays turns, and which one is said by what the caller really sent: an agent that ignores the output of a tool, or forgets
the conversation, gets 400 instead of the turn it hoped for.

    with ModelServer([
        Turn(calls=(ToolCall("run_command", {"command": "pytest"}),), when=When(user="fix the test")),
        Turn(text="Fixed.", when=When(tool="1 passed")),
    ]) as server:
        OpenAI(base_url=server.base_url, api_key=KEY)

Each turn is played once (`times`), the first that fits. What goes wrong on the way is in its `Faults`. What a caller may
not do is in fakes/model_checks.py; the bytes of an answer are made in fakes/model_frames.py.

As a program: `python -m tests.fakes.models SCENARIO.json [--host H --port N]`, where the file is a list of turns with the
fields of `Turn`; it says its base URL on the first line. Only the standard library is used, so it runs anywhere.
"""

import argparse
import contextlib
import json
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.fakes import model_checks, model_frames
from tests.fakes.model_checks import Refusal, check_headers
from tests.fakes.model_turns import Faults, ToolCall, Turn, When, turns_from_json

__all__ = ["KEY", "MODEL", "Faults", "ModelServer", "Received", "Rules", "ToolCall", "Turn", "When"]

KEY = "sk-provider-0123456789abcdef"
MODEL = "fake-1"
MAX_STALL_S = 600.0


@dataclass(frozen=True, slots=True)
class Rules:
    """How strict the server is, and how large its models are.

    `context_tokens`: a longer request is refused (context_length_exceeded). `needs_usage`: a stream has to ask for
    `stream_options.include_usage`. `alternates`: after a user no user, after an assistant no assistant.
    """

    keys: tuple[str, ...] = (KEY,)
    models: tuple[str, ...] = (MODEL,)
    context_tokens: int = 200_000
    needs_usage: bool = True
    alternates: bool = True


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came; `status` is what it was answered with. Names of `headers` are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    status: int = 200


class ModelServer:
    """Serves from `with` to its end, on a port of its own.

    Attributes:
        base_url: what a client is given, ending in /v1.
        received: every request, in order.
        left: requests whose caller went away before the end of its answer.
        connections: how many were opened.

    With a `certificate` (a file that has it and its key) it speaks TLS.
    """

    def __init__(
        self,
        turns: Sequence[Turn] = (),
        *,
        rules: Rules | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        certificate: str = "",
    ) -> None:
        self.rules = rules or Rules()
        self.received: list[Received] = []
        self.left = self.connections = 0
        self._lock = threading.Lock()
        self._turns = [[turn, turn.times] for turn in turns]
        self._refusals: dict[int, int] = {}
        self._stopping = threading.Event()
        self._server = _Server((host, port), self)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.base_url = f"{'https' if certificate else 'http'}://{host}:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "ModelServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, *turns: Turn) -> None:
        """Play these after the others."""
        with self._lock:
            self._turns += [[turn, turn.times] for turn in turns]

    def clear(self) -> None:
        """Forget the turns and what was asked."""
        with self._lock:
            self._turns.clear()
            self._refusals.clear()
            self.received.clear()

    @property
    def unplayed(self) -> list[Turn]:
        """The turns that nobody asked for."""
        with self._lock:
            return [turn for turn, left in self._turns if left == turn.times]

    def choose(self, request: dict[str, Any]) -> Turn:
        """Take the first turn that fits what was asked.

        Raises:
            Refusal: none does, or the one that does refuses its first callers.
        """
        said = model_checks.said(request)
        with self._lock:
            for number, entry in enumerate(self._turns):
                turn, left = entry
                if not left or not turn.when.fits(said):
                    continue
                refused = self._refusals.get(number, 0)
                if refused < turn.faults.refusals:
                    self._refusals[number] = refused + 1
                    raise turn.faults.refusal()
                entry[1] = left - 1
                return turn
        raise Refusal(400, "no turn of the scenario fits this conversation", code="no_such_turn")

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than the server lives."""
        self._stopping.wait(min(seconds, MAX_STALL_S))

    def note(self, received: Received) -> None:
        """Keep what was asked."""
        with self._lock:
            self.received.append(received)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], models: ModelServer) -> None:
        self.models = models
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers that leave are counted, not logged."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.models.connections += 1

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        return

    def _answer(self) -> None:
        models, body, status = self.server.models, {}, 200
        try:
            body = self._read()
            check_headers(self.headers, models.rules.keys)
            self._route(body)
        except Refusal as refusal:
            status = refusal.status
            self._say(refusal.status, refusal.content(), refusal.fields)
        except OSError:
            status = 499
            models.left += 1
            self.close_connection = True
        finally:
            headers = {name.lower(): value for name, value in self.headers.items()}
            models.note(Received(self.command, self.path, headers, body, status))

    def _read(self) -> dict[str, Any]:
        if self.command == "GET":
            return {}
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            raw = self._read_chunks()
        else:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(raw)
        except ValueError:
            raise Refusal(400, "We could not parse the JSON body of your request.") from None
        if not isinstance(body, dict):
            raise Refusal(400, "The body of your request is not an object.")
        return body

    def _read_chunks(self) -> bytes:
        pieces = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _route(self, body: dict[str, Any]) -> None:
        rules, path = self.server.models.rules, self.path.partition("?")[0]
        if path == "/v1/models" and self.command == "GET":
            models = [{"id": name, "object": "model", "created": 0, "owned_by": "fake"} for name in rules.models]
            self._say(200, {"object": "list", "data": models})
        elif path == "/v1/chat/completions" and self.command == "POST":
            model_checks.check_chat(body, rules)
            self._play(model_frames.chat(body, self.server.models.choose(body)), body)
        elif path == "/v1/responses" and self.command == "POST":
            model_checks.check_responses(body, rules)
            self._play(model_frames.responses(body, self.server.models.choose(body)), body)
        elif path == "/v1/embeddings" and self.command == "POST":
            model_checks.check_embeddings(body, rules)
            self._say(200, model_frames.embeddings(body))
        else:
            raise Refusal(404, f"Invalid URL ({self.command} {path})")

    def _play(self, answer: "model_frames.Answer", body: dict[str, Any]) -> None:
        models, faults = self.server.models, answer.faults
        models.pause(faults.first_token_s)
        if not body.get("stream") or faults.is_unstreamed:
            self._say(200, answer.whole)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("x-request-id", answer.whole["id"])
        self.end_headers()
        for number, frame in enumerate(answer.frames):
            if number == faults.stall_after:
                models.pause(faults.stall_s)
            if number == faults.cut_after:
                self._cut(reset=faults.reset)
                return
            models.pause(faults.pause_s if number else 0)
            for piece in faults.pieces(frame):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def _cut(self, *, reset: bool) -> None:
        """End the connection before the end of the answer: a proper end of the body where nothing else is said."""
        self.close_connection = True
        if not reset:
            self.wfile.write(b"0\r\n\r\n")
            return
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _say(self, status: int, content: dict[str, Any], fields: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(fields or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a file of turns until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.models")
    parser.add_argument("scenario")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", default=KEY)
    given = parser.parse_args(arguments)
    with open(given.scenario, encoding="utf-8") as stream:
        turns = turns_from_json(json.load(stream))
    with ModelServer(turns, rules=Rules(keys=(given.key,)), host=given.host, port=given.port) as server:
        print(server.base_url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
