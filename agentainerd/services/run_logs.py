"""The events of runs under way: numbered and stored here, and kept in memory for a while for those who read along.

A reader gets an event only when it is on disk. It reads from memory what is there, and from the store what came before.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import msgspec
from gevent.event import Event

from agentainerd import clock, defaults
from agentainerd.errors import NotFound
from agentainerd.model.agui import TERMINAL, EventType
from agentainerd.model.runs import RunEvent
from agentainerd.store.connection import Argument
from agentainerd.store.run_writer import RunWriter, Write
from agentainerd.store.runs import RunStore

PAGE = 500
MAX_UNWRITTEN = 128  # events of one run: then it waits for the disk


class RunLog:
    """The log of one run under way. `append` and `end` are for the greenlet of the run, the rest for any.

    Attributes:
        last_seq: the number of its last event, stored or about to be. stored_seq: of the last that is on disk.
        source_seq: the greatest number that the agent gave one, since it began or was paused. bytes: what all of them take.
        paused_seq: the number of the event that the run waits with for an answer, 0 where it does not.
    """

    def __init__(self, run_id: str, writer: RunWriter, *, last_seq: int = 0, source_seq: int = 0) -> None:
        self.run_id = run_id
        self.last_seq = self.stored_seq = last_seq
        self.source_seq = source_seq
        self.paused_seq = 0
        self.bytes = 0
        self._writer = writer
        self._unwritten: deque[Write] = deque()
        self._tail: deque[RunEvent] = deque(maxlen=defaults.RUN_TAIL_EVENTS)
        self._changed = Event()

    def recall(self, store: RunStore) -> Iterator[bytes]:
        """Return the events that a daemon before this one stored, which are counted here; for before the first `append`.

        Raises:
            Unavailable.
        """
        after = 0
        while page := store.events(self.run_id, after, PAGE):
            for event in page:
                after = event.seq
                self.bytes += len(event.payload)
                yield bytes(event.payload)

    def append(self, kind: str, payload: bytes, *, synthetic: bool = False, source_seq: int = 0) -> None:
        """Add an event; it is stored soon, and blocks only where too many wait for that.

        Raises:
            Unavailable: another daemon has the journal.
        """
        event = self._next(kind, payload, synthetic)
        self.source_seq = max(self.source_seq, source_seq)
        self._write([event], RunStore.append(self.run_id, event, source_seq))
        while len(self._unwritten) > MAX_UNWRITTEN or (self._unwritten and self._unwritten[0].is_done):
            self._unwritten.popleft().wait()

    def end(self, last: Sequence[tuple[str, bytes, bool]], operations: Callable[[], Sequence[Argument]]) -> None:
        """Add the last events (type, payload, synthetic) with what else ends the run, all or nothing; blocks until it is on
        disk. `operations` is called when the events have their numbers.

        Raises:
            Unavailable: another daemon has the journal.
        """
        self.paused_seq = 0
        self._end(last, operations)

    def pause(self, payload: bytes, operations: Callable[[], Sequence[Argument]]) -> None:
        """Add the event by which the agent asks for something, as `end` does; what it sends after that it numbers anew.

        Raises:
            Unavailable: another daemon has the journal.
        """
        self.paused_seq = self.last_seq + 1
        self.source_seq = 0
        self._end([(EventType.RUN_FINISHED, payload, False)], operations)

    def wait(self, timeout_s: float, after: int) -> bool:
        """Block until there is more than event `after`, at most so long; return whether there is."""
        if self.stored_seq <= after:
            self._changed.wait(timeout_s)
        return self.stored_seq > after

    def since(self, after: int) -> list[RunEvent] | None:
        """Return what comes after event `after`; None: it is not in memory any more."""
        if self.stored_seq <= after:
            return []
        if not self._tail or self._tail[0].seq > after + 1:
            return None
        return list(self._tail)[after + 1 - self._tail[0].seq :]

    def _end(self, last: Sequence[tuple[str, bytes, bool]], operations: Callable[[], Sequence[Argument]]) -> None:
        events = [self._next(*each) for each in last]
        stored = [part for event in events for part in RunStore.append(self.run_id, event, 0)]
        self._write(events, [*stored, *operations()]).wait()

    def _next(self, kind: str, payload: bytes, synthetic: bool) -> RunEvent:
        self.last_seq += 1
        self.bytes += len(payload)
        return RunEvent(seq=self.last_seq, at=clock.now(), type=kind, payload=msgspec.Raw(payload), synthetic=synthetic)

    def _write(self, events: Sequence[RunEvent], operations: Sequence[Argument]) -> Write:
        write = self._writer.write(operations, insists=True, on_written=lambda: self._stored(events))
        self._unwritten.append(write)
        return write

    def _stored(self, events: Sequence[RunEvent]) -> None:
        self._tail.extend(events)
        self.stored_seq = events[-1].seq
        self._changed, changed = Event(), self._changed
        changed.set()


def follow(store: RunStore, run_id: str, after: int, live: Callable[[], RunLog | None]) -> Iterator[RunEvent | None]:
    """Return the events after number `after`, and those that come, to the last one; None is "still here".

    Where the run waits for an answer, that is the event which asks for it. `live` returns the log of the run while it is under
    way. Of a run that is over, or waits, whoever has seen everything gets its last event once more: no stream ends without one.

    Raises:
        Unavailable: Redis does not answer. NotFound: the run was removed meanwhile.
    """
    while True:
        log = live()
        events = log.since(after) if log else None
        if events is None:
            events = store.events(run_id, after, PAGE)
        for event in events:
            yield event
            after = event.seq
            if event.is_last or (log is not None and log.paused_seq == event.seq):
                return
        if events:
            continue
        if log is None or 0 < log.paused_seq <= min(after, log.stored_seq):
            last, _ = store.last_event(run_id)
            if last is None or last.type not in TERMINAL:
                raise NotFound("run", run_id, message=f"the events of run {run_id} are not kept any more")
            yield last
            return
        if not log.wait(defaults.RUN_HEARTBEAT_S, after):
            yield None
