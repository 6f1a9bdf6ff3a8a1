import gevent
import msgspec
import pytest

from agentainerd.errors import Conflict, NotFound
from agentainerd.model.agents import Agent, AgentSpec, AgentState
from agentainerd.store.agents import AgentStore

pytestmark = pytest.mark.redis


@pytest.fixture
def agents(store):
    return AgentStore(store.client)


def agent(number, name="web", **options):
    return Agent(id=f"agent-{number:016x}", spec=AgentSpec(name=name, image="img:1"), created_at=number, **options)


def test_created_agent_is_found_by_id_and_name(agents):
    one = agent(1)

    agents.create(one)

    assert agents.get(one.id) == agents.find(one.id) == agents.find("web") == one


def test_creating_the_same_agent_twice_is_fine(agents):
    agents.create(agent(1))
    agents.create(agent(1))

    assert len(agents.all()) == 1


def test_name_is_given_once(agents):
    def create(number):
        try:
            agents.create(agent(number))
        except Conflict as error:
            return error.code
        return ""

    answers = [gevent.spawn(create, number) for number in range(20)]
    gevent.joinall(answers, raise_error=True)

    assert sorted(answer.value for answer in answers) == [""] + ["AGENT_NAME_TAKEN"] * 19
    assert len(agents.all()) == 1


def test_put_overwrites(agents):
    agents.create(agent(1))

    agents.put(agent(1, state=AgentState.RUNNING, reason="up"))

    assert agents.get(agent(1).id).state is AgentState.RUNNING


def test_removed_agent_stays_removed_and_its_name_is_free(agents):
    agents.create(agent(1))

    agents.remove(agent(1).id)
    agents.remove(agent(1).id)

    for ref in ("web", agent(1).id):
        with pytest.raises(NotFound):
            agents.find(ref)
    with pytest.raises(NotFound):
        agents.get(agent(1).id)
    with pytest.raises(NotFound):
        agents.put(agent(1))
    agents.create(agent(2))
    assert agents.find("web").id == agent(2).id


def test_all_are_listed_oldest_first(agents):
    for number in (3, 1, 2):
        agents.create(agent(number, name=f"a{number}"))

    assert [one.name for one in agents.all()] == ["a1", "a2", "a3"]


def test_every_field_survives(agents):
    one = msgspec.structs.replace(
        agent(1), spec=AgentSpec(name="web", image="img:1", env_vars={"KEY": "ä'\"\n"}, command=("a", "b"), port=9)
    )

    agents.create(one)

    assert agents.get(one.id) == one
