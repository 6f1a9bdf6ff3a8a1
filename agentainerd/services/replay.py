"""Delivering what was queued: for each agent that is ready, in order of arrival, a few at a time, agents side by side.

A drain is one greenlet for one agent. It claims records, starts a worker for each, and ends when nothing is due soon. It is
woken when the agent becomes ready and when something is queued; the loop is only the net below.
"""

import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable

from gevent.event import AsyncResult, Event

from agentainerd import clock, defaults
from agentainerd.errors import AgentainerError
from agentainerd.model.requests import Outcome, Reason, Record, RequestState
from agentainerd.proxy.replay import Failure, Replayed
from agentainerd.proxy.routing import Gate, Route, RouteTable
from agentainerd.proxy.target import Target
from agentainerd.services.replay_rules import Ruling, Verdict, rule
from agentainerd.store.journal import RedisJournal
from agentainerd.store.requests import RequestStore
from agentainerd.store.spool import Spool

log = logging.getLogger(__name__)

LOOP = "replay"
LINGER_S = 10.0  # a drain waits this long for what is due later, then the loop has to wake it
CLAIM_AHEAD = 2  # records claimed for each worker
REFUSED_PAUSE_S = 0.05  # doubling, while connections are refused though the agent is said to be ready
MAX_REFUSED_PAUSE_S = 2.0
MIN_PAUSE_S = 0.01

Spawn = Callable[..., object]
Send = Callable[[Route, Target, Record, Iterable[bytes]], Replayed]


class ReplayService:
    """All drains. `wake` and `watch` never block; `max_attempts` may be replaced at any time."""

    def __init__(
        self,
        routes: RouteTable,
        journal: RedisJournal,
        requests: RequestStore,
        spool: Spool,
        send: Send,
        *,
        spawn: Spawn,
        max_attempts: int,
    ) -> None:
        self.routes = routes
        self.journal = journal
        self.max_attempts = max_attempts
        self._requests = requests
        self._spool = spool
        self._send = send
        self._spawn = spawn
        self._drains: dict[str, Drain] = {}
        self._held: dict[str, Record] = {}
        self._watched: dict[str, AsyncResult] = {}
        self._settled: dict[str, Counter[RequestState]] = {}
        self.on_drained: Callable[[str, int, int], object] = lambda agent_id, delivered, failed: None
        """Called with an agent's id and how many queued requests it was given, and how many failed, when it has had them all
        for now; must not block."""
        self._stopped = False

    def wake(self, agent_id: str) -> None:
        """Deliver what this agent has waiting, if it is ready."""
        drain = self._drains.get(agent_id)
        if drain is not None:
            drain.wake()
            return
        route = self.routes.find(agent_id.encode())
        if route is not None and route.gate is Gate.OPEN and not self._stopped:
            drain = self._drains[agent_id] = Drain(self, route)
            self._spawn(f"replay {route.name}", drain.run)

    def run_once(self, now: float) -> int:
        """Renew the leases of what is under way and wake the drain of every ready agent that has something due.

        Returns how many agents those are. Requests of agents that were removed meanwhile are forgotten.

        Raises:
            Unavailable: Redis does not answer.
        """
        if self._held:
            self.journal.renew(list(self._held.values()), defaults.LEASE_S)
        woken = 0
        for agent_id in self._requests.due(now):
            route = self.routes.find(agent_id.encode())
            if route is None and self.routes.complete:
                self._requests.forget_agent(agent_id)
            elif route is not None and route.gate is Gate.OPEN:
                self.wake(agent_id)
                woken += 1
        return woken

    def watch(self, request_id: str) -> AsyncResult:
        """Return what will hold the `Outcome` of a request's next attempt, or None where it is tried again later."""
        return self._watched.setdefault(request_id, AsyncResult())

    def unwatch(self, request_id: str) -> None:
        """Nobody waits for it any more."""
        self._watched.pop(request_id, None)

    def stop(self) -> None:
        """Begin nothing more; what is under way goes on to its end."""
        self._stopped = True
        for drain in list(self._drains.values()):
            drain.wake()

    @property
    def in_flight(self) -> int:
        """Records that are claimed and not settled."""
        return len(self._held)

    # For drains

    @property
    def is_stopped(self) -> bool:
        """No drain may begin anything."""
        return self._stopped

    def claim(self, route: Route, limit: int) -> list[Record]:
        """Take up to `limit` records and keep their leases alive from now on.

        One whose lease ran out though its worker lives, because Redis was away or the clock was set, is claimed again by its
        own holder: the worker goes on under the new lease.
        """
        records = self.journal.claim(
            route.agent_id, limit=limit, now=clock.now(), lease_s=defaults.LEASE_S, ordered=route.ordered
        )
        new = []
        for record in records:
            held = self._held.setdefault(record.id, record)
            held.lease = record.lease
            if held is record:
                new.append(record)
        return new

    def start(self, name: str, function: Callable[[Record], None], record: Record) -> None:
        """Run a worker."""
        self._spawn(name, function, record)

    def attempt(self, route: Route, record: Record) -> Ruling:
        """Send a record to the agent once and return what becomes of it. A replica that refuses the connection is passed over."""
        target = route.pick()
        if target is None or route.gate is not Gate.OPEN:
            return Ruling(Verdict.GIVE_BACK)
        if record.spool and not self._spool.exists(record.spool):
            log.error("the body of a queued request is lost", extra={"request_id": record.id})
            error = "its body is not in the spool any more"
            return Ruling(Verdict.SETTLE, Outcome(RequestState.FAILED, Reason.INTERRUPTED, error=error))
        replayed, tried = self._send_to(route, target, record), [target]
        while replayed.failure is Failure.CONNECT and (target := route.pick_but(tried)) is not None:
            replayed = self._send_to(route, target, record)
            tried.append(target)
        jitter = random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, guards nothing
        return rule(record, replayed, now=clock.now(), max_attempts=self.max_attempts, jitter=jitter)

    def _send_to(self, route: Route, target: Target, record: Record) -> Replayed:
        body = self._spool.pieces(record.spool) if record.spool else (record.body,)
        replayed = self._send(route, target, record, body)
        if replayed.failure is Failure.CONNECT:
            self.routes.on_suspect(route, target)
        return replayed

    def apply(self, record: Record, ruling: Ruling) -> None:
        """Write down what became of a claimed record. Never blocks; the journal keeps it while Redis is away."""
        self._held.pop(record.id, None)
        self._count(record.agent_id, ruling)
        if ruling.verdict is Verdict.SETTLE and ruling.outcome is not None:
            self.journal.settle(record, ruling.outcome)
            self._settled.setdefault(record.agent_id, Counter())[ruling.outcome.state] += 1
        elif ruling.verdict is Verdict.RETRY:
            record.maybe_duplicate = record.maybe_duplicate or ruling.is_duplicate
            self.journal.retry(record, due_at=ruling.due_at, error=ruling.error)
        else:
            self.journal.give_back(record)
        if ruling.verdict is not Verdict.GIVE_BACK and (watched := self._watched.pop(record.id, None)):
            watched.set(ruling.outcome)

    def _count(self, agent_id: str, ruling: Ruling) -> None:
        route = self.routes.find(agent_id.encode())
        if route is None:
            return
        if ruling.verdict is Verdict.RETRY:
            route.tally.retried += 1
        elif ruling.verdict is Verdict.SETTLE and ruling.outcome is not None:
            if ruling.outcome.state is RequestState.COMPLETED:
                route.tally.delivered += 1
            else:
                route.tally.failed += 1

    def ended(self, agent_id: str) -> None:
        """A drain is over."""
        del self._drains[agent_id]
        if settled := self._settled.pop(agent_id, None):
            self.on_drained(agent_id, settled[RequestState.COMPLETED], settled[RequestState.FAILED])


class Drain:
    """One agent's deliveries. Its state is changed by its own greenlet and its workers, never across a switch."""

    def __init__(self, service: ReplayService, route: Route) -> None:
        self._service = service
        self._route = route
        self._records: deque[Record] = deque()
        self._running = 0
        self._width = 1
        self._answered = 0
        self._refused = 0
        self._hold_until = 0.0
        self._next_due = 0.0
        self._is_empty = False
        self._is_woken = False
        self._event = Event()

    def wake(self) -> None:
        """Look again."""
        self._is_woken = True
        self._event.set()

    def run(self) -> None:
        """Deliver until there is nothing to do for a while, or the agent is not ready."""
        try:
            while True:
                self._event.clear()
                pause_s = self._step()
                if pause_s > 0:
                    self._event.wait(pause_s)
                elif not self._is_woken:
                    return
        except AgentainerError as error:
            log.warning("replay paused: %s", error, extra={"agent_id": self._route.agent_id})
        finally:
            self._service.ended(self._route.agent_id)
            self._return_all()

    def _step(self) -> float:
        """Do what can be done now; return how long to wait for a wake-up at most, 0: it is over."""
        if self._route.gate is not Gate.OPEN or self._service.is_stopped:
            self._is_woken = False
            self._return_all()
            return LINGER_S if self._running else 0.0
        held_s = self._hold_until - time.monotonic()
        if held_s > 0:
            return held_s
        if self._is_woken or (self._next_due and self._next_due <= clock.now()):
            self._is_woken = self._is_empty = False
            self._next_due = 0.0
        self._claim()
        while self._records and self._running < self._width:
            self._running += 1
            self._service.start(f"deliver to {self._route.name}", self._deliver, self._records.popleft())
        wait_s = self._next_due - clock.now() if self._next_due else LINGER_S
        if self._running or self._records:
            return min(max(wait_s, MIN_PAUSE_S), LINGER_S)
        return max(wait_s, MIN_PAUSE_S) if wait_s < LINGER_S else 0.0

    def _claim(self) -> None:
        if self._is_empty or len(self._records) >= self._width or (self._route.ordered and self._running):
            return
        limit = 1 if self._route.ordered else self._width * CLAIM_AHEAD
        claimed = self._service.claim(self._route, limit)
        self._records.extend(claimed)
        self._is_empty = len(claimed) < limit

    def _deliver(self, record: Record) -> None:
        ruling = Ruling(Verdict.GIVE_BACK)
        try:
            ruling = self._service.attempt(self._route, record)
        finally:
            self._service.apply(record, ruling)
            self._running -= 1
            self._learn(ruling)
            self._event.set()

    def _learn(self, ruling: Ruling) -> None:
        """Widen after answers, narrow after refusals."""
        if ruling.verdict is Verdict.SETTLE:
            self._refused = 0
            self._answered += 1
            if self._answered >= self._width:
                self._width = min(self._width * 2, self._route.replay_concurrency)
                self._answered = 0
        elif ruling.verdict is Verdict.RETRY:
            self._width = max(1, self._width // 2)
            self._next_due = min(self._next_due or ruling.due_at, ruling.due_at)
        elif ruling.error:
            self._hold_until = time.monotonic() + min(REFUSED_PAUSE_S * 2 ** min(self._refused, 8), MAX_REFUSED_PAUSE_S)
            self._refused += 1
            self._is_empty = False
        if self._route.ordered:
            self._is_empty = False

    def _return_all(self) -> None:
        """Give back what was claimed and not begun, the last one first."""
        while self._records:
            self._service.apply(self._records.pop(), Ruling(Verdict.GIVE_BACK))
