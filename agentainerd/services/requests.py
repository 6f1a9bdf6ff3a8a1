"""An agent's durable requests, for administrators, and for those who hold a ticket: look, deliver again, cancel, purge."""

from collections.abc import Callable
from dataclasses import dataclass

from agentainerd import offload
from agentainerd.errors import Conflict, InvalidParameter, NotFound
from agentainerd.model.agents import Agent
from agentainerd.model.requests import Detail, RequestState, StoredResponse
from agentainerd.proxy.routing import Gate
from agentainerd.services.audit import Actor, AuditService
from agentainerd.services.fleet import Fleet
from agentainerd.services.replay import ReplayService
from agentainerd.services.views import Json, detail_json, public_json, summary_json
from agentainerd.store.requests import RequestStore
from agentainerd.store.spool import Spool

PURGEABLE = (RequestState.PENDING, RequestState.FAILED)


@dataclass(frozen=True, slots=True)
class ReplayAnswer:
    """What became of a manual replay: the agent's status, or 0 where it goes on (`state` pending) or failed."""

    state: RequestState
    status: int
    is_ready: bool


class RequestService:
    """Reads and changes of records that are not on their way. `ref` is an agent's id or name."""

    def __init__(
        self,
        fleet: Fleet,
        store: RequestStore,
        spool: Spool,
        replay: ReplayService,
        *,
        audit: AuditService,
        max_attempts: Callable[[], int],
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._spool = spool
        self._replay = replay
        self._audit = audit
        self._max_attempts = max_attempts

    def page(self, ref: str, *, state: RequestState | None, limit: int, cursor: str) -> Json:
        """Return one page of an agent's requests; `pending` repeats those that are, as the original has them.

        Raises:
            NotFound: no such agent. InvalidParameter: not a cursor of ours.
        """
        agent = self._fleet.find(ref)
        summaries, next_cursor = self._store.page(agent.id, state=state, limit=limit, cursor=cursor)
        shown = [summary_json(summary, self._max_attempts()) for summary in summaries]
        return {
            "agent_id": agent.id,
            "requests": shown,
            "pending": [line for line in shown if line["status"] == RequestState.PENDING.value],
            "count": len(shown),
            "next_cursor": next_cursor,
        }

    def detail(self, ref: str, request_id: str) -> Json:
        """Return one request whole, with its body and the stored answer, secrets masked.

        Raises:
            NotFound: no such agent, or no such request of it.
        """
        found = self._store.detail(self._fleet.find(ref).id, request_id)
        return detail_json(found, self._body(found), self._max_attempts())

    def cancel(self, ref: str, request_id: str, actor: Actor) -> None:
        """Take a pending request back (it fails as cancelled), or remove a dead letter for good.

        Raises:
            NotFound: no such agent or request. Conflict: it is on its way, or done.
        """
        with self._audit.mutation(actor, "cancel_request", f"{ref}/{request_id}"):
            agent_id = self._fleet.find(ref).id
            if self._store.detail(agent_id, request_id).summary.state is RequestState.FAILED:
                self._store.discard(agent_id, request_id)
            else:
                self._store.cancel(agent_id, request_id)

    def purge(self, ref: str, state: RequestState, actor: Actor) -> int:
        """Cancel all pending requests of an agent, or forget its dead letters; return how many.

        Raises:
            InvalidParameter: any other state can't be purged.
        """
        if state not in PURGEABLE:
            raise InvalidParameter("state", f"{state.value!r} can't be purged", hint="state=pending or state=failed")
        with self._audit.mutation(actor, "purge_requests", f"{ref} ({state.value})"):
            return self._store.purge(self._fleet.find(ref).id, state=state)

    def replay(self, ref: str, request_id: str, actor: Actor, *, wait_s: float) -> ReplayAnswer:
        """Deliver a pending request now, or a dead letter once more; wait up to `wait_s` for the agent's answer.

        Raises:
            NotFound: no such agent or request. Conflict: it is on its way or done, or its body was not kept.
        """
        with self._audit.mutation(actor, "replay_request", f"{ref}/{request_id}"):
            agent = self._fleet.find(ref)
            ended = self._replay.watch(request_id)
            try:
                self._store.requeue(agent.id, request_id)
                self._replay.wake(agent.id)
                is_ready = self._is_ready(agent)
                outcome = ended.get(timeout=wait_s) if is_ready and ended.wait(wait_s) else None
            finally:
                self._replay.unwatch(request_id)
        if outcome is None:
            return ReplayAnswer(RequestState.PENDING, 0, is_ready)
        return ReplayAnswer(outcome.state, outcome.status, is_ready)

    # By ticket

    def public(self, request_id: str) -> Json:
        """Return what the holder of a ticket may see.

        Raises:
            NotFound: no such request (any more).
        """
        return public_json(self._store.locate(request_id).summary)

    def response(self, request_id: str) -> StoredResponse:
        """Return the stored answer of a request.

        Raises:
            NotFound: no such request; code RESPONSE_GONE: it had an answer, which is not kept (any more).
            Conflict: code RESPONSE_NOT_READY: there is none yet. REQUEST_FAILED: there never will be.
        """
        found = self._store.locate(request_id)
        summary, response = found.summary, found.response
        if response is not None and not response.truncated:
            return response
        if summary.state in (RequestState.PENDING, RequestState.PROCESSING):
            raise Conflict(
                f"request {request_id} is {summary.state}: there is no answer yet",
                code="RESPONSE_NOT_READY",
                retry_after_s=2,
            )
        if summary.state is RequestState.FAILED:
            why = f": {summary.error}" if summary.error else ""
            raise Conflict(
                f"request {request_id} failed ({summary.reason}){why}; there will be no answer", code="REQUEST_FAILED"
            )
        why = "it was too large to be kept" if response else "it is not kept"
        raise NotFound("response", request_id, message=f"the answer is gone: {why}", code="RESPONSE_GONE")

    def cancel_public(self, request_id: str, actor: Actor) -> None:
        """Cancel a pending request for the holder of its ticket.

        Raises:
            NotFound, Conflict: as `cancel`; a dead letter stays.
        """
        with self._audit.mutation(actor, "cancel_request", request_id):
            self._store.cancel(self._store.locate(request_id).summary.agent_id, request_id)

    # Upkeep

    def sweep(self, now: float) -> int:
        """Turn passed deadlines into states and drop what is kept no longer; return how much was done. See RequestStore."""
        return self._store.sweep(now)

    def _is_ready(self, agent: Agent) -> bool:
        route = self._fleet.route(agent.id)
        return route is not None and route.gate is Gate.OPEN

    def _body(self, found: Detail) -> bytes | None:
        if not found.spool:
            return found.body
        return offload.run(self._read_spool, found.spool)

    def _read_spool(self, name: str) -> bytes | None:
        try:
            return b"".join(self._spool.pieces(name))
        except NotFound:
            return None
