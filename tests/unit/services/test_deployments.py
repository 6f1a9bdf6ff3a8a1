"""Plans and applies on a real Redis and the fake engine: what is created, changed, replaced, kept, removed, in which order."""

import msgspec
import pytest

from agentainerd.errors import Conflict, InvalidParameter, NotFound
from agentainerd.model.deployments import Wish
from agentainerd.model.events import EventFilter
from agentainerd.services.applications import Stage
from tests.fakes.programs import Program
from tests.fakes.world import ADMIN


def wish(*agents, name="shop", **fields):
    given = [{"image": "echo", **agent} for agent in agents]
    return msgspec.convert({"deployments": [{"name": name, "agents": given}], **fields}, Wish)


@pytest.fixture
def apply(world):
    """`apply(wish)`: to its end; the last report of each agent."""

    def whole(asked):
        application = world.services.deployments.apply(asked, ADMIN)
        reports = [report for report in application if report]
        application.close()
        whole.told = [(report.step.agent, report.stage.value) for report in reports]
        return application.results

    whole.told = []
    return whole


def verbs(world, asked):
    return {step.agent: step.verb.value for step in world.services.deployments.plan(asked).steps}


def stages(results):
    return {name: report.stage.value for name, report in results.items()}


def test_agents_are_created_started_and_ready(world, apply):
    results = apply(wish({"name": "web"}, {"name": "db"}))

    assert stages(results) == {"web": "done", "db": "done"}
    assert world.is_ready("web")
    assert world.is_ready("db")
    assert world.agent("web").spec.deployment == "shop"


def test_a_plan_changes_nothing(world):
    asked = wish({"name": "web"}, {"name": "job", "image": "not-here:1"})

    plan = world.services.deployments.plan(asked)

    assert verbs(world, asked) == {"web": "create", "job": "create"}
    assert [step.lacks_image for step in plan.steps] == [False, True]
    assert world.agents.all() == []


def test_a_second_apply_keeps_everything(world, apply):
    asked = wish({"name": "web", "env_vars": {"A": "1"}}, {"name": "db"})
    apply(asked)
    before = {name: world.agent(name) for name in ("web", "db")}

    results = apply(asked)

    assert verbs(world, asked) == {"web": "keep", "db": "keep"}
    assert stages(results) == {"web": "done", "db": "done"}
    assert {name: world.agent(name) for name in before} == before


def test_without_start_nothing_runs(world, apply):
    apply(wish({"name": "web"}, start=False))

    assert world.state() == "created"
    assert verbs(world, wish({"name": "web"}, start=False)) == {"web": "keep"}
    assert verbs(world, wish({"name": "web"})) == {"web": "start"}


@pytest.mark.parametrize("verb", ["stop", "pause"])
def test_what_was_stopped_is_started(world, apply, verb):
    apply(wish({"name": "web"}))
    getattr(world.services.agents, verb)("web", ADMIN)

    apply(wish({"name": "web"}))

    assert world.is_ready()


def test_an_image_that_is_missing_is_found_out_before_anything_is_done(world):
    with pytest.raises(NotFound) as failure:
        world.services.deployments.apply(wish({"name": "web"}, {"name": "job", "image": "not-here:1"}), ADMIN)

    assert failure.value.code == "IMAGE_NOT_FOUND"
    assert world.agents.all() == []


def test_dependencies_are_ready_before_what_depends_on_them(world, apply):
    apply(wish({"name": "web", "dependencies": ["api"]}, {"name": "api", "dependencies": ["db"]}, {"name": "db"}))

    ends = [name for name, stage in apply.told if stage == "done"]
    assert ends == ["db", "api", "web"]
    began = apply.told.index(("web", "doing"))
    assert began > apply.told.index(("api", "done"))


def test_a_circle_is_refused(world):
    asked = wish(
        {"name": "a", "dependencies": ["b"]}, {"name": "b", "dependencies": ["c"]}, {"name": "c", "dependencies": ["a"]}
    )

    with pytest.raises(InvalidParameter) as failure:
        world.services.deployments.plan(asked)

    assert failure.value.code == "DEPENDENCY_CYCLE"
    assert "a -> b -> c -> a" in failure.value.message


def test_a_dependency_that_is_nowhere_is_refused(world):
    with pytest.raises(NotFound) as failure:
        world.services.deployments.plan(wish({"name": "web", "dependencies": ["db"]}))

    assert failure.value.message == "agent 'web': dependency 'db' not found"


def test_a_dependency_outside_of_the_file_has_to_run(world, apply):
    world.deploy("db")
    asked = wish({"name": "web", "dependencies": ["db"]})

    results = apply(asked)
    assert (results["web"].stage, results["web"].error.code) == (Stage.FAILED, "DEPENDENCY_NOT_RUNNING")
    world.services.agents.start("db", ADMIN, wait_s=5)

    assert stages(apply(asked)) == {"web": "done"}


def test_a_failure_stops_what_depends_on_it_and_nothing_else(world, apply):
    world.engine.add_image("broken", Program(exits=3))

    results = apply(
        wish(
            {"name": "web", "dependencies": ["db"]},
            {"name": "db", "image": "broken"},
            {"name": "page", "dependencies": ["web"]},
            {"name": "other"},
        )
    )

    assert stages(results) == {"db": "failed", "web": "skipped", "page": "skipped", "other": "done"}
    assert results["db"].error.code == "AGENT_EXITED"
    assert results["web"].message == "it depends on 'db', which failed"
    assert results["page"].message == "it depends on 'web', which depends on 'db', which failed"
    assert {agent.name for agent in world.agents.all()} == {"db", "other"}


def test_urls_of_dependencies_are_in_the_environment(world, apply):
    world.engine.add_image("sql", Program(exposed=(5432,)))
    world.engine.program("sql").exposed = (8000,)

    apply(
        wish(
            {"name": "web", "dependencies": ["auth-1st", "naps"], "env_vars": {"NAPS_SERVICE": "mine"}},
            {"name": "auth-1st"},
            {"name": "naps", "idle_timeout_s": 60},
        )
    )

    [box] = [box for box in world.engine._boxes.values() if box.agent_id == world.agent("web").id]
    env = box.spec.env
    assert env["AUTH_1ST_SERVICE"] == "http://auth-1st:8000"
    assert env["NAPS_SERVICE"] == "mine"
    assert env["UPSTREAM_SERVICES"] == "http://auth-1st:8000,http://host.docker.internal:8081/agent/naps"


def test_an_agent_of_another_deployment_is_left_alone(world, apply):
    apply(wish({"name": "web"}))

    with pytest.raises(Conflict) as failure:
        apply(wish({"name": "web"}, name="other"))

    assert failure.value.code == "OTHER_DEPLOYMENT"


def test_an_agent_of_none_is_taken_in(world, apply):
    agent = world.up("web")

    apply(wish({"name": "web"}))

    assert world.agent("web").spec.deployment == "shop"
    assert world.agent("web").replica(1).container_id == agent.replica(1).container_id


def test_prune_removes_what_is_not_named_any_more_dependents_first(world, apply):
    apply(wish({"name": "web"}, {"name": "b", "dependencies": ["a"]}, {"name": "a"}))
    world.up("stranger")
    kept = wish({"name": "web"})
    assert world.services.deployments.plan(kept).stray == ("a", "b")
    apply(kept)
    assert world.agent("a")

    apply(wish({"name": "web"}, prune=True))

    assert [name for name, stage in apply.told if stage == "done"] == ["web", "b", "a"]
    assert {agent.name for agent in world.agents.all()} == {"web", "stranger"}


def test_nothing_is_pruned_after_a_failure(world, apply):
    apply(wish({"name": "web"}, {"name": "old"}))
    world.engine.add_image("broken", Program(exits=3))

    results = apply(wish({"name": "web"}, {"name": "new", "image": "broken"}, prune=True))

    assert stages(results) == {"web": "done", "new": "failed", "old": "skipped"}
    assert world.is_ready("old")


def test_one_that_the_file_forgot_is_no_dependency(world, apply):
    apply(wish({"name": "web"}, {"name": "db"}))

    with pytest.raises(NotFound):
        world.services.deployments.plan(wish({"name": "web", "dependencies": ["db"]}))


def test_an_export_can_be_applied_again_but_for_its_secrets(world, apply):
    asked = wish(
        {"name": "web", "dependencies": ["db"], "env_vars": {"A": "1", "API_KEY": "sesame"}, "token": "a-long-token"},
        {"name": "db", "replicas": 2},
    )
    apply(asked)

    found = world.services.deployments.export("shop")

    assert [spec.name for spec in found.agents] == ["db", "web"]
    web = found.agents[1]
    assert (web.env_vars, web.secrets, web.token) == ({"A": "1", "API_KEY": "***"}, ("API_KEY",), "***")
    with pytest.raises(InvalidParameter):
        world.services.deployments.plan(Wish(deployments=(found,)))
    again = msgspec.structs.replace(web, env_vars={"A": "1", "API_KEY": "sesame"}, token="a-long-token")
    same = msgspec.structs.replace(found, agents=(found.agents[0], again))
    changes = [
        change.field
        for step in world.services.deployments.plan(Wish(deployments=(same,))).steps
        for change in step.changes
    ]
    assert changes == ["secrets"]


def test_an_export_of_nothing_is_not_found(world, apply):
    apply(wish({"name": "web"}))
    world.services.agents.remove("web", ADMIN)

    with pytest.raises(NotFound):
        world.services.deployments.export("shop")


def test_what_was_done_is_told_as_events(world, apply, eventually):
    apply(wish({"name": "web"}, {"name": "db"}))

    wanted = EventFilter(actions=("deploy",))
    [event] = eventually(lambda: world.services.events.last(10, wanted))
    assert (event.message, event.details) == ("shop", {"create": 2})


def test_two_applies_of_one_deployment_do_not_run_at_once(world):
    world.engine.add_image("deaf", Program(listens=False))
    first = world.services.deployments.apply(wish({"name": "web", "image": "deaf"}), ADMIN)

    with pytest.raises(Conflict) as failure:
        world.services.deployments.apply(wish({"name": "other"}), ADMIN)

    assert failure.value.code == "DEPLOYMENT_BUSY"
    first.close()


def test_values_of_secrets_are_in_no_plan(world, apply):
    apply(wish({"name": "web", "env_vars": {"API_KEY": "sesame", "A": "1"}, "token": "a-long-token"}))

    plan = world.services.deployments.plan(
        wish({"name": "web", "env_vars": {"API_KEY": "opened", "A": "2"}, "token": "another-token"})
    )

    text = msgspec.json.encode(plan).decode()
    assert "sesame" not in text
    assert "opened" not in text
    assert "token-" not in text
    assert {change.field for change in plan.steps[0].changes} == {"env_vars.API_KEY", "env_vars.A", "token"}


def test_an_apply_that_is_broken_off_ends_what_is_under_way_and_begins_nothing_more(world, eventually):
    world.engine.add_image("deaf", Program(listens=False))
    asked = wish({"name": "db", "image": "deaf"}, {"name": "web", "dependencies": ["db"]})
    application = world.services.deployments.apply(asked, ADMIN)
    eventually(lambda: world.routes.find(b"db") and world.state("db") == "running")

    application.close()
    world.engine.listen(world.agent("db").id)

    eventually(lambda: len(application.results) == 2)
    assert stages(application.results) == {"db": "done", "web": "skipped"}
    assert world.routes.find(b"web") is None


def test_silence_is_told_as_none(world):
    world.engine.add_image("deaf", Program(listens=False))
    application = world.services.deployments.apply(wish({"name": "db", "image": "deaf"}), ADMIN)

    told = [each for each, _ in zip(application, range(4), strict=False)]

    assert [report and report.stage.value for report in told] == ["doing", "starting", None, None]


def test_a_folder_that_is_missing_is_found_out_before_anything_is_done(world, tmp_path):
    volume = {"host_path": f"{tmp_path}/nothing", "container_path": "/data"}

    with pytest.raises(InvalidParameter) as failure:
        world.services.deployments.plan(wish({"name": "web"}, {"name": "db", "volumes": [volume]}))

    assert (failure.value.field, failure.value.code) == ("db.volumes", "VOLUME_SOURCE_MISSING")
    assert failure.value.hint.startswith(f"mkdir -p {tmp_path}/nothing")


def test_more_replicas_are_waited_for(world, apply):
    apply(wish({"name": "web"}))

    apply(wish({"name": "web", "replicas": 3}))

    assert sorted(target.number for target in world.route("web").serving) == [1, 2, 3]


def test_a_replica_that_is_down_is_started_and_one_that_comes_back_is_not(world, apply, eventually):
    asked = wish({"name": "web", "replicas": 2})
    agent = (apply(asked), world.agent("web"))[1]
    world.engine.kill(agent.id, 2)
    eventually(lambda: world.agent("web").replica(2).state == "stopped")
    assert verbs(world, asked) == {"web": "start"}

    apply(asked)

    assert sorted(target.number for target in world.route("web").serving) == [1, 2]
    due = world.agent("web").changed(2, state="stopped", should_run=True, next_restart_at=2e10)
    world.agents.put(due)
    assert verbs(world, asked) == {"web": "keep"}
