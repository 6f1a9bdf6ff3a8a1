"""Replicas that are asked how they are, and what becomes of those that are not well."""

import time

import gevent
import pytest

from agentainerd import defaults
from agentainerd.model.events import EventFilter
from agentainerd.model.health import HealthState
from agentainerd.proxy.routing import Gate
from tests.fakes.programs import Answer, Program, http
from tests.fakes.world import ADMIN

CHECK = {"endpoint": "/health", "interval": "100ms", "timeout": "1s", "retries": 2}


class Patient:
    """A program whose health tests decide: `status` by the number of a replica, 200 where none is said."""

    def __init__(self):
        self.status = {}
        self.asked = []
        self.slow_s = 0.0

    def answer(self, request, run):
        number = int(run.env["AGENT_REPLICA"])
        if request.target == "/health":
            self.asked.append((number, time.monotonic()))
            gevent.sleep(self.slow_s)
            return Answer(self.status.get(number, 200))
        return Answer(200, b"fine")


@pytest.fixture
def patient(world):
    made = Patient()
    world.engine.add_image("patient", Program(http(made.answer)))
    return made


def up(world, **fields):
    return world.up(image="patient", health_check={**CHECK, **fields.pop("check", {})}, **fields)


def state(world, number=1):
    return world.services.health.state(world.agent(), number)


def serving(world):
    return sorted(target.number for target in world.route().serving)


def test_an_agent_is_ready_when_it_is_healthy_and_not_before(world, patient, eventually):
    patient.status = {1: 503}
    world.deploy(image="patient", health_check=CHECK | {"interval": "10s"})
    world.services.agents.start("web", ADMIN)
    eventually(lambda: len(patient.asked) > 3)
    assert (state(world), world.route().gate) == (HealthState.STARTING, Gate.HOLDING)

    patient.status = {}

    world.wait_ready()
    assert state(world) is HealthState.HEALTHY


def test_it_is_asked_at_its_interval_as_long_as_it_runs_and_not_longer(world, patient, eventually):
    up(world)
    asked = len(patient.asked)
    eventually(lambda: len(patient.asked) >= asked + 7)
    times = [at for _, at in patient.asked[asked : asked + 7]]
    assert (
        times[-1] - times[0] > 6 * 0.08
    )  # two who ask would need half of that; what comes late here makes one gap shorter

    for verb, undo in (("stop", "start"), ("pause", "resume")):
        getattr(world.services.agents, verb)("web", ADMIN)
        gevent.sleep(0.15)  # one that was on its way
        asked = len(patient.asked)
        gevent.sleep(0.35)
        assert len(patient.asked) == asked, verb
        assert state(world) is HealthState.NONE
        getattr(world.services.agents, undo)("web", ADMIN, wait_s=5)
        eventually(lambda: len(patient.asked) >= asked + 3)  # noqa: B023 - called at once

    world.services.agents.remove("web", ADMIN)
    gevent.sleep(0.15)
    asked = len(patient.asked)
    gevent.sleep(0.35)
    assert len(patient.asked) == asked


@pytest.mark.parametrize("verb", ["restart", "scale"])
def test_each_container_has_one_who_asks_after_a_restart_and_after_scaling(world, patient, eventually, verb):
    up(world)
    if verb == "restart":
        world.services.agents.restart("web", ADMIN, wait_s=5)
    else:
        world.services.replicas.scale("web", 3, ADMIN, wait_s=5)
        world.services.replicas.scale("web", 2, ADMIN)
    gevent.sleep(0.15)
    patient.asked.clear()
    began = time.monotonic()

    gevent.sleep(0.65)

    times = (time.monotonic() - began) / 0.1
    per_replica = [sum(1 for number, _ in patient.asked if number == each) for each in (1, 2, 3)]
    expected = [1, 0, 0] if verb == "restart" else [1, 1, 0]
    assert [bool(count) for count in per_replica] == [bool(each) for each in expected]
    assert max(per_replica) <= 1.2 * times  # two who ask would be twice as many


def test_a_daemon_that_comes_back_asks_what_runs(world, make_world, patient, eventually):
    up(world)
    world.end()
    patient.asked.clear()

    again = make_world()

    again.wait_ready()
    eventually(lambda: len(patient.asked) > 3)
    assert again.services.health.get("web")["healthy"]


def test_an_unhealthy_replica_gets_no_requests_until_it_is_well(world, patient, eventually):
    up(world, replicas=2)

    patient.status = {2: 500}
    eventually(lambda: serving(world) == [1])
    assert (state(world, 2), state(world, 1)) == (HealthState.UNHEALTHY, HealthState.HEALTHY)
    assert world.route().gate is Gate.OPEN
    patient.status = {}

    eventually(lambda: serving(world) == [1, 2])
    assert world.agent().restarts == 0  # there is no auto-restart


def test_requests_wait_for_an_only_replica_that_is_unhealthy(world, patient, eventually):
    up(world)

    patient.status = {1: 500}

    eventually(lambda: world.route().gate is Gate.HOLDING)
    patient.status = {}
    world.wait_ready()


def test_with_auto_restart_it_is_restarted_and_the_others_serve(world, patient, eventually):
    up(world, replicas=2, auto_restart=True)
    before = world.agent().replica(2)

    patient.status = {2: 500}
    eventually(lambda: world.agent().replica(2).crashes == 1)
    patient.status = {}

    eventually(lambda: world.agent().replica(2).restarts == 1 and serving(world) == [1, 2])
    after = world.agent().replica(2)
    assert after.container_id == before.container_id and after.started_at > before.started_at
    assert after.last_exit.error.startswith("unhealthy: GET /health answered 500 (2 in a row)")
    assert world.agent().replica(1).restarts == 0


def test_one_that_never_gets_well_ends_in_failed_as_a_crash_loop_does(world, patient, eventually, monkeypatch):
    monkeypatch.setattr(defaults, "RESTART_BACKOFF_S", 0.01)
    patient.status = {1: 500}
    world.deploy(image="patient", auto_restart=True, health_check=CHECK | {"retries": 1})
    world.services.agents.start("web", ADMIN)

    world.wait_state("failed")

    assert world.agent().crashes == defaults.CRASH_LOOP_LIMIT
    assert world.agent().reason.startswith("crash loop: 5 crashes in a row, the last one with unhealthy: ")


def test_what_is_in_flight_finishes_before_it_is_stopped(world, patient, eventually):
    up(world, auto_restart=True, replicas=2)
    target = next(target for target in world.route().targets if target.number == 2)
    target.in_flight += 1

    patient.status = {2: 500}
    eventually(lambda: serving(world) == [1])
    gevent.sleep(0.1)
    assert not target.is_retired
    target.in_flight -= 1

    eventually(lambda: target.is_retired)
    patient.status = {}
    eventually(lambda: serving(world) == [1, 2])


@pytest.mark.parametrize("what", ["tcp", "command"])
def test_a_connection_or_a_command_will_do(world, patient, eventually, what):
    check = {"endpoint": "tcp"} if what == "tcp" else {"endpoint": "", "command": ["/bin/check"]}
    up(world, check=check)
    assert patient.asked == []
    assert state(world) is HealthState.HEALTHY

    if what == "command":
        world.engine.program("patient").commands_exit = 4
        eventually(lambda: state(world) is HealthState.UNHEALTHY)
        assert world.services.health.get("web")["message"] == "/bin/check exited with 4"


def test_no_answer_in_time_is_a_failure(world, patient, eventually):
    up(world, check={"timeout": "100ms"})

    patient.slow_s = 30

    eventually(lambda: state(world) is HealthState.UNHEALTHY)
    assert world.services.health.get("web")["message"] == "no answer within 100ms"


def test_checks_are_not_requests(world, patient, eventually):
    agent = up(world)
    eventually(lambda: len(patient.asked) > 3)

    assert world.requests.page(agent.id, limit=10)[0] == []


def test_an_agent_without_a_check_is_ready_when_it_listens(world):
    world.up()

    assert state(world) is HealthState.NONE
    assert world.is_ready()


def test_each_change_of_health_is_an_event(world, patient, eventually):
    up(world, replicas=2)
    patient.status = {2: 500}
    eventually(lambda: serving(world) == [1])
    patient.status = {}
    eventually(lambda: serving(world) == [1, 2])

    def told():
        events = world.services.events.last(100, EventFilter(actions=("health",)))
        return [(event.details["before"], event.details["state"]) for event in events if event.details["replica"] == 2]

    eventually(lambda: told() == [("starting", "healthy"), ("healthy", "unhealthy"), ("unhealthy", "healthy")])
