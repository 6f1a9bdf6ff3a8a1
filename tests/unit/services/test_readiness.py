"""When an agent is ready, and whether one died."""

import time

import gevent
import pytest
from gevent import socket

from agentainerd import defaults
from agentainerd.errors import NotFound, Unavailable
from agentainerd.model.containers import Container, ContainerState
from agentainerd.proxy.routing import Gate, Route
from agentainerd.proxy.target import Target
from agentainerd.services.health import HealthMonitor
from agentainerd.services.readiness import DeathCheck, Readiness
from tests.fakes.engine import FakeEngine


@pytest.fixture
def listener():
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        yield made


@pytest.fixture
def readiness():
    ready = []

    def spawn(_, function, *arguments):
        return gevent.spawn(function, *arguments)  # noqa: TID251

    made = Readiness(spawn, HealthMonitor(FakeEngine(), spawn), ready.append)
    made.ready = ready
    return made


def route_to(listener) -> tuple[Route, Target]:
    route = Route("agent-1", "web")
    target = Target(listener.getsockname(), container_id="c1", started_at=5.0)
    route.targets = [target]
    return route, target


def test_the_gate_is_held_until_somebody_listens(readiness, listener):
    route, target = route_to(listener)
    probe = readiness.watch(route, target)
    gevent.sleep(0.05)
    assert (route.gate, readiness.ready, readiness.probe_of(target)) == (Gate.HOLDING, [], probe)

    listener.listen()
    probe.ended.wait(5)

    assert (probe.is_ready, route.gate, readiness.ready) == (True, Gate.OPEN, ["agent-1"])
    assert readiness.probe_of(target) is None


def test_a_second_watch_of_the_same_target_is_the_same_probe(readiness, listener):
    route, target = route_to(listener)

    assert readiness.watch(route, target) is readiness.watch(route, target)
    readiness.cancel("agent-1")


def test_replicas_are_probed_side_by_side_and_each_is_admitted_by_itself(readiness, listener):
    route, target = route_to(listener)
    deaf = Target(("127.0.0.1", 1), number=2)
    route.targets = [target, deaf]
    first, second = readiness.watch(route, target), readiness.watch(route, deaf)
    listener.listen()

    first.ended.wait(5)

    assert (first.is_ready, route.serving, readiness.probes_of("agent-1")) == (True, [target], [second])
    readiness.cancel("agent-1")
    assert second.ended.is_set() and not second.is_ready


def test_a_probe_that_is_cancelled_opens_nothing_whatever_happens_then(readiness, listener):
    route, target = route_to(listener)
    probe = readiness.watch(route, target)
    readiness.cancel("agent-1")
    route.close()

    listener.listen()
    gevent.sleep(0.1)

    assert (probe.is_ready, route.gate, readiness.ready) == (False, Gate.CLOSED, [])
    readiness.cancel("agent-1")


def test_a_target_that_is_retired_is_not_waited_for(readiness, listener):
    route, target = route_to(listener)
    probe = readiness.watch(route, target)

    target.retire()
    probe.ended.wait(5)

    assert not probe.is_ready


def test_a_suspect_is_probed_again_only_where_it_still_counts(readiness, listener):
    route, target = route_to(listener)
    readiness.suspect(route, target)
    assert readiness.probe_of(target) is None  # it gets no requests

    route.open()
    readiness.suspect(route, Target(listener.getsockname()))
    assert readiness.probes_of("agent-1") == []

    readiness.suspect(route, target)
    assert route.gate is Gate.HOLDING
    readiness.cancel("agent-1")


def test_one_of_several_is_taken_out_when_it_refused_three_times_in_a_row(readiness, listener):
    route, target = route_to(listener)
    other = Target(("127.0.0.1", 2), number=2)
    route.targets = [target, other]
    route.open()
    for _ in range(defaults.MAX_REFUSALS - 1):
        with pytest.raises(OSError):
            target.connect()
        readiness.suspect(route, target)
    assert target in route.serving
    listener.listen()
    target.connect().close()
    assert target.refusals == 0  # one that was accepted forgets the others

    target.refusals = defaults.MAX_REFUSALS
    readiness.suspect(route, target)
    assert (route.serving, route.gate) == ([other], Gate.OPEN)
    readiness.probe_of(target).ended.wait(5)

    assert target in route.serving  # it listens again


class Engine:
    """Answers `inspect` with what it is told to."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), 0

    def inspect(self, container_id):
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def box(state=ContainerState.RUNNING, started_at=5.0) -> Container:
    return Container("c1", "agent-1", "agentainer-agent-1", state, "sha256:0", "127.0.0.1", started_at=started_at)


TARGET = {"container_id": "c1", "started_at": 5.0}


@pytest.mark.parametrize(
    "answer", [box(ContainerState.EXITED), box(ContainerState.GONE), box(started_at=6.0), NotFound("container", "c1")]
)
def test_a_run_that_ended_or_was_followed_by_another_is_dead(answer):
    began = time.monotonic()

    assert DeathCheck(Engine(answer))(Route("agent-1", "web"), Target(("127.0.0.1", 1), **TARGET))

    assert time.monotonic() - began < 1


@pytest.mark.parametrize("answer", [box(), box(ContainerState.PAUSED), Unavailable("away")])
def test_one_that_runs_or_of_which_nothing_is_known_is_not(answer, listener, monkeypatch):
    monkeypatch.setattr(defaults, "DEATH_CONFIRM_S", 0.1)
    listener.listen()

    assert not DeathCheck(Engine(answer))(Route("agent-1", "web"), Target(listener.getsockname(), **TARGET))


@pytest.mark.parametrize("over_after_s", [0.5, None])
def test_one_that_accepts_no_connections_is_given_longer_by_an_engine_that_is_late(over_after_s, monkeypatch):
    monkeypatch.setattr(defaults, "DEATH_CONFIRM_S", 0.1)
    monkeypatch.setattr(defaults, "MAX_DEATH_CONFIRM_S", 1.0)
    engine, began = Engine(box()), time.monotonic()
    if over_after_s:
        gevent.spawn_later(over_after_s, engine.answers.__setitem__, 0, box(ContainerState.EXITED))  # noqa: TID251

    died = DeathCheck(engine)(Route("agent-1", "web"), Target(("127.0.0.1", 1), **TARGET))

    assert died == bool(over_after_s)
    assert time.monotonic() - began >= (over_after_s or defaults.MAX_DEATH_CONFIRM_S)


def test_a_death_that_the_engine_tells_a_moment_later_is_one(monkeypatch):
    engine = Engine(box(), Unavailable("away"), box(ContainerState.EXITED))

    assert DeathCheck(engine)(Route("agent-1", "web"), Target(("127.0.0.1", 1), **TARGET))


def test_a_target_that_was_retired_meanwhile_is_dead_without_asking():
    engine, target = Engine(box()), Target(("127.0.0.1", 1), **TARGET)
    target.retire()

    assert DeathCheck(engine)(Route("agent-1", "web"), target)
    assert engine.asked == 0


def test_many_who_ask_at_once_ask_the_engine_once():
    engine, target = Engine(box(), box(), box(ContainerState.EXITED)), Target(("127.0.0.1", 1), **TARGET)
    check, route = DeathCheck(engine), Route("agent-1", "web")

    asking = [gevent.spawn(check, route, target) for _ in range(50)]  # noqa: TID251
    gevent.joinall(asking, timeout=5)

    assert all(one.value for one in asking)
    assert engine.asked == 3
