"""Sessions: conversations, their messages, what is said of them. Bound to an agent by its id or name, as the client gave it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import msgspec
from gevent.lock import RLock

from agentainerd import clock, defaults
from agentainerd.errors import InvalidParameter, NotSupported, TooManyRequests
from agentainerd.model.runs import Run
from agentainerd.model.sessions import Message, Session, Summary, new_session_id
from agentainerd.services.audit import Actor, AuditService
from agentainerd.store.connection import Argument
from agentainerd.store.run_writer import RunWriter
from agentainerd.store.runs import RunStore
from agentainerd.store.sessions import SessionStore

SUMMARY_RUNS = 3
ID_CHARS = 36  # of a UUID
_LINKS = ("agent_id", "team_id", "workflow_id", "user_id")


class SessionService:
    """Every method blocks its greenlet only. All raise Unavailable where Redis does not answer; those with a session's id
    raise NotFound where there is none. For clients an id may be its beginning; Conflict where several begin so.
    """

    def __init__(self, store: SessionStore, runs: RunStore, writer: RunWriter, audit: AuditService) -> None:
        """Serve the sessions of `store`. `has_summaries` says whether summaries are made; it may change at any time."""
        self.has_summaries = True
        self._store = store
        self._runs = runs
        self._writer = writer
        self._audit = audit
        self._locks: WeakValueDictionary[str, RLock] = WeakValueDictionary()
        self.on_deleted: Callable[[Session], None] = lambda session: None
        """Called with a session that was deleted; must not block."""

    # For clients

    def create(self, actor: Actor, *, session_id: str = "", **fields: Any) -> Session:
        """Make a session of these fields of `Session`; `agent_id` is required, and need not be an agent that is there.
        `session_id`: of one that has a name of its own, else a new one.

        Raises:
            InvalidParameter. TooManyRequests: MAX_SESSIONS are kept.
        """
        now = clock.now()
        session = Session(id=session_id or new_session_id(), created_at=now, updated_at=now, **fields)
        session.check()
        if self._store.count() >= defaults.MAX_SESSIONS:
            raise TooManyRequests(
                f"there are {defaults.MAX_SESSIONS} sessions already",
                code="TOO_MANY_SESSIONS",
                hint="delete those that nobody needs: agentainerctl sessions delete SESSION",
            )
        with self._audit.mutation(actor, "create_session", session.id):
            self._writer.commit(SessionStore.begin(session))
        return session

    def get(self, session_id: str) -> Session:
        """Return a session."""
        return self._store.get(self.resolve(session_id))

    def resolve(self, ref: str) -> str:
        """Return the id that `ref` is, or is the beginning of."""
        return ref if len(ref) == ID_CHARS else self._store.complete(ref)

    def page(self, wanted: Mapping[str, str], *, limit: int, offset: int) -> tuple[list[Session], int]:
        """Return sessions, newest first, and how many match in all. `wanted`: some of _LINKS; "" is any."""
        found = [
            session
            for session in self._store.all()
            if all(getattr(session, field) == value for field, value in wanted.items() if value)
        ]
        return found[offset : offset + limit], len(found)

    def update(
        self,
        session_id: str,
        actor: Actor,
        *,
        name: str = "",
        metadata: dict[str, Any] | None = None,
        state: dict[str, Any] | None = None,
    ) -> Session:
        """Change what is given; `metadata` and `state` are replaced whole. Raises InvalidParameter too."""
        changes = {"name": name or None, "metadata": metadata, "state": state}
        return self._change(
            session_id, actor, "update_session", {key: value for key, value in changes.items() if value is not None}
        )

    def reuse(self, session_id: str, actor: Actor, targets: Mapping[str, str]) -> Session:
        """Bind a session to another agent, team, workflow or user. Raises InvalidParameter where none is named."""
        changes = {field: targets.get(field, "") for field in _LINKS if targets.get(field)}
        if not changes:
            raise InvalidParameter("agent_id", "at least one target identifier is required")
        return self._change(session_id, actor, "reuse_session", changes)

    def delete(self, session_id: str, actor: Actor) -> None:
        """Forget a session and its messages. A run of it that is under way goes on, and is kept as a run. An agent that keeps the
        conversation too, and runs, is asked to forget it (run_forgetting.py), after such a run.
        """
        with self._changing(session_id, actor, "delete_session") as session:
            self._writer.commit(SessionStore.remove(session.id))
        self.on_deleted(session)

    def summarize(self, session_id: str, actor: Actor) -> Session:
        """Write down what the last runs came to: the answers of the last SUMMARY_RUNS that have one, else what was asked.

        Raises:
            NotSupported: summaries are turned off (code SUMMARY_DISABLED).
        """
        with self._changing(session_id, actor, "summarize_session") as session:
            if not self.has_summaries:
                hint = "set api.summaries to true, or ask for /history"
                raise NotSupported("summaries are turned off in this daemon", code="SUMMARY_DISABLED", hint=hint)
            runs = self._runs.of_session(session.id)
            said = [run.output.strip() for run in runs if run.output.strip()][-SUMMARY_RUNS:]
            asked = [run.input.strip() for run in runs if run.input.strip()][-SUMMARY_RUNS:]
            content = "\n".join(said or asked) or "nothing was said yet"
            summary = Summary(
                content=content, run_count=session.run_count, total_tokens=session.total_tokens, created_at=clock.now()
            )
            session = msgspec.structs.replace(session, summary=summary, updated_at=clock.now())
            self._writer.commit(SessionStore.put(session))
            return session

    def messages(
        self, session_id: str, *, after: int = 0, limit: int = defaults.PAGE_LIMIT
    ) -> list[tuple[int, Message]]:
        """Return messages with their numbers, oldest first, after number `after`."""
        return self._store.messages(self.get(session_id).id, after, limit)

    def last_messages(self, session_id: str, limit: int) -> list[Message]:
        """Return the last messages, oldest first."""
        return self._store.last_messages(self.get(session_id).id, limit)

    def runs(self, session_id: str, limit: int = 0) -> list[Run]:
        """Return the last runs of a session that are kept, oldest first; 0: all of them."""
        return self._runs.of_session(self.get(session_id).id, limit)

    # For runs

    @contextmanager
    def locked(self, session_id: str) -> Iterator[Session]:
        """Hold a session's lock; the value is the session as it is stored then. Raises NotFound."""
        lock = self._locks.get(session_id)
        if lock is None:
            lock = self._locks[session_id] = RLock()
        with lock:
            yield self._store.get(session_id)

    def conversation(self, session_id: str) -> list[Message]:
        """Return what an agent is told of a session: its last messages, of at most MAX_SESSION_SENT_BYTES, from a user's on."""
        messages = self._store.last_messages(session_id, defaults.MAX_SESSION_MESSAGES)
        size = start = 0
        for place in range(len(messages) - 1, -1, -1):
            size += _size([messages[place]])
            if size > defaults.MAX_SESSION_SENT_BYTES:
                break
            if messages[place].role == "user":
                start = place
        else:
            return messages
        return messages[start:] if start else []

    def after_run(
        self, session: Session, run: Run, messages: Sequence[Message], state: dict[str, Any] | None
    ) -> list[Argument]:
        """Return what ends a run in its session, for whoever holds its lock and writes it. Asks Redis where it is full."""
        size, keep = session.bytes + _size(messages), defaults.MAX_SESSION_MESSAGES
        if size > defaults.MAX_SESSION_BYTES:
            size, keep = self._room(session.id, messages)
        changed = msgspec.structs.replace(
            session,
            run_count=session.run_count + 1,
            messages=session.messages + len(messages),
            bytes=size,
            total_tokens=session.total_tokens + run.usage.input_tokens + run.usage.output_tokens,
            state=session.state if state is None else state,
            unanswered=run.unanswered() if run.started_at else session.unanswered,
            updated_at=clock.now(),
        )
        return SessionStore.put(changed, messages, keep)

    def _room(self, session_id: str, new: Sequence[Message]) -> tuple[int, int]:
        """Return what the new messages take with as many of the last old ones as half of MAX_SESSION_BYTES has room for, and
        how many all these are.
        """
        size, count = _size(new), len(new)
        for message in reversed(self._store.last_messages(session_id, defaults.MAX_SESSION_MESSAGES)):
            more = _size([message])
            if size + more > defaults.MAX_SESSION_BYTES // 2:
                break
            size += more
            count += 1
        return size, count

    @contextmanager
    def _changing(self, ref: str, actor: Actor, action: str) -> Iterator[Session]:
        with self._audit.mutation(actor, action, ref) as entry:
            entry.target = self.resolve(ref)
            with self.locked(entry.target) as session:
                yield session

    def _change(self, session_id: str, actor: Actor, action: str, changes: Mapping[str, Any]) -> Session:
        with self._changing(session_id, actor, action) as session:
            session = msgspec.structs.replace(session, **changes, updated_at=clock.now())
            session.check()
            self._writer.commit(SessionStore.put(session))
            return session


def _size(messages: Sequence[Message]) -> int:
    return sum(len(msgspec.json.encode(message)) for message in messages)
