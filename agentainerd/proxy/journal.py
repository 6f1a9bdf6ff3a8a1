"""What the data plane asks of a journal. Two work: Redis (store/journal.py), and none (`NullJournal`, persistence off).

Every method may be called from any greenlet. `begin` and `settle` never block; all others do, until what they say is
on disk. An operation is in the order in which it was called: what was settled before a claim is seen by that claim.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

from agentainerd.errors import Unavailable
from agentainerd.model.requests import KeyAnswer as KeyAnswer
from agentainerd.model.requests import KeyVerdict as KeyVerdict
from agentainerd.model.requests import Outcome, Reason, Record


class Write(Protocol):
    """One write on its way to disk."""

    @property
    def done(self) -> bool:
        """It is durable, or has failed: `wait` will not block."""

    @property
    def refused(self) -> str:
        """Once done: the code of why it is not durable, or ""."""

    def then(self, callback: Callable[[], None]) -> None:
        """Call back once it is done; it must not be yet. The callback must not block."""

    def wait(self) -> None:
        """Block until it is durable.

        Raises:
            Unavailable: the journal can't be reached now, or has no space; the record will be made when it is back, if
                there is room for it in memory.
        """


class SpoolWriter(Protocol):
    """A large body on its way to a file. Whoever got it calls `seal` or `discard` in the end; both may be repeated."""

    def write(self, piece: bytes) -> None:
        """Append; not durable yet. Raises Unavailable (code NO_SPACE), after which only `discard` is of use."""

    def seal(self) -> str:
        """Make it durable (file, name and folder) and return the name for `Record.spool`. Blocks its greenlet only.

        Raises:
            Unavailable: no space, or the disk failed.
        """

    def pieces(self) -> Iterator[bytes]:
        """Read back what was written so far, from its beginning."""

    def discard(self) -> None:
        """Remove it, sealed or not; for a body that nobody needs any more."""


class Journal(Protocol):
    """The durable record of requests; `docs/requests.md` has the promise."""

    @property
    def available(self) -> bool:
        """Redis answers and there is room: a hint for the hot path, not a guarantee."""

    def begin(self, record: Record) -> Write:
        """Start to record a live request as processing/live (head, and the body where it is inline). Does not block."""

    def reserve(self, record: Record) -> KeyAnswer:
        """Record a live request whole before it is forwarded; with `record.key`, only if the key is new.

        For keyed requests and for the policy at_least_once (the key may be None: always NEW).

        Raises:
            Unavailable: it may not be taken to be recorded.
        """

    def accept(self, record: Record, *, reason: Reason = Reason.QUEUED, due_at: float = 0.0) -> None:
        """Make it pending and durable: when this returns, 202 may be said.

        Works for a new record and for one that `begin` or `reserve` made (it moves, atomically). `due_at` (epoch
        seconds) > 0 makes it wait until then, with reason retry_wait. Bodies over MAX_INLINE_BODY_BYTES must be in
        `record.spool` and fsynced already.

        Raises:
            TooManyRequests: the agent's queue is full (code QUEUE_FULL); a live record stays what it was.
            Unavailable: it is not recorded and never will be delivered: the journal is away (code JOURNAL_UNAVAILABLE) or full
                (JOURNAL_FULL), the disk has no room (NO_SPACE), the agent was removed (AGENT_REMOVED).
        """

    def settle(self, record: Record, outcome: Outcome) -> None:
        """End it: completed or failed. Durable soon; kept in memory and repeated while Redis is away. Does not block.

        The file in `record.spool` is the journal's from then on: it stays where the request failed. A record that was
        accepted or settled before is left alone.
        """

    def spool(self, request_id: str) -> SpoolWriter:
        """Start a temporary file for a body over MAX_INLINE_BODY_BYTES.

        Raises:
            Unavailable: no space (code NO_SPACE), or no spool.
        """


class _Done:
    """A write that has nothing to write."""

    done = True
    refused = ""

    def then(self, callback: Callable[[], None]) -> None:
        """There is nothing to wait for."""
        callback()

    def wait(self) -> None:
        """Return at once."""


class NullJournal:
    """No persistence: nothing is recorded, and so nothing can be accepted."""

    available = True

    def begin(self, record: Record) -> Write:
        """Record nothing."""
        return _DONE

    def reserve(self, record: Record) -> KeyAnswer:
        """Every key is new: without a journal there is no first request to compare with."""
        return KeyAnswer(KeyVerdict.NEW, record.id)

    def accept(self, record: Record, *, reason: Reason = Reason.QUEUED, due_at: float = 0.0) -> None:
        """Refuse: a 202 would be a lie."""
        raise Unavailable("request persistence is off: the request was not queued", code="PERSISTENCE_OFF")

    def settle(self, record: Record, outcome: Outcome) -> None:
        """Forget it."""

    def spool(self, request_id: str) -> SpoolWriter:
        """There is none."""
        raise Unavailable("request persistence is off: there is no spool", code="PERSISTENCE_OFF")


_DONE = _Done()
