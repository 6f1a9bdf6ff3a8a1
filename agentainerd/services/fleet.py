"""What the daemon holds in memory of its agents: one lock, one route and the targets of each; the store has the rest.

Whoever changes an agent holds its lock, reads it from the store under the lock, and saves it before letting go. Gates
are changed here only (and opened by readiness.py), so that a probe under way never opens one that was just closed.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial

import msgspec
from gevent.event import Event
from gevent.lock import RLock

from agentainerd.errors import NotFound
from agentainerd.model.agents import AGENT_ID, NAME, Agent
from agentainerd.model.containers import Container
from agentainerd.model.health import HealthState
from agentainerd.model.requests import ReplayPolicy
from agentainerd.proxy.routing import Gate, Route, RouteTable
from agentainerd.proxy.target import Target
from agentainerd.services.events import EventService
from agentainerd.services.readiness import Probe, Readiness
from agentainerd.store.agents import AgentStore


class Fleet:
    """Locks, routes and targets. Every method may be called from any greenlet; those that do I/O say so."""

    def __init__(
        self, store: AgentStore, routes: RouteTable, readiness: Readiness, events: EventService, *, persistence: bool
    ) -> None:
        self.store = store
        self._events = events
        self.routes = routes
        self._readiness = readiness
        self.on_wanted: Callable[[str], object] = lambda agent_id: None
        """Called with the id of an agent that sleeps when a request waits for it; must not block."""
        self.on_withdrawn: Callable[[str], object] = lambda agent_id: None
        """Called with the id of an agent that is gone; must not block."""
        self._persistence = persistence
        self._staged: dict[str, list[Target]] = {}
        self._locks: dict[str, RLock] = {}
        self._changed: dict[str, Event] = {}

    # Finding and locking

    def find(self, ref: str) -> Agent:
        """Return the stored agent with this id or name; asks Redis.

        Raises:
            NotFound: there is none; the hint has a name that is nearly the same.
        """
        if NAME.fullmatch(ref):
            try:
                return self.store.find(ref)
            except NotFound:
                pass
        route = self.routes.find(ref.encode())
        if route is not None and route.number:
            whole = route.whole.name
            message = f"'{ref}' is replica {route.number} of '{whole}': name the agent"
            raise NotFound(
                "agent", ref, message=message, code="AGENT_IS_REPLICA", hint=f"agentainerctl inspect {whole}"
            )
        near = get_close_matches(ref, [route.name for route in self.routes.routes()], n=1)
        hint = f"did you mean '{near[0]}'? see: agentainerctl list" if near else "agentainerctl list"
        raise NotFound("agent", ref, hint=hint)

    @contextmanager
    def locked(self, ref: str) -> Iterator[Agent]:
        """Hold the agent's lock; the value is the agent as it is stored then. Waits for whoever has the lock.

        Raises:
            NotFound: there is none, or it was removed while we waited.
        """
        agent_id = ref if AGENT_ID.fullmatch(ref) else self.find(ref).id
        with self._lock(agent_id):
            try:
                agent = self.find(agent_id)
                if self.route(agent_id) is None:
                    self.publish(agent)
                yield agent
            finally:
                if self.route(agent_id) is None:
                    self._locks.pop(agent_id, None)  # it is gone for good: ids are never used again

    @contextmanager
    def tried(self, agent_id: str) -> Iterator[bool]:
        """Take the agent's lock if nobody has it; the value says whether."""
        lock = self._lock(agent_id)
        taken = lock.acquire(blocking=False)
        try:
            yield taken
        finally:
            if taken:
                lock.release()

    # Routes

    def route(self, agent_id: str) -> Route | None:
        """Return an agent's route."""
        return self.routes.find(agent_id.encode())

    def publish(self, agent: Agent, gate: Gate = Gate.CLOSED) -> Route:
        """Make an agent reachable, with what its spec says; `gate` is HOLDING where it is expected to run."""
        route = self._configured(Route(agent.id, agent.name), agent)
        self._readiness.health.configure(agent.id, agent.spec.health_check)
        if gate is Gate.HOLDING:
            route.hold()
        self.routes.publish(route)
        self._events.know(agent)
        if agent.is_idle:
            route.on_wanted = partial(self.on_wanted, agent.id)
        self.reshape(agent)
        return route

    def configure(self, agent: Agent) -> None:
        """Have the agent's route and its parts do as its spec says now; who gets requests stays as it is. Memory only."""
        route = self.route(agent.id)
        if route is None:
            return
        is_other_check = self._readiness.health.check_of(agent.id) != agent.spec.health_check
        for each in (route, *route.parts.values()):
            self._configured(each, agent)
        self.reshape(agent)
        if not is_other_check:
            return
        self._readiness.health.configure(agent.id, agent.spec.health_check)
        for target in route.targets:
            if target in route.serving:
                self._readiness.health.watch(route, target)
            elif not target.is_retired and not self.is_well(target):
                self._readiness.health.forget(target)  # what another check thought of it counts no more
                self._readiness.watch(route, target)

    def reshape(self, agent: Agent) -> None:
        """Make each replica reachable by a name of its own where there are several; those that are not any more are not.

        Such a path means this container and no other: nothing that comes over it is queued.
        """
        route = self.route(agent.id)
        if route is None:
            return
        wanted = range(1, agent.spec.replicas + 1) if agent.spec.replicas > 1 else ()
        for number in [number for number in route.parts if number not in wanted]:
            self.routes.withdraw_part(route.parts.pop(number))
        for number in wanted:
            if number not in route.parts:
                self._add_part(route, agent, number)

    def withdraw(self, agent_id: str) -> None:
        """Forget an agent; what waits at its gate is not queued any more."""
        self.close(agent_id)
        route = self.route(agent_id)
        if route:
            route.persistence = False
            self._readiness.health.configure(agent_id, None)
            self._drop_targets(route)
            self.routes.withdraw(route)
        self._events.forget(agent_id)
        self._notify(agent_id)
        self._changed.pop(agent_id, None)
        self.on_withdrawn(agent_id)

    # Gates and targets

    def hold(self, agent_id: str) -> None:
        """Let requests wait from now on, until a probe of `attach` opens the gate."""
        self._readiness.cancel(agent_id)
        if route := self.route(agent_id):
            route.hold()

    def rest(self, agent: Agent) -> None:
        """Let requests wait from now on, and `on_wanted` be told of them. Does not block."""
        self.hold(agent.id)
        if route := self.route(agent.id):
            route.on_wanted = partial(self.on_wanted, agent.id)

    def expect(self, agent_id: str) -> None:
        """A replica is about to start: requests wait for it where none gets through."""
        route = self.route(agent_id)
        if route and not route.serving:
            route.hold()

    def settle(self, agent: Agent) -> None:
        """Where no request gets through, let them wait if a replica is expected, else queue them; refuse them at a replica's own
        path.
        """
        route = self.route(agent.id)
        if route is None:
            return
        route.on_wanted = partial(self.on_wanted, agent.id) if agent.is_idle else None
        if not route.serving and agent.is_expected:
            route.hold()
        elif not route.serving:
            self.close(agent.id)
        for replica in agent.replicas:
            part = route.parts.get(replica.number)
            if part and not part.serving and not replica.is_expected:
                part.close()

    def close(self, agent_id: str) -> None:
        """Queue requests from now on."""
        self._readiness.cancel(agent_id)
        if route := self.route(agent_id):
            route.close()

    def attach(self, agent: Agent, number: int, container: Container) -> Probe | None:
        """Point the agent's route at a running container and let a probe admit it. The replica's earlier run is retired."""
        route = self.route(agent.id)
        if route is None:
            return None
        target = self.target_of(agent.id, container)
        address = (container.address, agent.port)
        if target is None or target.address != address:
            self._drop_targets(route, number)
            target = _target(agent, number, container)
            route.targets = [*route.targets, target]
        elif target in route.serving:
            return None
        return self._readiness.watch(route, target)

    def is_container_of(self, agent_id: str, address: str) -> bool:
        """Whether one of the agent's containers, be it ready or not, has this address."""
        route = self.route(agent_id)
        targets = [*(route.targets if route else ()), *self._staged.get(agent_id, ())]
        return any(target.address[0] == address for target in targets if not target.is_retired)

    def touch(self, agent_id: str) -> None:
        """An agent did something by itself: it is not idle."""
        now = time.monotonic()
        if route := self.route(agent_id):
            for target in route.targets:
                target.used_at = now

    def reopen(self, agent_id: str) -> None:
        """Something that had closed the gate came to nothing: open it again for those that are ready."""
        route = self.route(agent_id)
        for target in route.targets if route else ():
            if route and not target.is_retired:
                self._readiness.watch(route, target)

    def stage(self, agent: Agent, number: int, container: Container) -> Probe | None:
        """Let a probe look at a container that is to take a replica's place as `agent` says, until `succeed` or `unstage`.

        It gets no requests, and the ones that get them go on. None: the agent is gone.
        """
        route = self.route(agent.id)
        if route is None:
            return None
        target = _target(agent, number, container)
        self._staged.setdefault(agent.id, []).append(target)
        return self._readiness.stage(route, target, agent.spec.health_check)

    def unstage(self, agent_id: str) -> None:
        """Those that were staged come to nothing."""
        for target in self._staged.pop(agent_id, ()):
            self._readiness.cancel_one(target)
            target.retire()
            self._readiness.health.forget(target)

    def succeed(self, agent: Agent) -> list[Target]:
        """Store an agent as it is with the staged containers, and give requests to these, all at once, and to no other one.

        Returns the targets that had them until now; what is in flight there goes on. The caller ends them (`end`).

        Raises:
            Conflict: another agent has the name of one of its replicas. NotFound: it was removed. Nothing is changed.
            Unavailable: Redis; what is stored is known again when it is back.
        """
        agent = msgspec.structs.replace(agent, updated_at=time.time())
        self.store.scale(agent)
        self._events.saved(agent)
        route = self.route(agent.id)
        staged = self._staged.pop(agent.id, [])
        old = route.targets if route else []
        if route:
            route.targets = [*old, *staged]
            self.configure(agent)
            for target in staged:
                self._readiness.admit(route, target)
            for target in old:
                self._readiness.cancel_one(target)
                route.dismiss(target)
                route.targets = [other for other in route.targets if other is not target]
        self._notify(agent.id)
        return old

    def end(self, target: Target) -> None:
        """The container of a target that no route has any more is down."""
        target.retire()
        self._readiness.health.forget(target)

    def dismiss(self, agent_id: str, number: int) -> None:
        """Give one replica no more requests; those that come wait where it was the last one. What is in flight goes on."""
        route = self.route(agent_id)
        for target in route.targets if route else ():
            if route and target.number == number:
                self._readiness.cancel_one(target)
                route.dismiss(target)

    def is_well(self, target: Target) -> bool:
        """A run is over, or its health check has not given up on it."""
        health = self._readiness.health.of(target)
        return target.is_retired or health is None or health.state is not HealthState.UNHEALTHY

    def probes_of(self, agent_id: str) -> list[Probe]:
        """Return the waits for readiness that are under way."""
        return self._readiness.probes_of(agent_id)

    def detach(self, agent: Agent, *numbers: int) -> None:
        """Containers of replicas run no more, or without `numbers` none does: their targets are retired.

        `agent` says what comes next: requests wait where one of its replicas is expected, else they are queued.
        """
        route = self.route(agent.id)
        if route is None:
            return
        self._drop_targets(route, *numbers)
        self.settle(agent)

    def target_of(self, agent_id: str, container: Container) -> Target | None:
        """Return the live target of exactly this run of the container."""
        route = self.route(agent_id)
        for target in route.targets if route else ():
            same = target.container_id == container.id and target.started_at == container.started_at
            if same and not target.is_retired:
                return target
        return None

    def bury(self, agent_id: str, container_id: str, at: float) -> None:
        """The engine says that a container died at `at` (epoch seconds): its run, not a later one, is over at once."""
        route = self.route(agent_id)
        for target in (*(route.targets if route else ()), *self._staged.get(agent_id, ())):
            if route and target.container_id == container_id and target.started_at <= at and not target.is_retired:
                route.dismiss(target)
                target.retire()

    # Saving

    def save(self, agent: Agent) -> Agent:
        """Store the agent and return it; blocks until Redis has it on disk.

        Raises:
            Unavailable: Redis does not answer; the next reconcile makes store and engine agree.
        """
        agent = msgspec.structs.replace(agent, updated_at=time.time())
        self.store.put(agent)
        self._events.saved(agent)
        self._notify(agent.id)
        return agent

    def wait_for_change(self, agent_id: str, timeout_s: float) -> None:
        """Block until the agent is saved or withdrawn, at most `timeout_s`."""
        self._changed.setdefault(agent_id, Event()).wait(timeout_s)

    def load(self) -> list[Agent]:
        """Publish every stored agent that has no route yet, and return them all. What ran is expected to run."""
        agents = self.store.all()
        for agent in agents:
            if self.route(agent.id) is None:
                self.publish(agent, Gate.HOLDING if agent.is_expected else Gate.CLOSED)
        return agents

    def _notify(self, agent_id: str) -> None:
        if event := self._changed.pop(agent_id, None):
            event.set()

    def _lock(self, agent_id: str) -> RLock:
        return self._locks.setdefault(agent_id, RLock())

    def _configured(self, route: Route, agent: Agent) -> Route:
        spec = agent.spec
        route.persistence = spec.persistence and self._persistence
        route.policy = ReplayPolicy.NEVER if route.number else spec.replay_policy
        route.ordered = spec.ordered
        route.replay_concurrency = 1 if spec.ordered else spec.replay_concurrency
        route.hold_timeout_s = spec.hold_timeout_s
        route.request_timeout_s = spec.request_timeout_s
        route.idle_timeout_s = spec.idle_timeout_s
        route.max_pending = spec.max_pending
        route.max_pending_bytes = spec.max_pending_bytes
        route.ports = {name.encode(): port for name, port in agent.named_ports.items()}
        route.token_digest = hashlib.sha256(spec.token.encode()).digest() if spec.token else b""
        return route

    def _add_part(self, route: Route, agent: Agent, number: int) -> None:
        part = self._configured(Route(agent.id, f"{agent.name}-{number}", number=number, whole=route), agent)
        route.parts[number] = part
        part.targets = [target for target in route.targets if target.number == number]
        if any(target in route.serving for target in part.targets):
            part.open()
        elif route.gate is not Gate.CLOSED:
            part.hold()
        self.routes.publish_part(part)

    def _drop_targets(self, route: Route, *numbers: int) -> None:
        for target in route.targets:
            if not numbers or target.number in numbers:
                self._readiness.cancel_one(target)
                route.dismiss(target)
                route.remove(target)
                target.retire()
                self._readiness.health.forget(target)


def _target(agent: Agent, number: int, container: Container) -> Target:
    return Target(
        (container.address, agent.port),
        container_id=container.id,
        started_at=container.started_at,
        number=number,
        listens=not (agent.bridge and agent.bridge.is_command),
    )
