"""One request to one agent: from its head, over the agent, to its record. The table of docs/requests.md is this module.

The order of things on the way of an ordinary request: the record begins its way to disk, the request goes to the agent,
the agent's head comes back, the record is waited for (it is there long since), the answer passes through, the record
is settled with the next batch.
"""

import hashlib
import hmac
import itertools
import random
import re
import time
import uuid
from enum import Enum
from typing import TYPE_CHECKING

from agentainerd import defaults
from agentainerd.errors import TooManyRequests, Unavailable
from agentainerd.model.requests import Reason, Record, ReplayPolicy
from agentainerd.proxy import keys, replies, upstream
from agentainerd.proxy.body import Body
from agentainerd.proxy.http1 import Fault, Request, drop_fields
from agentainerd.proxy.journal import Journal, KeyAnswer, KeyVerdict, NullJournal
from agentainerd.proxy.recording import Recording
from agentainerd.proxy.response import Answer
from agentainerd.proxy.routing import Gate, Route
from agentainerd.proxy.target import Target
from agentainerd.proxy.watch import Cause

if TYPE_CHECKING:
    from agentainerd.proxy.server import Connection, DataPlane

_WAIT = re.compile(rb"(?:^|,)\s*wait\s*=\s*\"?([0-9]{1,6})")
_OPEN_METHODS = frozenset((b"POST", b"PUT", b"PATCH"))
_NULL = NullJournal()
_CLIENT_CAUSES = (Cause.CLIENT_LEFT, Cause.STOPPED, Cause.STALLED)
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


_numbers = itertools.count(random.SystemRandom().getrandbits(44))
_start = str(uuid.uuid4())[:24]


def new_id() -> str:
    """Return an id in the form of a UUID: random for each start of the process, and then counted.

    It names a request and opens nothing: a ticket does that. Drawing each one anew would cost a request 1 us.
    """
    return f"{_start}{next(_numbers) & 0xFFFFFFFFFFFF:012x}"


class Exchange:
    """One request of one client to one agent."""

    __slots__ = (
        "_answer_begun", "_connection", "_plane", "_prefix", "_record", "_recording", "_request", "_route", "id",
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
        self._answer_begun = False
        if route.token_digest:
            drop_fields(request.lines, (b"authorization",))
        now = time.time()
        self._record = record = Record(
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
        journal: Journal = plane.journal if route.persistence else _NULL
        body = Body(request, connection.read_more, plane.journal.spool if route.persistence else None, self.id)
        self._recording = Recording(journal, record, body)

    @property
    def head(self) -> bytes:
        """The head that the agent gets, without framing and empty line."""
        return self._record.head

    def run(self) -> None:
        """Answer the request, whatever happens to the agent.

        Raises:
            OSError, Fault: the client went away, or sent what is no request; nothing more can be said to it.
        """
        refusal = self.refusal()
        if refusal:
            self.say(refusal, fields=b"WWW-Authenticate: Bearer\r\n" if refusal.status == 401 else b"")
            return
        request = self._request
        prefers = request.prefer.lower() if request.prefer else b""
        try:
            if request.key is not None and self._route.persistence and not self._reserve(request.key):
                return
            if prefers and b"respond-async" in prefers and self._can_queue:
                self._queue(fields=b"Preference-Applied: respond-async\r\n")
            elif self._pass_gate(prefers):
                self._forward()
            else:
                self._queue()
        except (OSError, Fault):
            self._recording.fail(Reason.INTERRUPTED, "the client left before it was answered")
            raise

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

    def say(self, reply: replies.Reply, *, fields: bytes = b"") -> None:
        """Give an answer of our own."""
        close, head_only = not self._connection.can_go_on(self._request), self._request.method == b"HEAD"
        self._connection.write(replies.encode(reply, self.id, fields=fields, close=close, head_only=head_only))

    # ---- before the agent

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

    def _continue(self) -> None:
        """Tell a client that waits for it to send its body (RFC 9110 10.1.1)."""
        if self._request.expects_continue and not self._request.done:
            self._request.expects_continue = False
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _reserve(self, value: bytes) -> bool:
        """Record a request with an Idempotency-Key whole; False: it was answered, without the agent."""
        key = keys.read(value)
        if key is None:
            self.say(replies.KEY_INVALID)
            return False
        recording = self._recording
        try:
            self._continue()
            if not recording.collect():
                self.say(self._unkept() if recording.body.lost else replies.KEY_BODY_TOO_LARGE)
                return False
            self._record.key = keys.identify(self._record, recording.body, key)
            known = recording.reserve()
        except Unavailable as error:
            recording.body.discard()
            self.say(replies.refused(503, error.code, error.message, error.retry_after_s or 2))
            return False
        if known.verdict is KeyVerdict.NEW:
            return True
        recording.body.discard()
        self._say_known(known)
        return False

    def _say_known(self, known: KeyAnswer) -> None:
        response = known.response
        close = not self._connection.can_go_on(self._request)
        if known.verdict is KeyVerdict.PENDING:
            self._connection.write(self._accepted(known.request_id, b""))
        elif known.verdict is KeyVerdict.DONE and response is not None and not response.truncated:
            head_only = self._request.method == b"HEAD"
            self._connection.write(keys.repeated(response, known.request_id, close=close, head_only=head_only))
        else:
            self.say(keys.refusal(known.verdict))

    # ---- queueing

    def _queue(self, *, fields: bytes = b"") -> None:
        """Accept the request for later: 202 once it is durable, and only then."""
        recording = self._recording
        refusal = self._unqueueable()
        if refusal is None:
            try:
                self._continue()
                if recording.collect():
                    recording.accept()
                else:
                    refusal = self._unkept()
            except TooManyRequests as error:
                refusal = replies.refused(429, error.code, error.message, error.retry_after_s or 1)
            except Unavailable as error:
                refusal = replies.refused(503, error.code, error.message, error.retry_after_s or 2)
        if refusal is None:
            self._connection.write(self._accepted(self.id, fields))
        else:
            recording.fail(Reason.INTERRUPTED, refusal.message)
            self.say(refusal)

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
        body = self._recording.body
        if body.lost is not None:
            return replies.refused(503, body.lost.code, body.lost.message, 5)
        if body.size > defaults.MAX_REPLAY_BODY_BYTES:
            return replies.TOO_LARGE_TO_QUEUE
        return replies.BODY_TOO_LARGE_TO_KEEP

    def _accepted(self, request_id: str, fields: bytes) -> bytes:
        close, head_only = not self._connection.can_go_on(self._request), self._request.method == b"HEAD"
        message = replies.QUEUED_READY if self._route.gate is Gate.OPEN else replies.QUEUED
        location = f"/requests/{request_id}?t={self._plane.ticket(request_id)}"
        return replies.accepted(message, request_id, location, fields=fields, close=close, head_only=head_only)

    # ---- to the agent

    def _forward(self) -> None:
        """Send it to the agent; at most twice."""
        plane, route, recording = self._plane, self._route, self._recording
        if plane.options.reject_without_journal and route.persistence and not plane.journal.available:
            recording.fail(Reason.INTERRUPTED, replies.JOURNAL_DOWN.message)
            self.say(replies.JOURNAL_DOWN)
            return
        recording.begin(self._request)
        again = False
        while True:
            target = route.pick()
            result = self._attempt(target, again=again) if target else Result.UNREACHED
            if result in (Result.ANSWERED, Result.BROKEN, Result.LEFT):
                return
            if result is Result.GARBAGE:
                self._fail(replies.BAD_ANSWER)
                return
            if target is None or result is Result.UNREACHED:
                if target is not None:
                    plane.routes.on_suspect(route, target)
                self._queue()
                return
            if result is Result.SILENT and not self._survives_silence(target):
                return
            if again or self._record.maybe_duplicate or not recording.body.kept or route.gate is not Gate.OPEN:
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

    def _fail(self, reply: replies.Reply) -> None:
        self._recording.fail(Reason.OUTCOME_UNKNOWN, reply.message)
        self.say(reply)

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
        answer = Answer(head_only=self._request.method == b"HEAD")
        try:
            if not self._send(call):
                return self._left(call) if call.client_error else Result.UNREACHED
            call.read_head(answer, self._pass_interim)
        except (upstream.Silent, OSError):
            return self._left(call) if self._is_clients_fault(call) else Result.SILENT
        except Fault:
            return Result.GARBAGE
        else:
            return self._pass(call, answer)
        finally:
            answer.release()

    def _send(self, call: upstream.Call) -> bool:
        """Send head and body; False: nothing reached the agent. What is not here whole is pumped beside the answer."""
        request, body, head = self._request, self._recording.body, self._record.head
        if body.done and body.kept and body.size <= defaults.MAX_INLINE_BODY_BYTES:
            size = body.size
            framed = size or request.length == 0 or request.method in _OPEN_METHODS
            return call.send(head, body.inline, length=size if framed else -1)
        self._continue()
        pieces = itertools.chain(body.again(), body.pieces()) if body.kept else body.pieces()
        try:
            call.pump(self._plane.pumps, head, pieces, length=body.size if body.done else request.length)
        except OSError:
            return False
        return True

    def _pass_interim(self, head: bytes) -> None:
        if self._request.minor == 1:
            self._connection.write(head)

    def _pass(self, call: upstream.Call, answer: Answer) -> Result:
        """Pass the answer on: nothing of it before the record is durable."""
        request, connection, recording = self._request, self._connection, self._recording
        missed = not recording.wait()
        self._answer_begun = True
        keep = connection.can_go_on(request)
        head, framing = upstream.answer_head(
            answer, request, request_id=self.id, prefix=self._prefix, keep=keep, missed=missed
        )
        if self._record.key is not None:
            recording.keep_head(upstream.stored_head(answer))
        try:
            if answer.done:
                data, body = call.whole(answer, head, framing)
                recording.note(body)
                connection.write(data)
            else:
                for data in call.stream(answer, head, framing, recording.note):
                    connection.write(data)
        except upstream.Broken as broken:
            if self._is_clients_fault(call):
                return self._left(call)
            recording.fail(Reason.INTERRUPTED, str(broken), status=answer.status)
            connection.abort()
            return Result.BROKEN
        except OSError:
            return self._left(call)
        if framing is upstream.Framing.CLOSE:
            connection.close_after()
        recording.complete(answer.status)
        return Result.ANSWERED

    def _is_clients_fault(self, call: upstream.Call) -> bool:
        return call.client_error is not None or self._connection.watched.cause in _CLIENT_CAUSES

    def _left(self, call: upstream.Call) -> Result:
        self._recording.fail(Reason.INTERRUPTED, "the client left before the end of the answer")
        if isinstance(call.client_error, Fault) and not self._answer_begun:
            raise call.client_error
        self._connection.abort()
        return Result.LEFT
