"""Changing agents that are there: in place, by other limits, by new containers while the old ones serve."""

import time

import gevent
import msgspec
import pytest

from agentainerd.errors import AgentainerError, Conflict, DeadlineExceeded, Failed, Unavailable
from agentainerd.model.agents import AgentSpec
from agentainerd.model.containers import LogPiece
from agentainerd.model.events import EventFilter
from agentainerd.proxy.routing import Gate
from agentainerd.services.logs import LogOptions
from tests.fakes.programs import Answer, Program, http
from tests.fakes.world import ADMIN


def boxes(world, ref="web"):
    agent = world.agent(ref)
    return {box.name: box.id for box in world.engine.containers() if box.agent_id == agent.id}


def serving(world, ref="web"):
    return sorted(target.number for target in world.route(ref).serving)


@pytest.fixture
def update(world):
    def change(wait_s=5, **fields):
        spec = msgspec.convert({**msgspec.to_builtins(world.agent().spec), **fields}, AgentSpec)
        return services(world).update("web", spec, ADMIN, wait_s=wait_s)

    return change


def services(world):
    return world.services.deployments._deeds.updates


def test_what_the_daemon_does_is_changed_at_once(world, update):
    agent = world.up(hold_timeout_s=5)
    route = world.route()
    before = world.engine.calls["create"]

    update(
        hold_timeout_s=2, token="a-long-token", auto_restart=True, max_pending=7, idle_timeout_s=30, persistence=False
    )

    assert world.route() is route
    assert (route.gate, route.hold_timeout_s, route.max_pending, route.idle_timeout_s) == (Gate.OPEN, 2, 7, 30)
    assert (bool(route.token_digest), route.persistence) == (True, False)
    assert world.agent().replica(1).container_id == agent.replica(1).container_id
    assert world.engine.calls["create"] == before


def test_limits_are_changed_where_the_engine_can(world, update):
    agent = world.up(memory_limit=64 * 2**20)

    update(memory_limit=128 * 2**20, cpu_limit=500_000_000)

    box = world.engine._boxes[agent.replica(1).container_id]
    assert (box.spec.memory_limit, box.spec.cpu_limit) == (128 * 2**20, 500_000_000)
    assert world.agent().replica(1).container_id == box.id


def test_less_memory_takes_a_new_container(world, update):
    agent = world.up(memory_limit=128 * 2**20)

    update(memory_limit=64 * 2**20)

    assert world.agent().replica(1).container_id != agent.replica(1).container_id


def test_replicas_and_options_change_together(world, update):
    world.up()

    update(replicas=3, stop_grace_s=1)
    world.services.agents._starting.when_ready(world.agent(), 5)

    assert (serving(world), world.agent().spec.stop_grace_s) == ([1, 2, 3], 1)
    update(replicas=1)
    assert (serving(world), list(boxes(world))) == ([1], [f"agentainer-{world.agent().id}"])


def test_a_new_container_takes_over_when_it_is_ready_and_the_old_one_serves_until_then(world, update, eventually):
    agent = world.up()
    [old] = world.route().serving
    world.engine.add_image("slow", Program(listens=False))

    changing = gevent.spawn(update, image="slow")  # noqa: TID251
    eventually(lambda: f"agentainer-{agent.id}.next" in boxes(world))
    assert (world.route().serving, world.route().gate) == ([old], Gate.OPEN)
    world.engine.listen(agent.id)
    changing.get(timeout=10)

    [new] = world.route().serving
    assert new is not old
    assert old.is_retired
    assert boxes(world) == {f"agentainer-{agent.id}": new.container_id}
    assert (world.agent().spec.image, world.agent().replica(1).container_id) == ("slow", new.container_id)
    assert world.state() == "running"


def test_what_is_in_flight_at_the_old_one_is_waited_for(world, update, eventually):
    world.up()
    [old] = world.route().serving
    old.in_flight += 1

    changing = gevent.spawn(update, env_vars={"A": "2"})  # noqa: TID251
    eventually(lambda: old not in world.route().serving and world.route().serving)
    assert len(boxes(world)) == 2
    old.in_flight -= 1
    changing.get(timeout=10)

    assert len(boxes(world)) == 1


def test_all_replicas_are_replaced_at_once_also_by_another_number(world, update):
    agent = world.up(replicas=3)
    before = set(boxes(world).values())

    update(env_vars={"A": "2"}, replicas=2)

    assert sorted(boxes(world)) == [f"agentainer-{agent.id}-1", f"agentainer-{agent.id}-2"]
    assert not before & set(boxes(world).values())
    assert serving(world) == [1, 2]
    assert [world.routes.find(f"web-{number}".encode()) is not None for number in (1, 2, 3)] == [True, True, False]
    for number in (1, 2):
        part = world.routes.find(f"web-{number}".encode())
        assert (part.gate, [target.number for target in part.serving]) == (Gate.OPEN, [number])


@pytest.mark.parametrize(
    ("program", "error"),
    [(Program(exits=3), Failed), (Program(listens=False), DeadlineExceeded), (None, AgentainerError)],
)
def test_one_that_does_not_get_ready_changes_nothing(world, update, program, error):
    agent = world.up()
    before = (world.agents.get(agent.id), boxes(world), list(world.route().serving))
    if program:
        world.engine.add_image("bad", program)

    with pytest.raises(error) as failure:
        update(image="bad", wait_s=0.2)

    assert (world.agents.get(agent.id), boxes(world), list(world.route().serving)) == before
    if program:
        assert failure.value.hint.startswith("'web' goes on as it was")


def test_one_replica_of_several_that_does_not_get_ready_takes_the_others_back(world, update, monkeypatch):
    world.up(replicas=2)
    before = boxes(world)
    make = world.engine.create

    def create(spec):
        if spec.name.endswith("-2.next"):
            raise Failed("no room", code="AGENT_START_FAILED")
        return make(spec)

    monkeypatch.setattr(world.engine, "create", create)
    with pytest.raises(Failed):
        update(env_vars={"A": "2"})

    assert (boxes(world), serving(world)) == (before, [1, 2])


def test_the_new_health_check_decides_of_the_new_container(world, update):
    world.up(health_check={"endpoint": "/", "interval": "0.1s"})
    bad = {"command": ["sh", "-c", "exit 1"]}

    with pytest.raises(DeadlineExceeded):
        update(env_vars={"A": "2"}, health_check=bad, wait_s=0.3)

    assert world.agent().spec.health_check.endpoint == "/"
    assert serving(world) == [1]


def test_another_health_check_is_asked_from_now_on(world, update, eventually):
    world.up(health_check={"endpoint": "/", "interval": "1h"})
    monitor = world.services.health._monitor
    [target] = world.route().serving

    update(health_check={"endpoint": "tcp", "interval": "0.1s"})

    since = time.time()
    eventually(lambda: monitor.of(target).last.at > since)


def test_one_that_is_unwell_by_the_old_check_is_looked_at_by_the_new_one(world, update, eventually):
    status = [200]
    world.engine.add_image("ill", Program(http(lambda request, run: Answer(status[0]))))
    world.up(image="ill", health_check={"endpoint": "/", "interval": "0.1s", "retries": 1})
    status[0] = 500
    eventually(lambda: serving(world) == [])

    update(health_check=None)

    eventually(lambda: serving(world) == [1])


@pytest.mark.parametrize("verb", ["stop", "pause", None])
def test_one_that_does_not_run_has_its_container_at_the_next_start(world, update, verb):
    agent = world.up() if verb else world.deploy()
    if verb:
        getattr(world.services.agents, verb)("web", ADMIN)

    update(env_vars={"A": "2"})

    assert world.state() == ("stopped" if verb else "created")
    assert boxes(world) == {}
    assert world.route().gate is Gate.CLOSED
    world.services.agents.start("web", ADMIN, wait_s=5)
    [box] = [box for box in world.engine._boxes.values() if box.agent_id == agent.id]
    assert box.spec.env["A"] == "2"


def test_one_that_sleeps_sleeps_on_and_wakes_with_what_is_new(world, update, eventually):
    world.up(idle_timeout_s=0.05)
    eventually(lambda: world.services.idle.run_once(0) >= 0 and world.agent().is_idle and world.state() == "stopped")

    update(env_vars={"A": "2"}, idle_timeout_s=60)

    assert (world.agent().is_idle, world.route().gate) == (True, Gate.HOLDING)
    world.route().wait_open(5)
    assert world.is_ready()


def test_nothing_is_changed_where_nothing_differs(world, update):
    before = world.up()

    assert update() == before


def test_a_name_that_is_taken_meanwhile_changes_nothing(world, update):
    world.up()
    world.deploy("web-2")
    before = boxes(world)

    with pytest.raises(Conflict):
        update(env_vars={"A": "2"}, replicas=2)

    assert (boxes(world), world.agent().spec.replicas, serving(world)) == (before, 1, [1])


def test_a_name_that_is_taken_changes_nothing_of_one_that_does_not_run(world, update):
    world.up()
    world.services.agents.stop("web", ADMIN)
    world.deploy("web-2")
    before = boxes(world)

    with pytest.raises(Conflict):
        update(env_vars={"A": "2"}, replicas=2)

    assert (boxes(world), world.agent().spec.env_vars, world.agent().spec.replicas) == (before, {}, 1)


def test_a_daemon_that_dies_before_the_record_is_written_is_followed_by_one_that_removes_the_new(
    world, make_world, eventually
):
    agent = world.up()
    before = boxes(world)
    containers = world.services.state_sync._containers
    world.engine.start(containers.make_successor(agent, 1))
    world.end()

    again = make_world()

    eventually(lambda: boxes(again) == before)
    again.wait_ready()


def test_a_daemon_that_dies_after_the_record_was_written_is_followed_by_one_that_removes_the_old(
    world, make_world, eventually, monkeypatch
):
    agent = world.up()
    rollout = services(world)._rollout
    monkeypatch.setattr(type(rollout), "_retire", lambda *arguments: None)
    spec = msgspec.structs.replace(agent.spec, env_vars={"A": "2"})
    services(world).update("web", spec, ADMIN, wait_s=5)
    new = world.agent().replica(1).container_id
    assert len(boxes(world)) == 2
    world.end()
    monkeypatch.undo()

    again = make_world()

    eventually(lambda: boxes(again) == {f"agentainer-{agent.id}": new})
    again.wait_ready()


def test_an_engine_that_is_away_changes_nothing(world, update):
    agent = world.up()
    world.engine.go_down()

    with pytest.raises(Unavailable):
        update(env_vars={"A": "2"})
    with pytest.raises(Unavailable):
        update(hold_timeout_s=1)
    world.engine.come_back()

    assert world.agents.get(agent.id).spec == agent.spec


def test_a_change_is_an_event_and_in_the_audit(world, update, eventually):
    world.up()

    update(env_vars={"API_KEY": "sesame"}, hold_timeout_s=1)

    events = eventually(
        lambda: [event for event in world.services.events.last(50, EventFilter()) if event.action == "update"]
    )
    assert (events[0].message, events[0].details) == (
        "env_vars.API_KEY, hold_timeout_s",
        {"replaced": True, "changes": 2},
    )
    assert '"action":"update_agent"' in world.log_of("audit.log")
    assert "sesame" not in world.log_of("audit.log")


def test_one_that_shares_nothing_is_replaced_after_it_has_ended_and_requests_wait(world, update, eventually):
    agent = world.up(update_strategy="recreate", replicas=2)
    old = list(world.route().serving)
    old[0].in_flight += 1
    most = []
    make = world.engine.create

    def create(spec):
        most.append(sorted(box.name for box in world.engine.containers() if box.state == "running"))
        return make(spec)

    world.engine.create = create
    changing = gevent.spawn(update, env_vars={"A": "2"}, replicas=1)  # noqa: TID251
    eventually(lambda: world.route().gate is Gate.HOLDING)
    assert len(boxes(world)) == 2
    old[0].in_flight -= 1
    changing.get(timeout=10)

    assert most == [[]]  # none ran when the new one was made
    world.wait_ready()
    assert boxes(world) == {f"agentainer-{agent.id}": world.agent().replica(1).container_id}
    assert (serving(world), world.state(), [target.is_retired for target in old]) == ([1], "running", [True, True])


def test_a_daemon_that_dies_while_it_recreates_is_followed_by_one_that_starts_it(
    world, make_world, eventually, monkeypatch
):
    world.up(update_strategy="recreate")
    monkeypatch.setattr(type(world.services.agents._starting), "up", lambda *arguments: gevent.sleep(3600))
    changing = gevent.spawn(  # noqa: TID251
        services(world).update, "web", world.spec(update_strategy="recreate", env_vars={"A": "2"}), ADMIN, wait_s=5
    )
    eventually(lambda: boxes(world) == {})
    eventually(lambda: world.agents.find("web").spec.env_vars == {"A": "2"})
    changing.kill()
    world.end()
    monkeypatch.undo()

    again = make_world()

    again.wait_ready()
    assert (again.state(), again.agent().spec.env_vars) == ("running", {"A": "2"})


def test_one_that_fails_when_it_is_recreated_is_down_and_says_why(world, update):
    world.up(update_strategy="recreate")
    world.engine.add_image("broken", Program(fails=(127, "'nosuch' is not in the image")))

    with pytest.raises(Failed):
        update(image="broken")

    assert world.state() == "failed"
    assert "nosuch" in world.agent().reason


@pytest.mark.parametrize("is_written", [False, True])
def test_a_redis_that_goes_away_while_the_record_is_written_leaves_one_of_the_two(
    world, update, eventually, monkeypatch, is_written
):
    agent = world.up()
    scale = type(world.agents).scale

    def lose(store, changed):
        if is_written:
            scale(store, changed)
        raise Unavailable("Redis does not answer")

    monkeypatch.setattr(type(world.agents), "scale", lose)
    with pytest.raises(Unavailable):
        update(env_vars={"A": "2"})
    monkeypatch.undo()

    eventually(lambda: world.services.state_sync.run_once(time.time()) >= 0 and len(boxes(world)) == 1, limit_s=15)
    eventually(lambda: world.is_ready() and list(boxes(world)) == [f"agentainer-{agent.id}"])
    [target] = world.route().serving
    assert target.container_id == world.agent().replica(1).container_id == boxes(world)[f"agentainer-{agent.id}"]
    assert (world.agent().spec.env_vars == {"A": "2"}) is is_written
    assert (target.container_id != agent.replica(1).container_id) is is_written


def test_what_was_stored_though_redis_went_away_counts_when_it_is_back(world, update, eventually, monkeypatch):
    world.up()
    put = type(world.agents).put

    def lose(store, changed):
        put(store, changed)
        raise Unavailable("Redis does not answer")

    monkeypatch.setattr(type(world.agents), "put", lose)
    with pytest.raises(Unavailable):
        update(token="a-long-token", health_check={"endpoint": "/"})
    monkeypatch.undo()
    assert not world.route().token_digest

    world.services.state_sync.run_once(time.time())

    eventually(lambda: world.route().token_digest)
    assert world.is_ready()


def test_a_container_that_a_dying_daemon_did_not_write_down_is_adopted_and_not_taken_for_a_leftover(
    world, make_world, eventually
):
    agent = world.up()
    containers = world.services.state_sync._containers
    world.engine.start(containers.make_successor(agent, 1))
    world.end()
    world.engine.remove(agent.replica(1).container_id)
    new = world.engine.start(containers._create(agent, 1))

    again = make_world()

    eventually(lambda: boxes(again) == {f"agentainer-{agent.id}": new.id})
    again.wait_ready()
    assert again.agent().replica(1).container_id == new.id


def test_a_log_that_is_followed_has_what_the_new_one_wrote_while_the_old_one_still_served(world, update, eventually):
    agent = world.up()
    told = []
    reader = world.services.agents.logs("web", LogOptions(follow=True))
    following = gevent.spawn(lambda: [told.append(piece) for piece in reader])  # noqa: TID251
    world.engine.add_image("slow", Program(listens=False, prints=("the new one starts",)))

    changing = gevent.spawn(update, image="slow")  # noqa: TID251
    eventually(lambda: f"agentainer-{agent.id}.next" in boxes(world))
    world.engine.say(agent.id, "the old one speaks", replica=1)
    world.engine.listen(agent.id)
    changing.get(timeout=10)

    def lines():
        return "".join(
            piece.data.decode() if isinstance(piece, LogPiece) else f"[{piece.text}]\n" for piece in told
        ).splitlines()

    eventually(lambda: lines() == ["the old one speaks", "[the agent was started again]", "the new one starts"])
    reader.close()
    following.join(5)
