"""One request to one agent: from its head, over the agent, to its record. The table of docs/requests.md is this module.

The order of things on the way of an ordinary request: the record begins its way to disk, the request goes to the agent,
the agent's head comes back, the record is waited for (it is there long since), the answer passes through, the record
is settled with the next batch.
"""

import hashlib
import hmac
import random
import re
import time
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING

from agentainerd import defaults
from agentainerd.errors import AgentainerError, TooManyRequests, Unavailable
from agentainerd.model.requests import (
    IdempotencyKey,
    Outcome,
    Reason,
    Record,
    ReplayPolicy,
    RequestState,
    StoredResponse,
)
from agentainerd.proxy import replies, upstream
from agentainerd.proxy.body import Body
from agentainerd.proxy.http1 import Fault, Request, drop_fields
from agentainerd.proxy.journal import Journal, KeyVerdict, NullJournal, SpoolWriter, Write
from agentainerd.proxy.response import Answer
from agentainerd.proxy.routing import Gate, Route
from agentainerd.proxy.target import Target
from agentainerd.proxy.watch import Cause

if TYPE_CHECKING:
    from agentainerd.proxy.server import Connection, DataPlane

_KEY = re.compile(rb'"?([\x20-\x7e]{1,255}?)"?')
_WAIT = re.compile(rb"(?:^|,)\s*wait\s*=\s*\"?([0-9]{1,6})")
_OPEN_METHODS = frozenset((b"POST", b"PUT", b"PATCH"))
_NULL = NullJournal()
MAX_OWN_VIAS = 5


class Result(Enum):
    """How one attempt at an agent ended."""

    ANSWERED = 1
    UNREACHED = 2  # not one byte was written to a connected agent
    SILENT = 3  # reached, and no answer: the connection ended, or the time
    STALE = 7  # as SILENT, on a pooled connection, of a request that may be sent again
    GARBAGE = 4  # reached, and what came back can't be passed on
    BROKEN = 5  # the answer broke off
    LEFT = 6  # the client is gone


def new_id() -> str:
    """Return a random UUID as text (version 4, RFC 9562): what `uuid.uuid4` does, at a third of its price."""
    text = f"{random.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


class Exchange:
    """One request of one client to one agent."""

    __slots__ = (
        "_answer_begun", "_answer_bytes", "_body", "_connection", "_journal", "_plane", "_prefix", "_record", "_request",
        "_route", "_started", "_stored", "_write", "id",
    )  # fmt: skip

    def __init__(
        self,
        plane: "DataPlane",
        connection: "Connection",
        request: Request,
        route: Route,
        *,
        path: bytes,
        prefix: bytes,
    ) -> None:
        self.id = new_id()
        self._plane = plane
        self._connection = connection
        self._request = request
        self._route = route
        self._prefix = prefix
        self._journal: Journal = plane.journal if route.persistence else _NULL
        self._started = now = time.time()
        self._body = Body(request, connection.read_more, self._spool if route.persistence else None)
        self._write: Write | None = None
        self._stored: list[bytes] | None = None
        self._answer_bytes = 0
        self._answer_begun = False
        if route.token_digest:
            drop_fields(request.lines, (b"authorization",))
        self._record = Record(
            self.id,
            route.agent_id,
            head=upstream.request_head(request, path, prefix=prefix, connection=connection, request_id=self.id),
            method=request.method,
            target=request.target,
            received_at=now,
            expires_at=now + plane.options.max_age_s,
            client=connection.peer,
            policy=route.policy,
            max_pending=route.max_pending,
            max_pending_bytes=route.max_pending_bytes,
        )

    # ---- the way of a request

    def run(self) -> None:
        """Answer the request, whatever happens to the agent.

        Raises:
            OSError, Fault: the client went away, or sent what is no request; nothing more can be said to it.
        """
        refusal = self.refusal()
        if refusal:
            self.say(refusal, fields=b"WWW-Authenticate: Bearer\r\n" if refusal.status == 401 else b"")
            return
        request, route = self._request, self._route
        prefers = request.prefer.lower() if request.prefer else b""
        if request.key is not None and route.persistence:
            self._run_keyed(prefers)
            return
        if b"respond-async" in prefers and self._can_queue:
            self._queue(fields=b"Preference-Applied: respond-async\r\n")
            return
        if self._pass_gate(prefers):
            self._forward()
        else:
            self._queue()

    def refusal(self) -> replies.Reply | None:
        """Return why this request may not go to this agent at all, or None."""
        request, route = self._request, self._route
        if request.own_vias >= MAX_OWN_VIAS:
            return replies.LOOP
        if request.authorization is None:
            return replies.TOKEN_MISSING if route.token_digest else None
        given = request.authorization
        if given[:7].lower() == b"bearer ":
            given = given[7:].strip()
        digest = hashlib.sha256(given).digest()
        if digest in self._plane.routes.control_token_digests:
            self._plane.routes.on_control_token(self._connection.peer, route.name)
            return replies.CONTROL_TOKEN
        if route.token_digest and not hmac.compare_digest(digest, route.token_digest):
            return replies.TOKEN_MISSING
        return None

    @property
    def head(self) -> bytes:
        """The head that the agent gets, without framing and empty line."""
        return self._record.head

    @property
    def _can_queue(self) -> bool:
        return self._route.persistence and self._route.policy is not ReplayPolicy.NEVER

    def _pass_gate(self, prefers: bytes) -> bool:
        """Wait for the agent as long as is right; return whether it is ready."""
        route = self._route
        if route.gate is Gate.OPEN:
            return True
        hold_s, even_closed = route.hold_timeout_s, False
        wait = _WAIT.search(prefers)
        if wait:
            hold_s, even_closed = min(float(wait.group(1)), defaults.MAX_HOLD_S), True
        gate = route.wait_open(hold_s, even_closed=even_closed)
        if self._connection.watched.has_left():
            raise ConnectionResetError("the client left while its request was held")
        return gate is Gate.OPEN

    def _forward(self) -> None:
        """Send it to the agent; at most twice."""
        if self._plane.options.reject_without_journal and self._route.persistence and not self._journal.available:
            self.say(replies.JOURNAL_DOWN)
            return
        self._begin()
        again = False
        while True:
            target = self._route.pick()
            result = self._attempt(target, again=again) if target else Result.UNREACHED
            if result in (Result.ANSWERED, Result.BROKEN, Result.LEFT):
                return
            if result is Result.GARBAGE:
                self._fail(replies.BAD_ANSWER)
                return
            if target is None or result is Result.UNREACHED:
                if target is not None:
                    self._plane.routes.on_suspect(self._route, target)
                self._queue()
                return
            if result is Result.SILENT and not self._survives_silence(target):
                return
            if again or self._record.maybe_duplicate or not self._body.kept or self._route.gate is not Gate.OPEN:
                self._record.maybe_duplicate = True
                self._queue()
                return
            again = True

    def _survives_silence(self, target: Target) -> bool:
        """Decide on a request that reached the agent and got no answer: True to send it again, else it is answered.

        Marks the record where the agent died, so that it is queued at once.
        """
        record, policy = self._record, self._route.policy
        watched = self._connection.watched
        timed_out = watched.cause is Cause.TIMEOUT
        watched.cause = Cause.NONE
        if not timed_out and self._plane.routes.on_dead_check(self._route, target):
            record.maybe_duplicate = record.is_repeatable or policy is not ReplayPolicy.SAFE
            if not record.maybe_duplicate:
                self._fail(replies.DIED)
            return record.maybe_duplicate
        if record.is_repeatable or policy is ReplayPolicy.AT_LEAST_ONCE:
            return True
        self._fail(replies.TIMED_OUT if timed_out else replies.NO_ANSWER)
        return False

    # ---- the record

    def _spool(self) -> SpoolWriter:
        return self._journal.spool(self.id)

    def _begin(self) -> None:
        """Start the record of a live request. What is not here whole yet is recorded without its body."""
        record, body, request = self._record, self._body, self._request
        if record.durable_live:
            return
        if request.done and sum(map(len, request.pieces)) <= defaults.MAX_INLINE_BODY_BYTES:
            body.take()
            record.body = body.inline
            record.body_bytes = body.size
        else:
            record.body_bytes = -1
        if self._route.policy is ReplayPolicy.AT_LEAST_ONCE and self._route.persistence:
            self._reserve()
        else:
            self._write = self._journal.begin(record)

    def _reserve(self) -> None:
        """Record it whole before the agent sees any of it; where that can't be, go on as with the policy auto."""
        record = self._record
        try:
            if self._collect():
                record.durable_live = True
                self._journal.reserve(record)
                return
        except Unavailable:
            record.durable_live = False
        self._write = self._journal.begin(record)

    def _collect(self) -> bool:
        """Read the body to its end and put it into the record; False where it is too large, or there was no room."""
        self._continue()
        if not self._body.collect():
            return False
        record = self._record
        record.spool = self._body.seal()
        record.body = self._body.inline
        record.body_bytes = self._body.size
        return True

    def _continue(self) -> None:
        """Tell a client that waits for it to send its body (RFC 9110 10.1.1)."""
        if self._request.expects_continue and not self._request.done:
            self._request.expects_continue = False
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _settle(self, state: RequestState, reason: Reason, *, status: int = 0, error: str = "") -> None:
        response = None
        if self._stored is not None and state is RequestState.COMPLETED:
            head, body = self._stored[0], b"".join(self._stored[1:])
            truncated = self._answer_bytes != len(body)
            response = StoredResponse(status, head, b"" if truncated else body, truncated)
        self._journal.settle(
            self._record,
            Outcome(state, reason, status, self._answer_bytes, time.time() - self._started, error, response),
        )
        if state is RequestState.COMPLETED or not self._record.spool:
            self._body.discard()

    def _fail(self, reply: replies.Reply) -> None:
        self._settle(RequestState.FAILED, Reason.OUTCOME_UNKNOWN, error=reply.message)
        self.say(reply)

    # ---- queueing

    def _queue(self, *, fields: bytes = b"") -> None:
        """Accept the request for later: 202 once it is durable, and only then."""
        request, record = self._request, self._record
        begun = self._write is not None or record.durable_live
        refusal = self._unqueueable()
        if refusal is None:
            try:
                if not self._collect():
                    refusal = self._unkept()
                else:
                    self._journal.accept(record)
            except TooManyRequests as error:
                refusal = replies.refused(429, error.code, error.message, error.retry_after_s or 1)
            except Unavailable as error:
                refusal = replies.refused(503, error.code, error.message, error.retry_after_s or 2)
        if refusal is not None:
            if begun:
                self._settle(RequestState.FAILED, Reason.INTERRUPTED, error=refusal.message)
            else:
                self._body.discard()
            self.say(refusal)
            return
        self._connection.write(self._accepted(fields, close=not self._connection.can_go_on(request)))

    def _unqueueable(self) -> replies.Reply | None:
        request = self._request
        if not self._can_queue:
            return replies.NOT_RUNNING
        if request.accepts_events:
            return replies.CANNOT_QUEUE
        if request.length > defaults.MAX_REPLAY_BODY_BYTES:
            return replies.TOO_LARGE_TO_QUEUE
        return None

    def _unkept(self) -> replies.Reply:
        lost = self._body.lost
        if lost is not None:
            return replies.refused(503, lost.code, lost.message, 5)
        if self._body.size > defaults.MAX_REPLAY_BODY_BYTES:
            return replies.TOO_LARGE_TO_QUEUE
        return replies.BODY_TOO_LARGE_TO_KEEP

    def _accepted(self, fields: bytes, *, close: bool) -> bytes:
        content: dict[str, object] = {
            "success": True,
            "message": "Agent is not running. Request queued for replay when agent starts.",
            "data": {"request_id": self._record.id, "status": "pending"},
        }
        if self._route.gate is Gate.OPEN:
            content["message"] = "Request queued; it is delivered to the agent in its turn."
        location = f"/requests/{self._record.id}?t={self._plane.ticket(self._record.id)}"
        fields += b"Location: %b\r\nRetry-After: 2\r\n" % location.encode()
        return replies.message(
            202, content, self._record.id, fields=fields, close=close, head_only=self._request.method == b"HEAD"
        )

    # ---- idempotency keys

    def _run_keyed(self, prefers: bytes) -> None:
        """A request with an Idempotency-Key: recorded whole first, and run once."""
        match = _KEY.fullmatch(self._request.key or b"")
        if not match:
            self.say(replies.KEY_INVALID)
            return
        record = self._record
        try:
            if not self._collect():
                self.say(self._unkept() if self._body.lost else replies.KEY_BODY_TOO_LARGE)
                return
            record.key = self._key(match.group(1))
            record.durable_live = True
            known = self._journal.reserve(record)
        except Unavailable as error:
            self._body.discard()
            self.say(replies.refused(503, error.code, error.message, error.retry_after_s or 2))
            return
        if known.verdict is not KeyVerdict.NEW:
            self._body.discard()
            self._say_known(known.verdict, known.request_id, known.response)
            return
        self._stored = []
        if b"respond-async" in prefers and self._can_queue:
            self._queue(fields=b"Preference-Applied: respond-async\r\n")
        elif self._pass_gate(prefers):
            self._forward()
        else:
            self._queue()

    def _key(self, key: bytes) -> IdempotencyKey:
        fingerprint = hashlib.sha256(b"%b %b\n" % (self._record.method, self._record.target))
        for piece in self._body.again():
            fingerprint.update(piece)
        scope = hashlib.sha256(self._route.agent_id.encode() + b"\0" + key)
        return IdempotencyKey(scope.hexdigest(), fingerprint.hexdigest())

    def _say_known(self, verdict: KeyVerdict, request_id: str, response: StoredResponse | None) -> None:
        if verdict is KeyVerdict.PENDING:
            self._record.id = request_id
            self._connection.write(self._accepted(b"", close=not self._connection.can_go_on(self._request)))
        elif verdict is KeyVerdict.DONE and response is not None and not response.truncated:
            fields = b"Idempotent-Replayed: true\r\nX-Agentainer-Request-ID: %b\r\n" % request_id.encode()
            head = b"%bContent-Length: %d\r\n%b\r\n" % (response.head, len(response.body), fields)
            self._connection.write(head + (b"" if self._request.method == b"HEAD" else response.body))
        else:
            table = {
                KeyVerdict.MISMATCH: replies.KEY_MISMATCH,
                KeyVerdict.IN_FLIGHT: replies.KEY_IN_FLIGHT,
                KeyVerdict.FAILED: replies.KEY_FAILED,
            }
            self.say(table.get(verdict, replies.KEY_NOT_STORED))

    # ---- one attempt

    def _attempt(self, target: Target, *, again: bool) -> Result:
        call = upstream.Call(
            target, self._connection.watched, self._plane.sweeper, timeout_s=self._route.request_timeout_s
        )
        target.in_flight += 1
        try:
            try:
                call.open(fresh=again, repeatable=self._record.is_repeatable)
            except OSError:
                return Result.UNREACHED
            result = self._converse(call)
            if result is Result.SILENT and call.reused and self._record.is_repeatable and self._connection.is_up:
                return Result.STALE
            return result
        finally:
            target.in_flight -= 1
            call.close()

    def _converse(self, call: upstream.Call) -> Result:
        watched = self._connection.watched
        answer = Answer(head_only=self._request.method == b"HEAD")
        try:
            if not self._send(call):
                return self._left(call) if call.client_error else Result.UNREACHED
            call.read_head(answer, self._pass_interim)
        except (upstream.Silent, OSError):
            if watched.cause in (Cause.CLIENT_LEFT, Cause.STOPPED, Cause.STALLED) or call.client_error:
                return self._left(call)
            return Result.SILENT
        except Fault:
            return Result.GARBAGE
        return self._pass(call, answer)

    def _send(self, call: upstream.Call) -> bool:
        """Send head and body; False: nothing reached the agent. What is not here whole is pumped beside the answer."""
        record, request, body = self._record, self._request, self._body
        if body.done and body.kept and body.size <= defaults.MAX_INLINE_BODY_BYTES:
            return call.send(record.head, body.inline, length=self._length())
        self._continue()
        pieces = _chain(body.again(), body.pieces()) if body.kept else body.pieces()
        length = body.size if body.done else request.length
        try:
            call.pump(self._plane.pumps, record.head, pieces, length=length)
        except OSError:
            return False
        return True

    def _length(self) -> int:
        """Content-Length for the agent of a body that is here whole; -1: none."""
        size = self._body.size
        return size if size or self._request.length == 0 or self._request.method in _OPEN_METHODS else -1

    def _pass_interim(self, head: bytes) -> None:
        if self._request.minor == 1:
            self._connection.write(head)

    def _pass(self, call: upstream.Call, answer: Answer) -> Result:
        """Pass the answer on: nothing of it before the record is durable."""
        missed = self._wait_for_record()
        self._answer_begun = True
        request, connection = self._request, self._connection
        keep = connection.can_go_on(request)
        head, framing = upstream.answer_head(
            answer, request, request_id=self.id, prefix=self._prefix, keep=keep, missed=missed
        )
        if self._stored is not None:
            self._stored.append(upstream.stored_head(answer))
        try:
            if answer.done:
                data, body = call.whole(answer, head, framing)
                self._note(body)
                connection.write(data)
            else:
                for data in call.stream(answer, head, framing, self._note):
                    connection.write(data)
        except upstream.Broken as broken:
            if connection.watched.cause in (Cause.CLIENT_LEFT, Cause.STOPPED, Cause.STALLED) or call.client_error:
                return self._left(call)
            self._settle(RequestState.FAILED, Reason.INTERRUPTED, status=answer.status, error=str(broken))
            connection.abort()
            return Result.BROKEN
        except OSError:
            return self._left(call)
        if framing is upstream.Framing.CLOSE:
            connection.close_after()
        self._settle(RequestState.COMPLETED, Reason.ANSWERED, status=answer.status)
        return Result.ANSWERED

    def _wait_for_record(self) -> bool:
        """Return True where the journal is away and the answer says so."""
        if self._write is None:
            return False
        try:
            self._write.wait()
        except AgentainerError:
            return True
        return False

    def _note(self, data: bytes) -> None:
        self._answer_bytes += len(data)
        if self._stored is not None and self._answer_bytes <= defaults.MAX_STORED_RESPONSE_BYTES:
            self._stored.append(data)

    def _left(self, call: upstream.Call) -> Result:
        self._settle(RequestState.FAILED, Reason.INTERRUPTED, error="the client left before the end of the answer")
        if isinstance(call.client_error, Fault) and not self._answer_begun:
            raise call.client_error
        self._connection.abort()
        return Result.LEFT

    def say(self, reply: replies.Reply, *, fields: bytes = b"") -> None:
        """Give an answer of our own."""
        request = self._request
        close = not self._connection.can_go_on(request)
        self._connection.write(
            replies.encode(reply, self.id, fields=fields, close=close, head_only=request.method == b"HEAD")
        )


def _chain(first: Iterator[bytes], then: Iterator[bytes]) -> Iterator[bytes]:
    yield from first
    yield from then
