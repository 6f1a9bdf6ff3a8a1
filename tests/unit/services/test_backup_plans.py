"""Plans: the order of agents, and their new specs."""

from agentainerd.model.agents import AgentSpec, Volume
from agentainerd.model.backups import BackedAgent
from agentainerd.services.backup_plans import _in_order, _spec


def agent(name, *dependencies, **fields):
    return BackedAgent(f"agent-{name}", AgentSpec(name=name, image="echo", dependencies=dependencies, **fields))


def test_agents_come_after_those_that_they_depend_on():
    agents = [agent("app", "db", "cache"), agent("cache", "db"), agent("db", "elsewhere")]

    assert [each.spec.name for each in _in_order(agents)] == ["db", "cache", "app"]


def test_a_circle_is_no_obstacle():
    assert len(_in_order([agent("a", "b"), agent("b", "a")])) == 2


def test_a_spec_has_its_new_names_and_places():
    backed = agent("app", "db", "elsewhere", volumes=(Volume("/a", "/x", True), Volume("b", "/y")), deployment="stack")

    spec = _spec(backed, {"app": "app-restored", "db": "db-restored"}, {"/a": "/a-restored"})

    assert (spec.name, spec.dependencies, spec.deployment) == ("app-restored", ("db-restored", "elsewhere"), "")
    assert spec.volumes == (Volume("/a-restored", "/x", True), Volume("b", "/y"))
    assert _spec(backed, {"app": "app"}, {}) == backed.spec
