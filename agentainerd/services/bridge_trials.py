"""What a check of a container's contract asks, and what it hears: pings, and whole answers with when each piece came.

Nothing here judges. What goes wrong on the way is part of what was heard; nothing is raised.
"""

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gevent.event import Event

from agentainerd.model.agui import TERMINAL
from agentainerd.model.sse import Message
from agentainerd.proxy.target import Target
from agentainerd.services.agent_calls import AgentCall, CallBroken, CallTimedOut

SSE = "text/event-stream"
JSON = "application/json"
PING_S = 1.0
FIRST_PAUSE_S = 0.02  # then twice as long each time
PING_EVERY_S = 0.5
CLOSE_S = 2.0  # for an answer to end after the run's last event
MAX_PINGS = 1000
MAX_BODY_BYTES = 1024 * 1024
MAX_MESSAGES = 20_000
MAX_HEARD_BYTES = 16 * 1024 * 1024
UNKNOWN_HEADER = {"X-Agentainer-Not-Yet-Known": "1"}

Spawn = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Ping:
    """One GET /ping: when it was sent, how long it took (monotonic seconds), what came; `problem`: why nothing good did."""

    at: float
    took_s: float
    status: int = 0
    body: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def is_busy(self) -> bool:
        """Whether it says that something goes on."""
        return self.body.get("status") == "HealthyBusy"


@dataclass(slots=True)
class Heard:
    """One answer. `messages` and `at` are of server-sent events, `body` of anything else; `problem`: how it broke off.

    `closes_by`: set by the last event of a run; `is_left_open`: it was not closed by then.
    """

    status: int = 0
    content_type: str = ""
    messages: list[Message] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    body: bytes = b""
    problem: str = ""
    closes_by: float = 0.0
    is_left_open: bool = False

    @property
    def kind(self) -> str:
        """How it ended, to be held against another answer: its last event's type and code, or its content type."""
        last = decoded(self.messages[-1].data) if self.messages else None
        if not isinstance(last, dict) or not isinstance(last.get("type"), str):
            return self.content_type
        return f"{last['type']} {last.get('code') or ''}".strip()

    @property
    def is_stream(self) -> bool:
        """Whether it is one of server-sent events."""
        return self.content_type == SSE

    @property
    def summary(self) -> str:
        """What was answered, in a few words."""
        if not self.status:
            return self.problem
        told = f": {self.body[:80].decode('utf-8', 'replace').strip()}" if self.status >= 400 and self.body else ""
        return f"{self.status}, {self.content_type or 'no content type'}{told}"


@dataclass(frozen=True, slots=True)
class Trial:
    """One container, and how it is asked.

    Attributes:
        task: the input of each run. wall_s: how long a run may take. pause_s: between two pings that must say the same.
        ping_s: how long a ping may take.
    """

    target: Target
    spawn: Spawn
    task: str
    wall_s: float
    pause_s: float
    ping_s: float = PING_S

    def ping(self) -> Ping:
        """Ask once, for at most `ping_s`."""
        at = time.monotonic()
        heard = self.ask("GET", "/ping", timeout_s=self.ping_s)
        took_s = time.monotonic() - at
        if heard.problem:
            return Ping(at, took_s, heard.status, problem=heard.problem)
        if took_s > self.ping_s:  # it came in pieces, each in time
            return Ping(at, took_s, heard.status, problem=f"it took {took_s:.1f} s")
        body = decoded(heard.body)
        if heard.status != 200 or not isinstance(body, dict):
            problem = f"it answered {heard.summary}" if heard.status != 200 else "its body is no JSON object"
            return Ping(at, took_s, heard.status, problem=problem)
        return Ping(at, took_s, heard.status, body)

    def ask(
        self, method: str, path: str, body: object = None, *, timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> Heard:
        """Send a request whose answer is short, and return it. `body`: JSON, or bytes as they are."""
        return self.hear(method, path, body, timeout_s=timeout_s, headers={"Accept": JSON, **(headers or {})})

    def hear(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        timeout_s: float = 0.0,
        headers: Mapping[str, str] | None = None,
        on_message: Callable[[Message], bool] | None = None,
    ) -> Heard:
        """Send a request and read its answer, at most `timeout_s` long (0: `wall_s`).

        `on_message` is called with each server-sent event; False: read no further, and close the connection.
        """
        end = time.monotonic() + (timeout_s or self.wall_s)
        heard = Heard()
        call = AgentCall(self.target)
        try:
            sent = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
            fields = {
                "Accept": f"{SSE}, {JSON}",
                **({"Content-Type": JSON} if sent is not None else {}),
                **(headers or {}),
            }
            call.send(method, path, sent, fields, timeout_s=_left(end))
            heard.status, heard.content_type = call.status, call.content_type
            if heard.is_stream:
                _listen(call, heard, end, on_message)
            else:
                heard.body = call.body(MAX_BODY_BYTES, _left(end))
        except CallBroken as error:
            heard.problem = error.reason
        finally:
            call.close()
        return heard

    @contextlib.contextmanager
    def pinging(self) -> Any:
        """Ping all the time that the block takes; gives the list of pings."""
        pings: list[Ping] = []
        is_over = Event()
        asking = self.spawn("bridge pings", self._ping_until, pings, is_over)
        try:
            yield pings
        finally:
            is_over.set()
            asking.join()

    def _ping_until(self, pings: list[Ping], is_over: Event) -> None:
        pause_s = FIRST_PAUSE_S
        while not is_over.wait(pause_s) and len(pings) < MAX_PINGS:
            pings.append(self.ping())
            pause_s = min(PING_EVERY_S, pause_s * 2)


def invocation(task: str, run_id: str, session_id: str = "") -> dict[str, Any]:
    """Return the body of POST /invocations: RunAgentInput of AG-UI, and what AgentCore's containers read."""
    return {
        "threadId": session_id or run_id,
        "runId": run_id,
        "messages": [{"id": f"{run_id}-input", "role": "user", "content": task}],
        "state": {},
        "tools": [],
        "context": [],
        "forwardedProps": {"limits": {"steps": None, "wall_s": None, "cost_usd": None}, "model": None, "media": []},
        "prompt": task,
        "input": task,
    }


def shown(value: object) -> str:
    """Return JSON for people, in one line."""
    return f"{json.dumps(value):.120}"


def names(run_id: str, session_id: str = "") -> dict[str, str]:
    """Return the headers that name a run and its session."""
    session_id = session_id or run_id
    return {
        "X-Agentainer-Run-Id": run_id,
        "X-Agentainer-Session-Id": session_id,
        "X-Amzn-Bedrock-AgentCore-Runtime-Session-Id": session_id,
    }


def decoded(data: bytes) -> Any:
    """Return what JSON says, or None."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def is_agui(heard: Heard) -> bool:
    """Return whether an answer looks like AG-UI: server-sent events of which the first has a type in capitals."""
    first = decoded(heard.messages[0].data) if heard.messages else None
    kind = first.get("type") if isinstance(first, dict) else None
    return heard.is_stream and isinstance(kind, str) and kind.isupper()


def _listen(call: AgentCall, heard: Heard, end: float, on_message: Callable[[Message], bool] | None) -> None:
    """Read the events; once the last one has come, only CLOSE_S longer, so that a connection that stays open is seen."""
    size = 0
    try:
        for message in call.messages(lambda: _left(heard.closes_by or end)):
            heard.messages.append(message)
            heard.at.append(time.monotonic())
            size += len(message.data)
            if len(heard.messages) >= MAX_MESSAGES or size >= MAX_HEARD_BYTES:
                heard.problem = f"more came than is looked at ({len(heard.messages)} events, {size} bytes)"
                return
            if b"RUN_" in message.data and heard.kind.split(" ")[0] in TERMINAL:
                heard.closes_by = min(end, time.monotonic() + CLOSE_S)
            if on_message is not None and not on_message(message):
                return
    except CallTimedOut:
        if not heard.closes_by:
            raise
        heard.is_left_open = True


def _left(end: float) -> float:
    return max(0.001, end - time.monotonic())
