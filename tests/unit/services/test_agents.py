"""The verbs, their rules, and every input that a person can get wrong."""

import gevent
import pytest

from agentainerd import defaults
from agentainerd.errors import Conflict, DeadlineExceeded, Failed, InvalidParameter, NotFound, Unavailable
from agentainerd.model.replicas import AgentState
from agentainerd.proxy.routing import Gate
from agentainerd.services.agents import AgentFilter
from tests.fakes.programs import Answer, Program, http
from tests.fakes.world import ADMIN


def test_deploy_creates_and_does_not_start(world):
    agent = world.deploy()

    assert agent.state is AgentState.CREATED
    assert agent.id.startswith("agent-") and len(agent.id) == 22
    assert agent.container_id == ""
    assert world.engine.containers() == []
    assert world.route("web") is world.route(agent.id)
    assert world.route().gate is Gate.CLOSED


def test_a_second_agent_of_the_same_name_is_a_conflict(world):
    world.deploy()

    with pytest.raises(Conflict) as failure:
        world.deploy()

    assert failure.value.code == "AGENT_NAME_TAKEN"
    assert len(world.routes.routes()) == 1


def test_an_image_that_is_not_on_the_engine_is_not_found(world):
    with pytest.raises(NotFound) as failure:
        world.deploy(image="missing:1")

    assert failure.value.code == "IMAGE_NOT_FOUND"
    assert "docker image 'missing:1' not found. Please build or pull the image first" in failure.value.message


@pytest.mark.parametrize(
    ("image", "asked", "port"), [("one", 0, 9001), ("two", 0, 8000), ("none", 0, 8000), ("one", 7777, 7777)]
)
def test_the_port_is_the_asked_one_else_the_only_exposed_one_else_8000(world, image, asked, port):
    exposed = {"one": (9001,), "two": (9001, 9002), "none": ()}
    world.engine.add_image(image, Program(exposed=exposed[image]))

    assert world.deploy(image=image, port=asked).port == port


def test_start_runs_the_container_with_name_labels_and_environment(world):
    agent = world.up(env_vars={"MODEL": "small"}, labels={"team": "search"})

    box = world.engine.containers()[0]
    spec = world.engine._boxes[box.id].spec
    assert spec.name == f"agentainer-{agent.id}"
    assert spec.hostname == agent.id
    assert spec.aliases == (agent.id, "web")
    assert spec.labels == {
        "agentainer.id": agent.id,
        "agentainer.name": "web",
        "agentainer.replica": "1",
        "team": "search",
    }
    assert spec.env == {
        "MODEL": "small",
        "AGENT_ID": agent.id,
        "AGENT_NAME": "web",
        "AGENT_REPLICA": "1",
        "AGENTAINER_URL": "http://host.docker.internal:8081",
    }
    assert agent.state is AgentState.RUNNING
    assert world.route().gate is Gate.OPEN


def test_starting_a_running_agent_returns_it_unchanged(world):
    agent = world.up()
    starts = world.engine.calls["start"]

    again = world.services.agents.start("web", ADMIN)

    assert again == agent
    assert world.engine.calls["start"] == starts


def test_stopping_a_stopped_agent_returns_it_unchanged(world):
    world.up()
    stopped = world.services.agents.stop("web", ADMIN)

    assert stopped.state is AgentState.STOPPED
    assert world.services.agents.stop("web", ADMIN) == stopped
    assert world.route().gate is Gate.CLOSED
    assert world.route().targets == []


def test_stopping_an_agent_that_never_ran_leaves_it_created(world):
    world.deploy()

    assert world.services.agents.stop("web", ADMIN).state is AgentState.CREATED


def test_stop_kills_after_the_grace_that_was_asked_for(world):
    world.engine.add_image("deaf", Program(heeds_sigterm=False))
    world.up(image="deaf")

    world.services.agents.stop("web", ADMIN, grace_s=0.05)

    assert world.state() == "stopped"


@pytest.mark.parametrize("verb", ["pause", "restart"])
@pytest.mark.parametrize("state", ["created", "stopped", "paused"])
def test_pause_and_restart_need_a_running_agent(world, verb, state):
    bring_into(world, state)

    with pytest.raises(Conflict) as failure:
        getattr(world.services.agents, verb)("web", ADMIN)

    assert failure.value.code == f"AGENT_{state.upper()}"
    assert f"cannot {verb} 'web': it is {state}" in failure.value.message
    assert world.state() == state


def test_starting_a_paused_agent_is_a_conflict(world):
    bring_into(world, "paused")

    with pytest.raises(Conflict) as failure:
        world.services.agents.start("web", ADMIN)

    assert failure.value.code == "AGENT_PAUSED"
    assert failure.value.hint == "agentainerctl resume web"


def test_resuming_a_running_agent_is_a_conflict(world):
    world.up()

    with pytest.raises(Conflict) as failure:
        world.services.agents.resume("web", ADMIN)

    assert failure.value.code == "AGENT_RUNNING"


@pytest.mark.parametrize("state", ["created", "stopped", "paused", "failed"])
def test_resume_brings_an_agent_back_from_any_other_state(world, state):
    bring_into(world, state)

    world.services.agents.resume("web", ADMIN, wait_s=5)

    assert world.state() == "running"
    assert world.is_ready()


def test_resume_makes_a_lost_container_anew(world):
    agent = world.up()
    world.engine.remove(agent.container_id)
    world.wait_state("stopped")

    again = world.services.agents.resume("web", ADMIN, wait_s=5)

    assert again.container_id not in ("", agent.container_id)
    assert world.is_ready()


def test_a_paused_agent_gets_nothing_until_it_is_resumed(world):
    world.up()

    world.services.agents.pause("web", ADMIN)

    assert world.state() == "paused"
    assert world.route().gate is Gate.CLOSED


def test_stop_waits_for_what_is_in_flight_and_closes_the_gate_first(world, eventually):
    world.up()
    route = world.route()
    target = route.targets[0]
    target.in_flight += 1
    stopping = gevent.Greenlet.spawn(world.services.agents.stop, "web", ADMIN)
    eventually(lambda: route.gate is Gate.CLOSED)

    assert world.state() == "running"
    assert not target.is_retired

    target.in_flight -= 1
    stopping.get(timeout=5)
    assert world.state() == "stopped"
    assert target.is_retired


def test_stop_does_not_wait_longer_than_the_grace_for_what_is_in_flight(world):
    world.up()
    world.route().targets[0].in_flight += 1

    world.services.agents.stop("web", ADMIN, grace_s=0.05)

    assert world.state() == "stopped"


def test_restart_holds_requests_and_makes_a_new_target(world):
    world.up()
    route = world.route()
    old = route.targets[0]
    gates = []
    route_hold, route_close = route.hold, route.close
    watched = world.engine.stop
    world.engine.stop = lambda *a, **k: (gates.append(route.gate), watched(*a, **k))[1]

    world.services.agents.restart("web", ADMIN, wait_s=5)

    assert gates == [Gate.HOLDING]
    assert (route.hold, route.close) == (route_hold, route_close)
    assert old.is_retired
    assert route.targets[0] is not old
    assert route.gate is Gate.OPEN


def test_two_starts_at_once_make_one_container(world):
    world.deploy()

    both = [gevent.Greenlet.spawn(world.services.agents.start, "web", ADMIN) for _ in range(2)]
    gevent.joinall(both, timeout=5, raise_error=True)

    assert len(world.engine.containers()) == 1
    assert world.engine.calls["create"] == 1


def test_a_stop_and_a_restart_at_once_do_not_interleave(world):
    world.up()

    both = [
        gevent.Greenlet.spawn(world.services.agents.restart, "web", ADMIN),
        gevent.Greenlet.spawn(world.services.agents.stop, "web", ADMIN),
    ]
    gevent.joinall(both, timeout=5)

    assert all(one.ready() for one in both)
    assert both[1].successful() and (
        both[0].successful() or isinstance(both[0].exception, Conflict)
    )  # whoever was first
    assert world.state() == "stopped"
    assert world.route().targets == []
    assert world.route().gate is Gate.CLOSED


def test_remove_leaves_nothing(world):
    agent = world.up()
    world.services.agents.stop("web", ADMIN)
    world.queue(agent)

    world.services.agents.remove("web", ADMIN)

    assert world.engine.containers() == []
    assert world.agents.all() == []
    assert world.route("web") is None
    assert world.requests.counts(agent.id).pending == 0
    with pytest.raises(NotFound):
        world.services.agents.get("web")


def test_a_removed_name_can_be_used_again(world):
    first = world.up()
    world.services.agents.remove("web", ADMIN)

    assert world.up().id != first.id


def test_removing_twice_at_once_finds_it_once(world):
    world.up()

    both = [gevent.Greenlet.spawn(world.services.agents.remove, "web", ADMIN) for _ in range(2)]
    gevent.joinall(both, timeout=5)

    assert sorted(type(one.exception).__name__ for one in both) == ["NoneType", "NotFound"]


def test_an_unknown_agent_has_a_hint_at_a_name_that_is_nearly_the_same(world):
    world.deploy("web")

    with pytest.raises(NotFound) as failure:
        world.services.agents.start("wbe", ADMIN)

    assert failure.value.code == "AGENT_NOT_FOUND"
    assert "did you mean 'web'?" in failure.value.hint


@pytest.mark.parametrize("ref", ["", "../etc", "a b", "x" * 300, "Агент", "web\n", "WEB", "%2e"])
def test_a_strange_name_is_not_found(world, ref):
    with pytest.raises(NotFound):
        world.services.agents.get(ref)


# Waiting until ready


def test_wait_fails_with_exit_code_and_log_when_the_agent_exits_at_once(world):
    world.engine.add_image("broken", Program(exits=3, prints=("cannot find the model",)))
    world.deploy(image="broken")

    with pytest.raises(Failed) as failure:
        world.services.agents.start("web", ADMIN, wait_s=5)

    assert failure.value.code == "AGENT_EXITED"
    assert failure.value.details == {"exit_code": 3, "oom_killed": False, "log": ["cannot find the model"]}
    assert "agent 'web' exited 0.0 s after start (exit 3)" in failure.value.message
    assert world.state() == "stopped"
    assert world.agent().reason == "exit 3"


def test_wait_fails_at_once_when_the_agent_exits_while_it_starts(world, eventually):
    world.engine.add_image("slow", Program(listens=False))
    agent = world.deploy(image="slow")
    waiting = gevent.Greenlet.spawn(world.services.agents.start, "web", ADMIN, wait_s=30)
    eventually(lambda: world.state() == "running")

    world.engine.exit(agent.id, 1)

    with pytest.raises(Failed) as failure:
        waiting.get(timeout=5)
    assert failure.value.code == "AGENT_EXITED"


def test_wait_says_out_of_memory(world, eventually):
    world.engine.add_image("slow", Program(listens=False))
    agent = world.deploy(image="slow", memory_limit=256 * 2**20)
    waiting = gevent.Greenlet.spawn(world.services.agents.start, "web", ADMIN, wait_s=30)
    eventually(lambda: world.state() == "running")

    world.engine.oom(agent.id)

    with pytest.raises(Failed) as failure:
        waiting.get(timeout=5)
    assert "killed: out of memory (limit 256 MiB)" in failure.value.message
    assert failure.value.details["oom_killed"] is True
    assert world.agent().reason == "exit 137, out of memory"


def test_wait_says_which_port_nobody_answers_on(world):
    world.engine.add_image("elsewhere", Program(ports=(3000,)))
    world.deploy(image="elsewhere", port=8000)

    with pytest.raises(DeadlineExceeded) as failure:
        world.services.agents.start("web", ADMIN, wait_s=0.1)

    assert failure.value.code == "AGENT_NOT_READY"
    assert failure.value.message == "'web' is running but nothing answers on port 8000 after 0.1 s (EXPOSE says 3000)"
    assert world.state() == "running"
    assert world.route().gate is Gate.HOLDING


def test_wait_ends_when_somebody_stops_the_agent_meanwhile(world, eventually):
    world.engine.add_image("slow", Program(listens=False))
    world.deploy(image="slow")
    waiting = gevent.Greenlet.spawn(world.services.agents.start, "web", ADMIN, wait_s=30)
    eventually(lambda: world.state() == "running")

    world.services.agents.stop("web", ADMIN)

    with pytest.raises(Conflict) as failure:
        waiting.get(timeout=5)
    assert failure.value.code == "AGENT_STOPPED"


@pytest.mark.parametrize(("code", "words"), [(127, "executable file not found"), (126, "permission denied")])
def test_a_command_that_cannot_be_run_makes_it_failed_with_the_engines_words(world, code, words):
    world.engine.add_image("typo", Program(fails=(code, words)))
    world.deploy(image="typo")

    with pytest.raises(Failed) as failure:
        world.services.agents.start("web", ADMIN)

    assert failure.value.code == "AGENT_START_FAILED"
    agent = world.agent()
    assert agent.state is AgentState.FAILED
    assert words in agent.reason
    assert agent.last_exit.code == code
    assert agent.container_id == world.engine.containers()[0].id
    assert world.route().gate is Gate.CLOSED


def test_an_agent_that_listens_late_is_ready_then(world, eventually):
    world.engine.add_image("slow", Program(listens=False))
    agent = world.deploy(image="slow")
    world.services.agents.start("web", ADMIN)
    assert world.route().gate is Gate.HOLDING

    world.engine.listen(agent.id)

    eventually(lambda: world.route().gate is Gate.OPEN)


# Volumes


def test_a_volume_of_a_folder_that_is_not_there_is_refused(world, tmp_path):
    with pytest.raises(InvalidParameter) as failure:
        world.deploy(volumes=[{"host_path": str(tmp_path / "nothing"), "container_path": "/data"}])

    assert failure.value.code == "VOLUME_SOURCE_MISSING"
    assert failure.value.field == "volumes"


def test_a_volume_is_checked_again_when_its_container_is_made(world, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    world.deploy(volumes=[{"host_path": str(folder), "container_path": "/data"}])
    folder.rmdir()
    folder.symlink_to("/etc")

    with pytest.raises(InvalidParameter) as failure:
        world.services.agents.start("web", ADMIN)

    assert failure.value.code == "VOLUME_DENIED"
    assert world.state() == "created"
    assert world.engine.containers() == []


# The engine, or Redis, away


def test_without_an_engine_reads_go_on_and_verbs_say_why(world):
    world.up()
    world.deploy("idle")
    world.engine.go_down("no such socket")

    for verb, ref in (
        ("start", "idle"),
        ("stop", "web"),
        ("restart", "web"),
        ("pause", "web"),
        ("remove", "web"),
        ("resume", "idle"),
    ):
        with pytest.raises(Unavailable) as failure:
            getattr(world.services.agents, verb)(ref, ADMIN)
        assert failure.value.code == "ENGINE_UNAVAILABLE"
    with pytest.raises(Unavailable):
        world.deploy("third")

    assert world.state("web") == "running"
    assert world.state("idle") == "created"
    assert world.agent("web").should_run
    assert world.is_ready("web")


def test_an_engine_that_goes_away_in_the_middle_of_a_stop_leaves_the_agent_reachable(world, eventually):
    world.up()
    stop = world.engine.stop

    def fail(container_id, *, grace_s):
        world.engine.go_down()
        stop(container_id, grace_s=grace_s)

    world.engine.stop = fail
    with pytest.raises(Unavailable):
        world.services.agents.stop("web", ADMIN)

    eventually(world.is_ready)
    world.engine.stop = stop
    world.engine.come_back()
    eventually(lambda: world.agent().should_run)


def test_a_stranger_with_the_containers_name_is_told_apart(world):
    agent = world.deploy()
    spec = world.engine
    from agentainerd.model.containers import ContainerSpec

    spec.create(ContainerSpec(f"agentainer-{agent.id}", "x", "echo", (), {}, {}))

    with pytest.raises(Conflict) as failure:
        world.services.agents.start("web", ADMIN)

    assert failure.value.code == "CONTAINER_NAME_TAKEN"


def test_a_container_that_the_record_does_not_know_is_found_by_its_label(world):
    agent = world.up()
    world.agents.put(agent.changed(container_id="", state=AgentState.CREATED))
    world.services.agents.start("web", ADMIN, wait_s=5)

    assert len(world.engine.containers()) == 1
    assert world.agent().container_id == agent.container_id


def test_the_deployed_image_runs_even_where_its_name_means_another_one_now(world):
    first = world.engine.image("echo").id
    world.deploy()
    world.engine.add_image("other", Program(http(lambda request, run: Answer(200, b"other"))))

    agent = world.services.agents.start("web", ADMIN, wait_s=5)

    assert agent.image_id == first


# Reads


def test_lists_are_filtered_and_paged(world):
    for number in range(5):
        world.deploy(f"agent{number}", labels={"even": str(number % 2 == 0)})
    world.services.agents.start("agent3", ADMIN)
    page = world.services.agents.page

    assert [one.name for one in page(AgentFilter(), limit=100)[0]] == [f"agent{number}" for number in range(5)]
    assert [one.name for one in page(AgentFilter((AgentState.RUNNING,)), limit=100)[0]] == ["agent3"]
    assert [one.name for one in page(AgentFilter(name="4"), limit=100)[0]] == ["agent4"]
    evens, cursor = page(AgentFilter(labels={"even": "True"}), limit=2)
    assert [one.name for one in evens] == ["agent0", "agent2"]
    rest, end = page(AgentFilter(labels={"even": "True"}), limit=2, cursor=cursor)
    assert [one.name for one in rest] == ["agent4"]
    assert end == ""


def test_public_masks_secrets_and_tells_counts(world):
    agent = world.deploy(
        env_vars={"MODEL": "small", "API_KEY": "sk-1", "PLAIN": "hidden"}, secrets=["PLAIN"], token="sesame-open"
    )
    world.queue(agent)

    shown = world.services.agents.public([agent])[0]

    assert shown["env_vars"] == {"MODEL": "small", "API_KEY": "***", "PLAIN": "***"}
    assert shown["token"] == "***"
    assert shown["requests"] == {"pending": 1, "processing": 0, "failed": 0, "in_flight": 0}
    assert shown["ready"] is False
    assert shown["ports"] == []
    assert shown["endpoint"] == "/agent/web/"
    assert shown["created_at"].endswith("Z")
    assert shown["started_at"] is None


def test_every_mutation_is_audited_once_without_secrets(world):
    world.up(env_vars={"API_KEY": "sk-1"}, token="sesame-open")
    world.services.agents.stop("web", ADMIN)
    with pytest.raises(Conflict):
        world.services.agents.pause("web", ADMIN)
    world.services.agents.remove("web", ADMIN)

    lines = world.log_of("audit.log").splitlines()
    actions = [line.split('"action":"')[1].split('"')[0] for line in lines]
    assert actions == ["deploy_agent", "start_agent", "stop_agent", "pause_agent", "remove_agent"]
    assert '"result":"AGENT_STOPPED"' in lines[3]
    assert "sk-1" not in "".join(lines) and "sesame" not in "".join(lines)


def bring_into(world, state: str) -> None:
    if state == "failed":
        world.engine.add_image("typo", Program(fails=(127, "not found")))
        world.deploy(image="typo")
        with pytest.raises(Failed):
            world.services.agents.start("web", ADMIN)
        world.engine.program("typo").fails = None
        return
    world.deploy()
    if state != "created":
        world.services.agents.start("web", ADMIN, wait_s=5)
    if state == "stopped":
        world.services.agents.stop("web", ADMIN)
    if state == "paused":
        world.services.agents.pause("web", ADMIN)
    assert world.state() == state


def test_crash_limits_are_those_of_the_documents():
    assert (defaults.CRASH_LOOP_LIMIT, defaults.RESTART_RESET_S, defaults.CRASH_LOG_LINES) == (5, 60.0, 20)
