"""What happened: told here by whoever does it, kept in the store in order, read from there by whoever follows.

Telling never blocks and never fails: events wait in memory until the store has them, also while Redis is away. An event is
sent only after it was stored, so that a reader can always go on from the last one that it saw.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Generator

import gevent
import msgspec
from gevent.event import Event as Signal

from agentainerd import defaults
from agentainerd.errors import Unavailable
from agentainerd.model.agents import Agent
from agentainerd.model.events import Action, Event, EventFilter, changes, next_id
from agentainerd.model.replicas import AgentState, Replica
from agentainerd.store.events import EventStore

log = logging.getLogger(__name__)

BATCH = 100
RETRY_S = 0.5

Spawn = Callable[..., object]


class EventService:
    """Every method may be called from any greenlet. `publish` does not block."""

    def __init__(self, store: EventStore, spawn: Spawn) -> None:
        self._store = store
        self._spawn = spawn
        self._waiting: deque[Event] = deque(maxlen=defaults.MAX_EVENTS)
        self._last_id: str | None = None  # None: nobody has looked
        self._replicas: dict[str, dict[int, Replica]] = {}
        self._ready: set[str] = set()  # agents whose start is not saved yet
        self._is_writing = False
        self._stored = Signal()

    def publish(
        self, action: Action, *, agent_id: str = "", agent: str = "", message: str = "", **details: str | float | bool
    ) -> None:
        """Tell of something that happened now. Of those that can't be stored, the last MAX_EVENTS are kept in memory."""
        self._waiting.append(
            Event(action=action, at=time.time(), agent_id=agent_id, agent=agent, message=message, details=details)
        )
        if not self._is_writing:
            self._is_writing = True
            self._spawn("events", self._write)

    def know(self, agent: Agent) -> None:
        """Take an agent as it is: what becomes of it from now on is told."""
        self._replicas[agent.id] = {replica.number: replica for replica in agent.replicas}

    def saved(self, agent: Agent) -> None:
        """Tell what became of an agent since it was known, or saved, the last time."""
        before = self._replicas.get(agent.id, {})
        for now in agent.replicas:
            for change in changes(before.get(now.number, Replica(number=now.number)), now):
                which = {"replica": now.number} if agent.spec.replicas > 1 else {}
                self.publish(
                    change.action,
                    agent_id=agent.id,
                    agent=agent.name,
                    message=change.message,
                    **change.details,
                    **which,
                )
        self.know(agent)
        if agent.id in self._ready:
            self.ready(agent.id, agent.name)

    def ready(self, agent_id: str, name: str) -> None:
        """Tell that an agent takes requests; after it was told that it runs, which may take until the agent is saved."""
        if any(replica.state is AgentState.RUNNING for replica in self._replicas.get(agent_id, {}).values()):
            self._ready.discard(agent_id)
            self.publish(Action.READY, agent_id=agent_id, agent=name)
        else:
            self._ready.add(agent_id)

    def forget(self, agent_id: str) -> None:
        """An agent is gone."""
        self._replicas.pop(agent_id, None)
        self._ready.discard(agent_id)

    def last(self, limit: int, wanted: EventFilter) -> list[Event]:
        """Return the last `limit` events that are asked for, oldest first.

        Raises:
            Unavailable: Redis does not answer.
        """
        found: list[Event] = []
        event_id = ""
        while len(found) < limit and (page := self._store.before(event_id, BATCH)):
            found += filter(wanted.matches, page)
            event_id = page[-1].id
        return found[:limit][::-1]

    def after(self, event_id: str, limit: int, wanted: EventFilter) -> list[Event]:
        """Return the first `limit` events after this id ("": all that are kept) that are asked for.

        Raises:
            Unavailable: Redis does not answer.
        """
        found: list[Event] = []
        while len(found) < limit and (page := self._store.after(event_id, BATCH)):
            found += filter(wanted.matches, page)
            event_id = page[-1].id
        return found[:limit]

    def follow(self, event_id: str | None, wanted: EventFilter) -> Generator[Event | None, None, None]:
        """Return the events after this id that are asked for, and those that come, for ever; None is "still here".

        None as the id: only those that come from now on. While Redis is away nothing comes, and nothing is left out.
        """
        while event_id is None:
            try:
                event_id = self._store.last_id()
            except Unavailable:
                yield None
                gevent.sleep(RETRY_S)
        yield None  # whoever waits for the beginning knows that from here on nothing is missed
        while True:
            stored = self._stored
            try:
                page = self._store.after(event_id, BATCH)
            except Unavailable:
                gevent.sleep(RETRY_S)
                page = []
            for event in page:
                event_id = event.id
                if wanted.matches(event):
                    yield event
            if not page and not stored.wait(defaults.EVENT_HEARTBEAT_S):
                yield None

    def _write(self) -> None:
        """Store what waits, then end. Begun by `publish`, one at a time."""
        try:
            while self._waiting:
                self._store_all([self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))])
        finally:
            self._is_writing = False

    def _store_all(self, events: list[Event]) -> None:
        """Number and store events, for as long as it takes; they are dropped where another daemon has the journal."""
        numbered: list[Event] = []
        while True:
            try:
                if self._last_id is None:
                    self._last_id = self._store.last_id()
                numbered = numbered or _numbered(events, self._last_id)
                self._store.append(numbered)
            except Unavailable as error:
                if error.code == "JOURNAL_FENCED":
                    return
                gevent.sleep(RETRY_S)
            else:
                break
        self._last_id = numbered[-1].id
        self._stored, stored = Signal(), self._stored
        stored.set()


def _numbered(events: list[Event], last_id: str) -> list[Event]:
    numbered = []
    for event in events:
        last_id = next_id(last_id, event.at)
        numbered.append(msgspec.structs.replace(event, id=last_id))
    return numbered
