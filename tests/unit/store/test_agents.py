from pathlib import Path

import gevent
import msgspec
import pytest

from agentainerd.errors import Conflict, NotFound
from agentainerd.model.agents import Agent, AgentSpec
from agentainerd.model.replicas import AgentState, Replica
from agentainerd.store import keys
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

    agents.put(agent(1, replicas=(Replica(state=AgentState.RUNNING, reason="up"),)))

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


def test_the_names_of_replicas_are_taken_and_freed_with_them(agents):
    def scaled(count):
        return msgspec.structs.replace(one, spec=msgspec.structs.replace(one.spec, replicas=count))

    one = agent(1)
    agents.create(one)
    agents.scale(scaled(3))
    with pytest.raises(Conflict) as failure:
        agents.create(agent(2, name="web-3"))
    assert "replica 3 of agent-" in failure.value.message

    agents.scale(scaled(2))
    agents.create(agent(2, name="web-3"))

    with pytest.raises(Conflict) as failure:
        agents.scale(scaled(4))
    assert "replica 3 would be called 'web-3'" in failure.value.message
    assert agents.get(one.id).spec.replicas == 2
    with pytest.raises(NotFound):
        agents.find("web-2")
    agents.remove(one.id)
    for name in ("web", "web-1", "web-2"):
        agents.create(agent(hash(name) % 10**9 + 3, name=name))


def test_an_agent_with_replicas_is_not_created_where_one_of_their_names_is_taken(agents):
    agents.create(agent(1, name="web-2"))
    many = msgspec.structs.replace(agent(2), spec=AgentSpec(name="web", image="img:1", replicas=2))

    with pytest.raises(Conflict):
        agents.create(many)

    agents.create(agent(3))
    assert [one.name for one in agents.all()] == ["web-2", "web"]


def test_a_record_of_the_time_when_an_agent_had_one_container_is_read(agents, store):
    """As 0.1.0 wrote it, with all fields."""
    text = (Path(__file__).parent / "agent_0_1_0.json").read_bytes()
    old = msgspec.json.decode(text)
    store.client.call("HSET", keys.AGENTS, old["id"], text)
    store.client.call("HSET", keys.NAMES, "web", old["id"])

    read = agents.find("web")

    (replica,) = read.replicas
    assert (replica.number, replica.container_id, replica.state) == (1, old["container_id"], AgentState.RUNNING)
    assert (replica.should_run, replica.crashes, replica.restarts) == (True, 2, 7)
    assert (replica.last_exit.code, replica.last_exit.log, replica.started_at) == (137, ("a", "b"), old["started_at"])
    assert (read.spec.replicas, read.spec.env_vars, read.image_id) == (1, {"MODEL": "small"}, old["image_id"])
    agents.put(read)
    assert agents.find("web") == read
