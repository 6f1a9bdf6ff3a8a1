"""The record of one live exchange: what is written of it, when, and what is kept for it."""

from collections.abc import Callable
from typing import Final

from agentainerd import clock, defaults
from agentainerd.errors import Unavailable
from agentainerd.model.requests import Outcome, Reason, Record, ReplayPolicy, RequestState, StoredResponse
from agentainerd.proxy.body import Body
from agentainerd.proxy.journal import Journal, KeyAnswer, Write
from agentainerd.proxy.request import Request

# Members by names of their own: Python 3.11 looks each one up in a map, in Python.
_AT_LEAST_ONCE: Final = ReplayPolicy.AT_LEAST_ONCE
_COMPLETED: Final = RequestState.COMPLETED
_ANSWERED: Final = Reason.ANSWERED


class Recording:
    """One record on its way through the journal: begun at most once, ended exactly once if it was begun.

    Attributes:
        record: what it is about.
        write: the record on its way to disk, or None where nothing is on its way.
        answer_bytes: of the answer's body, so far.
    """

    __slots__ = (
        "_begun",
        "_body",
        "_ended",
        "_journal",
        "_read_more",
        "_request",
        "_stored",
        "answer_bytes",
        "record",
        "write",
    )

    def __init__(self, journal: Journal, record: Record, request: Request, read_more: Callable[[], None]) -> None:
        self.record = record
        self.write: Write | None = None
        self.answer_bytes = 0
        self._journal = journal
        self._request = request
        self._read_more = read_more
        self._body: Body | None = None
        self._stored: list[bytes] | None = None
        self._begun = self._ended = False

    @property
    def body(self) -> Body:
        """The request's body; made when it is first asked for: one that came whole with its head is in the record."""
        if self._body is None:
            self._body = Body(self._request, self._read_more, self._journal.spool, self.record.id)
        return self._body

    @property
    def is_untouched(self) -> bool:
        """All that came of the body is still with the request."""
        return self._body is None

    @property
    def is_kept(self) -> bool:
        """What was read of the body can be sent again."""
        return self._body is None or self._body.kept

    def begin(self) -> None:
        """Start the record of a request that goes to the agent now. What is not here whole is recorded without its body.

        Blocks under the policy at_least_once only: there it is recorded whole before the agent sees any of it; where
        that can't be, it goes on as under the policy auto.
        """
        if self._begun:
            return
        record, request = self.record, self._request
        self._begun = True
        pieces = request.pieces
        if not request.done:
            record.body_bytes = -1
        elif pieces:
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if len(body) <= defaults.MAX_INLINE_BODY_BYTES:
                record.body = body
                record.body_bytes = len(body)
            else:
                record.body_bytes = -1
        if record.policy is _AT_LEAST_ONCE and self._begin_whole():
            return
        self.write = self._journal.begin(record)

    def _begin_whole(self) -> bool:
        try:
            if not self.collect():
                return False
            self._journal.reserve(self.record)
        except Unavailable:
            return False
        return True

    def reserve(self) -> KeyAnswer:
        """Record a keyed request whole, if its key is new; its answer is kept then. Raises Unavailable."""
        known = self._journal.reserve(self.record)
        self._begun = known.request_id == self.record.id
        self._stored = []
        return known

    def collect(self) -> bool:
        """Read the body to its end and put it into the record; False where it can't be kept whole.

        Raises:
            Unavailable: no space for it.
            OSError, Fault: the client left, or sends no body.
        """
        record, body = self.record, self.body
        if not body.collect():
            return False
        record.spool = body.seal()
        record.body = body.inline
        record.body_bytes = body.size
        return True

    @property
    def is_durable(self) -> bool:
        """The record is on disk, or there is none; False: the journal is away, and the answer must say so."""
        return self.write is None or not self.write.refused

    def accept(self) -> None:
        """Make it pending. Raises TooManyRequests, Unavailable."""
        self._journal.accept(self.record)
        self._ended = True

    def keep_head(self, head: bytes) -> None:
        """Keep the answer's head, where the answer is kept."""
        if self._stored is not None:
            self._stored.append(head)

    def note(self, data: bytes) -> None:
        """Count a piece of the answer's body, and keep it where the answer is kept and small enough."""
        self.answer_bytes += len(data)
        if self._stored is not None and self.answer_bytes <= defaults.MAX_STORED_RESPONSE_BYTES:
            self._stored.append(data)

    def complete(self, status: int) -> float:
        """The agent answered, and the client has it; return how long that took, in seconds."""
        response = None
        if self._stored is not None:
            head, body = self._stored[0], b"".join(self._stored[1:])
            truncated = self.answer_bytes != len(body)
            response = StoredResponse(status, head, b"" if truncated else body, truncated)
        return self._settle(_COMPLETED, _ANSWERED, status, "", response)

    def fail(self, reason: Reason, error: str, *, status: int = 0) -> None:
        """It ended without a whole answer. Nothing, where it was never begun."""
        if self._begun and not self._ended:
            self._settle(RequestState.FAILED, reason, status, error, None)
        elif not self._ended:
            self._discard()

    def _settle(
        self, state: RequestState, reason: Reason, status: int, error: str, response: StoredResponse | None
    ) -> float:
        self._ended = True
        duration_s = clock.now() - self.record.received_at
        self._journal.settle(
            self.record, Outcome(state, reason, status, self.answer_bytes, duration_s, error, response)
        )
        if state is _COMPLETED or not self.record.spool:
            self._discard()
        return duration_s

    def _discard(self) -> None:
        if self._body is not None:
            self._body.discard()
