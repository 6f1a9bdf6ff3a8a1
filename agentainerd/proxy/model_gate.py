"""What the data plane asks about a call to a model, and what it tells when that ended. It knows no keys, prices or budgets:
services/models.py does, and gives the route table's `ModelGate` the two functions.
"""

import json
from collections.abc import Callable

from agentainerd.proxy.target import Target


class ModelAsk:
    """A call as it came. `path`: what follows /llm/v1; `token`, `run_id`, `session_id`: as they were sent, "" without; `peer`:
    the address that it came from.
    """

    __slots__ = ("body", "method", "path", "peer", "run_id", "session_id", "token")

    def __init__(
        self, method: str, path: str, body: bytes, *, peer: str, token: str, run_id: str, session_id: str
    ) -> None:
        self.method = method
        self.path = path
        self.body = body
        self.peer = peer
        self.token = token
        self.run_id = run_id
        self.session_id = session_id


class ModelReply:
    """An answer of the gateway's own, in JSON; `fields` are further header lines, CRLF-ended."""

    __slots__ = ("body", "fields", "status")

    def __init__(self, status: int, body: bytes, fields: bytes = b"") -> None:
        self.status = status
        self.body = body
        self.fields = fields


def refusal(
    status: int, message: str, code: str, *, kind: str = "invalid_request_error", retry_after_s: int = 0
) -> ModelReply:
    """Return an error in OpenAI's form, which every client of that API understands."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    fields = b"Retry-After: %d\r\n" % retry_after_s if retry_after_s else b""
    return ModelReply(status, json.dumps({"error": error}).encode() + b"\n", fields)


class ModelWay:
    """One way to have a call answered: whom to ask, and what exactly (`head`, whole but for its end, and `body`).

    `name`: provider/model. `hides_usage`: the caller did not ask for the event that says what a stream has used, and does not
    get it.
    """

    __slots__ = ("body", "head", "hides_usage", "name", "target")

    def __init__(self, name: str, target: Target, head: bytes, body: bytes, *, hides_usage: bool) -> None:
        self.name = name
        self.target = target
        self.head = head
        self.body = body
        self.hides_usage = hides_usage


class ModelPlay:
    """An answer that was recorded: `pieces` of its body. `hides_usage`: as of a ModelWay."""

    __slots__ = ("content_type", "hides_usage", "name", "pieces", "status")

    def __init__(self, name: str, status: int, content_type: str, pieces: list[bytes], *, hides_usage: bool) -> None:
        self.name = name
        self.status = status
        self.content_type = content_type
        self.pieces = pieces
        self.hides_usage = hides_usage


class ModelCall:
    """A call that may be made: the ways to have it answered, the first choice first, and how that went.

    Attributes:
        ways: what was not tried yet.
        ticket: of whoever let it pass; nothing to the data plane.
        play: what is played instead, where exchanges were recorded.
        tape: where the pieces of the answer are kept as they come, each with when (monotonic seconds); None: nowhere.
        content_type: of the answer.
        model: provider/model that is asked, or was last; "" for none.
        status: of its answer; 0: there was none.
        usage: the last that the provider said about tokens: JSON that begins with an object; b"" for nothing.
        events: of a stream, how many came.
        is_whole: the caller got all of it; else `reason` says why not.
    """

    __slots__ = (
        "content_type", "events", "is_whole", "model", "play", "reason", "status", "tape", "ticket", "usage", "ways",
    )  # fmt: skip

    def __init__(self, ways: list[ModelWay], ticket: object = None) -> None:
        self.ways = ways
        self.ticket = ticket
        self.play: ModelPlay | None = None
        self.tape: list[tuple[float, bytes]] | None = None
        self.content_type = ""
        self.model = ""
        self.status = 0
        self.usage = b""
        self.events = 0
        self.is_whole = False
        self.reason = ""


def _nobody(ask: ModelAsk) -> ModelReply:
    return refusal(503, "no models are served here", "no_models", kind="server_error")


class ModelGate:
    """`on_ask` says what becomes of a call, and may block its greenlet. `on_end` must not block: it gets each call that `on_ask`
    let pass, once, when it is over.
    """

    def __init__(self) -> None:
        self.on_ask: Callable[[ModelAsk], ModelCall | ModelReply] = _nobody
        self.on_end: Callable[[ModelCall], None] = lambda call: None
