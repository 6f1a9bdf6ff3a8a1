"""One request to one agent: from its head, over the agent, to its record. The table of docs/requests.md is this module.

The order of things on the way of an ordinary request: the record begins its way to disk, the request goes to the agent,
the agent's head comes back, the record is waited for (it is there long since), the answer passes through, the record
is settled with the next batch.
"""

import hashlib
import hmac
import itertools
import re
from typing import TYPE_CHECKING, Final

from agentainerd import clock, defaults
from agentainerd.errors import TooManyRequests, Unavailable
from agentainerd.model.requests import Reason, Record, ReplayPolicy
from agentainerd.proxy import heads, keys, replies
from agentainerd.proxy.credentials import credentials
from agentainerd.proxy.delivery import Delivery
from agentainerd.proxy.http1 import drop_fields
from agentainerd.proxy.journal import KeyAnswer, KeyVerdict, NullJournal
from agentainerd.proxy.recording import Recording
from agentainerd.proxy.request import Fault, Request
from agentainerd.proxy.response import Answer
from agentainerd.proxy.routing import Gate, Route
from agentainerd.proxy.target import Target
from agentainerd.proxy.upstream import Failure, Upstream

if TYPE_CHECKING:
    from agentainerd.proxy.connection import Connection
    from agentainerd.proxy.server import DataPlane

_WAIT = re.compile(rb"(?:^|,)\s*wait\s*=\s*\"?([0-9]{1,6})")
_OPEN_METHODS = frozenset((b"POST", b"PUT", b"PATCH"))
_MARK = b"X-Agentainer-Maybe-Duplicate: 1\r\n"
_NULL = NullJournal()
MAX_OWN_VIAS = 5
# Members by names of their own: Python 3.11 looks each one up in a map, in Python.
_OPEN: Final = Gate.OPEN
_AT_LEAST_ONCE: Final = ReplayPolicy.AT_LEAST_ONCE


class Exchange(Delivery):
    """One request of one client to one agent."""

    __slots__ = ("_again", "_awaited", "_is_counted", "_record", "_recording", "_route")

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
        super().__init__(plane, connection, request, prefix, route.request_timeout_s)
        self._route = route
        self._again = self._awaited = self._is_counted = False
        if route.token_digest:
            drop_fields(request.lines, (b"authorization",))
        now = clock.now()
        record = Record(
            self.id,
            route.agent_id,
            heads.request_head(request, path, prefix=prefix, connection=connection, request_id=self.id),
            request.method,
            request.target,
            now,
            now + plane.options.max_age_s,
            client=connection.peer,
            policy=route.policy,
            max_pending=route.max_pending,
            max_pending_bytes=route.max_pending_bytes,
        )
        self._record = record
        journal = plane.journal if route.persistence else _NULL
        self._recording = Recording(journal, record, request, connection.read_more)

    @property
    def head(self) -> bytes:
        """The head that the agent gets, without framing and empty line."""
        return self._record.head

    @property
    def received_at(self) -> float:
        """When the head was here, epoch seconds."""
        return self._record.received_at

    def start(self) -> None:
        """Answer the request, whatever happens to the agent. In the hub: at once where nothing has to be waited for."""
        refusal = self.refusal()
        if refusal:
            self.say(refusal, fields=b"WWW-Authenticate: Bearer\r\n" if refusal.status == 401 else b"")
            return
        upstream = self._take_now()
        if upstream is None:
            self._connection.run(self._serve)
            return
        self._recording.begin()
        if not self._send(upstream):
            self._connection.run(self._forward)

    def _take_now(self) -> Upstream | None:
        """Return a connection to the agent, if this is a request for which nothing has to be waited."""
        request, route = self._request, self._route
        if (
            route.gate is not _OPEN
            or not request.done
            or request.key is not None
            or request.prefer
            or request.length > defaults.MAX_MEMORY_BODY_BYTES
            or request.chunked
            or route.policy is _AT_LEAST_ONCE
            or self._plane.options.reject_without_journal
        ):
            return None
        target = route.pick()
        upstream = target.take(repeatable=self._record.is_repeatable) if target is not None else None
        if upstream is None:
            route.put_back()
        return upstream

    def _serve(self) -> None:
        """Wait for what has to be waited for. In a greenlet."""
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
            self._fail("the client left before it was answered")
            raise

    def refusal(self) -> replies.Reply | None:
        """Return why this request may not go to this agent at all, or None."""
        request, route = self._request, self._route
        if request.own_vias >= MAX_OWN_VIAS:
            return replies.LOOP
        if request.authorization is None:
            return self._refuse_token(is_wrong=False) if route.token_digest else None
        given = request.authorization
        control = self._plane.routes.control_token_digests
        for word in credentials(given):
            digest = hashlib.sha256(word).digest()
            if digest in control:
                return self._judge_ours(digest)
        if route.token_digest:
            if given[:7].lower() == b"bearer ":
                given = given[7:].strip()
            if not hmac.compare_digest(hashlib.sha256(given).digest(), route.token_digest):
                return self._refuse_token(is_wrong=True)
        return None

    def _judge_ours(self, digest: bytes) -> replies.Reply | None:
        """Let a token of ours pass that is good for this agent, which asks for one and so does not see it; else say why not."""
        route, routes = self._route, self._plane.routes
        given = routes.agent_passes.get(digest)
        if given is None:
            routes.on_control_token(self._connection.peer, route.name)
            return replies.CONTROL_TOKEN
        if not route.token_digest or route.whole.name not in given.agents:
            self._refuse_token(is_wrong=False)
            return replies.TOKEN_NOT_FOR_THIS
        if given.until and clock.now() >= given.until:
            self._refuse_token(is_wrong=False)
            return replies.TOKEN_EXPIRED
        routes.on_token_used(given.token_id)
        return None

    def _refuse_token(self, *, is_wrong: bool) -> replies.Reply:
        """Have it noted that this request may not pass, and return what its client is told."""
        wait_s = self._plane.routes.on_token_refused(self._connection.peer, self._route.name, is_wrong)
        return replies.too_many_logins(wait_s) if wait_s else replies.TOKEN_MISSING

    # ---- before the agent

    @property
    def _can_queue(self) -> bool:
        return self._route.persistence and self._route.policy is not ReplayPolicy.NEVER

    def _pass_gate(self, prefers: bytes) -> bool:
        """Wait for the agent as long as is right; return whether it is ready."""
        route = self._route
        if route.gate is _OPEN:
            return True
        hold_s, even_closed = route.hold_timeout_s, False
        wait = _WAIT.search(prefers)
        if wait:
            hold_s, even_closed = min(float(wait.group(1)), defaults.MAX_HOLD_S), True
        gate = route.wait_open(hold_s, even_closed=even_closed)
        if self._connection.has_left():
            raise ConnectionResetError("the client left while its request was held")
        return gate is _OPEN

    def _continue(self) -> None:
        """Tell a client that waits for it to send its body (RFC 9110 10.1.1)."""
        if self._request.expects_continue and not self._request.done:
            self._request.expects_continue = False
            self._connection.push(b"HTTP/1.1 100 Continue\r\n\r\n")

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
        close = not self._connection.can_go_on()
        if known.verdict is KeyVerdict.PENDING:
            self._is_counted = True
            self._route.tally.repeated += 1
            self._say(self._accepted(known.request_id, b""))
        elif known.verdict is KeyVerdict.DONE and response is not None and not response.truncated:
            self._is_counted = True
            self._route.tally.repeated += 1
            head_only = self._request.method == b"HEAD"
            self._say(keys.repeated(response, known.request_id, prefix=self._prefix, close=close, head_only=head_only))
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
            self._is_counted = True
            self._route.tally.queued += 1
            self._say(self._accepted(self.id, fields))
        elif self._record.maybe_duplicate:  # it reached the agent: a refusal would say that it did not
            self._give_up(replies.LOST)
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
        close, head_only = not self._connection.can_go_on(), self._request.method == b"HEAD"
        message = replies.QUEUED_READY if self._route.gate is _OPEN else replies.QUEUED
        location = f"/requests/{request_id}?t={self._plane.ticket(request_id)}"
        return replies.accepted(message, request_id, location, fields=fields, close=close, head_only=head_only)

    # ---- to the agent

    def _forward(self, avoided: Target | None = None) -> None:
        """Send it to the agent, to another replica where one refuses the connection. In a greenlet: it may have to connect.

        `avoided`: has failed already; the last choice.
        """
        plane, route, recording = self._plane, self._route, self._recording
        if plane.options.reject_without_journal and route.persistence and not plane.journal.available:
            recording.fail(Reason.INTERRUPTED, replies.JOURNAL_DOWN.message)
            self.say(replies.JOURNAL_DOWN)
            return
        recording.begin()
        tried: list[Target] = [] if avoided is None else [avoided]
        target = route.pick_but(tried) or route.pick()
        while target is not None and not self._reach(target):
            plane.routes.on_suspect(route, target)
            tried.append(target)
            target = route.pick_but(tried)
        if target is None:
            self._record.maybe_duplicate = self._record.maybe_duplicate or self._again
            self._queue()

    def _reach(self, target: Target) -> bool:
        """Send it on a kept connection, or on a new one, as a second sending always is; False: nothing reached the agent."""
        upstream = None if self._again else target.take(repeatable=self._record.is_repeatable)
        if upstream is not None and self._send(upstream):
            return True
        try:
            upstream = target.connect()
        except OSError:
            return False
        return self._send(upstream)

    def _send(self, upstream: Upstream) -> bool:
        """Send head and body; False: nothing reached the agent. What is not here whole is pumped beside the answer."""
        request, record = self._request, self._record
        self._call(upstream)
        head = record.head if not self._again or not record.maybe_duplicate else record.head + _MARK
        size = record.body_bytes
        try:
            if size < 0 and self._recording.is_untouched and request.done:
                body = b"".join(request.pieces)
                upstream.send(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
            elif size < 0 or record.spool:
                self._send_pieces(upstream, head)
            elif size or request.length == 0 or request.method in _OPEN_METHODS:
                upstream.send(b"%bContent-Length: %d\r\n\r\n%b" % (head, size, record.body))
            else:
                upstream.send(head + b"\r\n")
        except OSError:
            self._hang_up()
            return False
        return True

    def _send_pieces(self, upstream: Upstream, head: bytes) -> None:
        request, body = self._request, self._recording.body
        self._continue()
        length = body.size if body.done else request.length
        framing = b"Content-Length: %d\r\n\r\n" % length if length >= 0 else b"Transfer-Encoding: chunked\r\n\r\n"
        upstream.send(head + framing)
        self._pump(upstream, itertools.chain(body.again(), body.pieces()) if body.kept else body.pieces(), length)

    def _may_pass(self) -> bool:
        """No byte of the answer leaves before the record is durable."""
        write = self._recording.write
        if write is None or write.done:
            return True
        if not self._awaited:
            self._awaited = True
            write.then(self._resume)
        return False

    @property
    def _missed(self) -> bool:
        return not self._recording.is_durable

    def _note_head(self, answer: Answer) -> None:
        if self._record.key is not None:
            self._recording.keep_head(heads.stored_head(answer))

    def _note(self, piece: bytes) -> None:
        self._recording.note(piece)

    def say(self, reply: replies.Reply, *, fields: bytes = b"") -> None:
        """Give an answer of our own, and end."""
        if not self._is_counted:
            self._is_counted = True
            self._route.tally.replied(reply.status, reached=reply.is_reached)
        super().say(reply, fields=fields)

    def _succeed(self) -> None:
        self._is_counted = True
        self._route.tally.answered(self._status, self._recording.complete(self._status))

    def _break_off(self, reason: str) -> None:
        if not self._is_counted:
            self._is_counted = True
            self._route.tally.interrupted += 1
        super()._break_off(reason)

    def _fail(self, reason: str) -> None:
        if not self._is_counted:
            self._is_counted = True
            self._route.tally.left += 1
        self._recording.fail(Reason.INTERRUPTED, reason, status=self._status)

    # ---- no answer

    def _unanswered(self, failure: Failure, target: Target, *, reused: bool, timed_out: bool) -> None:
        if failure is Failure.GARBAGE:
            self._give_up(replies.BAD_ANSWER)
        elif failure is Failure.SILENT:
            stale = reused and self._record.is_repeatable and not timed_out
            self._connection.run(self._after_silence, target, stale, timed_out)
        else:
            self._break_off("the agent's answer broke off")

    def _after_silence(self, target: Target, stale: bool, timed_out: bool) -> None:
        """Decide on a request that reached the agent and got no answer: once more, queued, or given up.

        One whose replica died goes to another one, marked; unless it is unsafe, because who is answered at once takes it to
        have run once.
        """
        try:
            if not stale and not self._survives_silence(target, timed_out):
                return
            record, route = self._record, self._route
            may_go_on = route.gate is _OPEN
            if record.maybe_duplicate:
                may_go_on = record.is_repeatable and route.pick_but([target]) is not None
            if self._again or not self._recording.is_kept or not may_go_on:
                record.maybe_duplicate = True
                self._queue()
                return
            self._again = True
            self._forward(target)
        except (OSError, Fault):
            self._fail("the client left before it was answered")
            raise

    def _survives_silence(self, target: Target, timed_out: bool) -> bool:
        """Return whether the request may be sent again; else it is answered.

        Marks the record where the agent died, so that it is queued at once.
        """
        record, policy = self._record, self._route.policy
        if not timed_out and self._plane.routes.on_dead_check(self._route, target):
            record.maybe_duplicate = record.is_repeatable or policy is not ReplayPolicy.SAFE
            if not record.maybe_duplicate:
                self._give_up(replies.DIED)
            return record.maybe_duplicate
        if record.is_repeatable or policy is ReplayPolicy.AT_LEAST_ONCE:
            return True
        self._give_up(replies.TIMED_OUT if timed_out else replies.NO_ANSWER)
        return False

    def _give_up(self, reply: replies.Reply) -> None:
        self._recording.fail(Reason.OUTCOME_UNKNOWN, reply.message)
        self.say(reply)
