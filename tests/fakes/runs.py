"""An agent that speaks AG-UI from inside a container of the fake engine, byte by byte as a test wants it."""

import json
from contextlib import suppress

import msgspec
from gevent.event import Event

from agentainerd.model.runs import RunRequest
from tests.fakes.world import ADMIN

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
TEXT = [
    {"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"},
    {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "hello "},
    {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "world"},
    {"type": "TEXT_MESSAGE_END", "messageId": "m"},
]
USAGE = {"usage": {"input_tokens": 7, "output_tokens": 2, "cost_usd": 0.5, "cost_source": "provider"}, "steps": 1}


def frame(event: dict, number: int = 0) -> bytes:
    return b"data: " + json.dumps(event).encode() + (b"\nid: %d" % number if number else b"") + b"\n\n"


class AguiAgent:
    """A container that speaks AG-UI. `script(agent, connection, body)` says what it does with a run, after the head of its answer.

    `inputs` has the RunAgentInput of each run it was given; `cancelled` the ids of those it was told to end, `forgotten` those of
    conversations; `events` what it has
    sent of each run, for who joins it again.
    """

    def __init__(self, script=None, *, bridge: str = "agui") -> None:
        self.script = script or (lambda agent, connection, body: agent.play(connection, body, TEXT))
        self.bridge = bridge
        self.inputs: list[dict] = []
        self.cancelled: list[str] = []
        self.events: dict[str, list[dict]] = {}
        self.joined: list[str] = []
        self.forgotten: list[str] = []
        self.cancel_seen = Event()
        self.ends_on_cancel = True
        self.is_busy = False

    def handle(self, connection, run) -> None:
        head = connection.recv_until(b"\r\n\r\n").decode()
        if not head:
            return  # whoever only asked whether it listens
        method, path, _ = head.split(" ", 2)
        length = next(
            (int(line.split(":")[1]) for line in head.lower().split("\r\n") if line.startswith("content-length:")), 0
        )
        body = connection.recv_exactly(length)
        if path == "/ping":
            self.answer(
                connection,
                {
                    "status": "HealthyBusy" if self.is_busy else "Healthy",
                    **({"bridge": "native"} if self.bridge == "native" else {}),
                },
            )
        elif path == "/invocations":
            self.inputs.append(json.loads(body))
            connection.sendall(SSE)
            self.script(self, connection, self.inputs[-1])
        elif path.endswith("/cancel"):
            self.cancelled.append(path.split("/")[2])
            self.answer(connection, {}, b"202 Accepted")
            if self.ends_on_cancel:
                self.cancel_seen.set()
        elif method == "DELETE":
            self.forgotten.append(path.split("/")[2])
            self.answer(connection, {})
        elif "/events?after=" in path:
            self.join(connection, path)
        else:
            self.answer(connection, {}, b"404 Not Found")
        connection.close()

    def answer(self, connection, body: dict, status: bytes = b"200 OK") -> None:
        data = json.dumps(body).encode()
        connection.sendall(
            b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(data), data)
        )

    def join(self, connection, path: str) -> None:
        self.joined.append(path)
        run_id, after = path.split("/")[2], int(path.rpartition("=")[2])
        if run_id not in self.events:
            self.answer(connection, {}, b"404 Not Found")
            return
        connection.sendall(SSE)
        for number, event in enumerate(self.events[run_id], 1):
            if number > after:
                connection.sendall(frame(event, number))

    def send(self, connection, run_id: str, event: dict) -> None:
        sent = self.events.setdefault(run_id, [])
        sent.append(event)
        connection.sendall(frame(event, len(sent) if self.bridge == "native" else 0))

    def begin(self, connection, body: dict, events=()) -> None:
        started = {"type": "RUN_STARTED", "threadId": body["threadId"], "runId": body["runId"]}
        for event in (started, *events):
            self.send(connection, body["runId"], event)

    def play(self, connection, body: dict, events, **last) -> None:
        self.begin(connection, body, events)
        done = {"type": "RUN_FINISHED", "threadId": body["threadId"], "runId": body["runId"], "result": USAGE}
        self.send(connection, body["runId"], last or done)


def waiting(made, connection, body):
    """Work until told to end."""
    made.begin(connection, body, TEXT[:2])
    made.cancel_seen.wait(10)
    with suppress(OSError):
        made.send(connection, body["runId"], {"type": "RUN_ERROR", "message": "as you wish", "code": "cancelled"})


def ask(runs, text: str = "say hello", *, key: str = "", agent_id: str = "web", **fields):
    return runs.create(RunRequest(agent_id=agent_id, input=text, **fields), ADMIN, key=key)


def told(runs, run_id: str, after: int = 0) -> list[dict]:
    return [msgspec.json.decode(event.payload) for event in runs.follow(run_id, after) if event is not None]


def types(runs, run_id: str) -> list[str]:
    return [event["type"] for event in told(runs, run_id)]


def finish(runs, run_id: str):
    run = runs.wait(run_id, 10)
    assert run.status.is_final, run
    return run


def reached(runs, run_id: str, seq: int) -> None:
    next(event for event in runs.follow(run_id) if event and event.seq >= seq)


def asks(interrupts, before=(), after=()):
    """Do something, ask for `interrupts`, and with the answers go on with `after`."""

    def script(made, connection, body):
        outcome = {"type": "interrupt", "interrupts": list(interrupts)}
        names = {"threadId": body["threadId"], "runId": body["runId"]}
        if body.get("resume"):
            made.play(connection, body, after)
        else:
            made.play(connection, body, before, type="RUN_FINISHED", **names, outcome=outcome, result=USAGE)

    return script
