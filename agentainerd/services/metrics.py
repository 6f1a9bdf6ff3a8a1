"""What agents use: one round over all containers that run every few seconds, kept until the next one and in the history."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import gevent
from gevent.lock import RLock

from agentainerd import clock, defaults
from agentainerd.engine.engine import Engine
from agentainerd.errors import AgentainerError
from agentainerd.model.agents import Agent
from agentainerd.model.metrics import Sample, Traffic, Usage, sample, total
from agentainerd.model.metrics_history import Point, point
from agentainerd.model.replicas import Replica
from agentainerd.model.tallies import Tally
from agentainerd.proxy.routing import Gate
from agentainerd.services.fleet import Fleet
from agentainerd.services.metrics_history import MetricsHistory
from agentainerd.store.requests import Counts, RequestStore

log = logging.getLogger(__name__)

FIRST_LOOK_S = 1.0
MAX_AGE_S = 2 * defaults.METRICS_INTERVAL_S
"""A measurement older than that, because rounds fail, is not shown."""


Run = tuple[str, float]
"""Container and time of its start: one that is started again counts anew."""


@dataclass(frozen=True, slots=True)
class Figures:
    """All that is known of an agent at one moment. `tally` goes on counting; `in_flight`: at the agent now."""

    agent: Agent
    measured: "Measured"
    tally: Tally
    counts: Counts
    in_flight: int
    is_ready: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """What an agent uses, in all and by the number of its replicas; `at`: epoch seconds. `runs`: what was to be read."""

    at: float
    whole: Sample
    replicas: dict[int, Sample] = field(default_factory=dict)
    runs: frozenset["Run"] = frozenset()


class MetricsService:
    """Takes the measurements. `run_once` is a loop's body; everything else may be called from any greenlet.

    Lock: one measurement at a time; a usage is compared with one before it of the same run of the same
    container, in a round with that of the round before.
    """

    def __init__(self, fleet: Fleet, engine: Engine, requests: RequestStore, history: MetricsHistory) -> None:
        self._fleet = fleet
        self._engine = engine
        self._requests = requests
        self._history = history
        self._lock = RLock()
        self._known: dict[str, Measured] = {}
        self._rounds: dict[Run, Usage] = {}
        self._latest: dict[Run, Usage] = {}
        self._traffic: dict[str, Traffic] = {}
        self._has_begun = False
        self._round_s = 0.0

    @property
    def round_s(self) -> float:
        """Seconds that the last round took."""
        return self._round_s

    def run_once(self, now: float) -> int:
        """Measure all agents, and put them into the history; return how many containers were read.

        Raises:
            Unavailable: Redis does not answer, or is full; what was measured is known, and written later.
        """
        agents = self._fleet.store.all()
        if not self._has_begun:
            self._has_begun = True
            self._begin(agents)
        began = time.monotonic()
        with self._lock:
            measured = self._known = self._measure(agents, self._rounds)
            runs = {run for each in measured.values() for run in each.runs}
            self._rounds = {run: usage for run, usage in self._latest.items() if run in runs}
            self._latest = dict(self._rounds)
        self._remember(agents, now)
        self._round_s = time.monotonic() - began
        return sum(each.whole.containers for each in measured.values())

    def figures(self, agents: Sequence[Agent], max_age_s: float = MAX_AGE_S) -> list[Figures]:
        """Return all that is known of these agents.

        What they use is that of the last round, if it is not older than `max_age_s`; those that were started or stopped since
        then are measured now.

        Raises:
            Unavailable: Redis does not answer.
        """
        counts = self._requests.counts_of([agent.id for agent in agents])
        measured = self._up_to_date(agents, max_age_s)
        return [self._figures(agent, measured[agent.id], counts[agent.id]) for agent in agents]

    def history(self, agent: Agent, since: float) -> list[Point]:
        """Return an agent's points from `since` on (epoch seconds), in order. Raises Unavailable."""
        return self._history.points(agent.id, since, clock.now() + defaults.METRICS_INTERVAL_S)

    def close(self) -> None:
        """Write what is not in the history yet, as well as that can be done."""
        try:
            self._history.flush()
        except AgentainerError as error:
            log.warning("the last minute of metrics could not be written: %s", error)

    def _begin(self, agents: Sequence[Agent]) -> None:
        """Take a first reading of containers that have run for long, so that their first rates are not those of their lives."""
        old = [agent for agent in agents for replica in _alive(agent) if replica.started_at < clock.now() - MAX_AGE_S]
        if old:
            with self._lock:
                self._known |= self._measure(old, {})
                self._rounds = dict(self._latest)
            gevent.sleep(FIRST_LOOK_S)

    def _up_to_date(self, agents: Sequence[Agent], max_age_s: float) -> dict[str, Measured]:
        with self._lock:
            stale = [agent for agent in agents if not self._is_new(agent, max_age_s)]
            if stale:
                self._known |= self._measure(stale, self._latest)
            return {agent.id: self._known[agent.id] for agent in agents}

    def _is_new(self, agent: Agent, max_age_s: float) -> bool:
        known = self._known.get(agent.id)
        return known is not None and known.runs == _runs(agent) and clock.now() - known.at < max_age_s

    def _figures(self, agent: Agent, measured: Measured, counts: Counts) -> Figures:
        route = self._fleet.route(agent.id)
        return Figures(
            agent,
            measured,
            route.tally if route else Tally(),
            counts,
            in_flight=route.in_flight if route else 0,
            is_ready=route is not None and route.gate is Gate.OPEN,
        )

    def _remember(self, agents: Sequence[Agent], now: float) -> None:
        """Add a point of each agent of which there is something to tell."""
        before, self._traffic = self._traffic, {}
        for known in self.figures(agents):
            agent_id = known.agent.id
            traffic = self._traffic[agent_id] = _traffic(known, now)
            earlier = before.get(agent_id)
            is_idle = earlier is None or earlier.requests == traffic.requests
            if known.measured.whole.containers or traffic.pending or not is_idle:
                self._history.note(agent_id, point(now, known.measured.whole, traffic, earlier))
        self._history.keep_only(self._traffic)
        self._history.turn(now)

    def _measure(self, agents: Sequence[Agent], before: Mapping[Run, Usage]) -> dict[str, Measured]:
        alive = {agent.id: _alive(agent) for agent in agents}
        usages = self._engine.usages([replica.container_id for replicas in alive.values() for replica in replicas])
        at = clock.now()
        measured = {}
        for place, agent in enumerate(agents, 1):
            found = {}
            for replica in alive[agent.id]:
                usage = usages.get(replica.container_id)
                if usage is not None:
                    run = _run(replica)
                    found[replica.number] = sample(usage, before.get(run), replica.started_at)
                    self._latest[run] = usage
            measured[agent.id] = Measured(at, total(list(found.values()), at), found, _runs(agent))
            if place % defaults.BREATH == 0:
                gevent.sleep(0)
        return measured


def _alive(agent: Agent) -> list[Replica]:
    return [replica for replica in agent.replicas if replica.is_alive and replica.container_id]


def _traffic(known: Figures, at: float) -> Traffic:
    tally = known.tally
    return Traffic(
        at=at,
        requests=tally.requests,
        errors=tally.errors,
        answers=tally.answers,
        seconds=tally.latency.seconds,
        in_flight=known.in_flight,
        pending=known.counts.pending,
    )


def _runs(agent: Agent) -> frozenset[Run]:
    return frozenset(_run(replica) for replica in _alive(agent))


def _run(replica: Replica) -> Run:
    return replica.container_id, replica.started_at
