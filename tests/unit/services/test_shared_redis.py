"""The shared Redis as agents come and go: who is let in, where it listens, what is left when a crash comes in between."""

import os
import signal

import pytest
import redis as redis_py
from redis.backoff import NoBackoff
from redis.retry import Retry

from agentainerd.errors import Failed, InvalidParameter, Unavailable
from agentainerd.model.agents import AgentServices, validate
from agentainerd.model.containers import Networks
from tests.fakes.daemons import free_port
from tests.fakes.world import ADMIN

pytestmark = pytest.mark.redis
REDIS = {"redis": True}


class Place:
    """A world whose agents find Redis at 127.0.0.1."""

    def __init__(self, make_world):
        self.port = free_port()
        self.make = lambda **more: make_world(shared_redis={"port": self.port}, **more)
        self.world = self.make()

    @property
    def service(self):
        return self.world.services.shared_redis

    def url(self, name="web"):
        return self.world.engine.environment_of(self.world.agent(name).id).get("REDIS_URL", "")

    def client(self, name="web"):
        url = self.url(name).replace("host.docker.internal", "127.0.0.1")
        return redis_py.Redis.from_url(url, decode_responses=True, retry=Retry(NoBackoff(), 0), socket_timeout=5)

    def look(self):
        """What the loop of the networks does."""
        return self.service.doors(self.world.engine.ensure_networks())


@pytest.fixture
def place(make_world):
    return Place(make_world)


def test_an_agent_that_asked_finds_it_when_it_starts(place):
    place.world.up(services=REDIS)

    assert place.url().startswith(f"redis://{place.world.agent().id}:")
    assert place.url().endswith(f"@host.docker.internal:{place.port}/0")
    with place.client() as client:
        assert client.set("web:a", "1")
    assert place.look() == {"127.0.0.1": place.port}
    facts = place.service.facts()
    assert facts.pop("memory_bytes") > 0
    assert facts == {"running": True, "listen": [f"127.0.0.1:{place.port}"], "agents": 1}


def test_no_agent_no_server(place):
    place.world.up()

    assert place.url() == ""
    assert place.look() == {}
    assert place.service.facts() == {"running": False}


def test_a_removed_agent_leaves_no_user_no_keys_and_at_last_no_server(place):
    place.world.up(services=REDIS)
    place.world.up("other", services=REDIS)
    web, other = place.client("web"), place.client("other")
    web.set("web:a", "1")
    web.set("shared:a", "1")
    other.set("other:a", "1")

    place.world.services.agents.remove("web", ADMIN)

    with pytest.raises(redis_py.exceptions.ConnectionError):
        web.ping()
    assert (other.get("shared:a"), other.get("other:a")) == ("1", "1")
    place.world.up("web", services=REDIS)
    with place.client("web") as again:
        assert (again.get("web:a"), again.get("shared:a")) == (None, "1")
    for name in ("web", "other"):
        place.world.services.agents.remove(name, ADMIN)
    assert place.look() == {}
    assert place.service.facts() == {"running": False}
    other.close()


def test_the_next_daemon_goes_on_where_this_one_was(place):
    place.world.up(services=REDIS)
    with place.client() as client:
        client.set("web:a", "1")
    place.world.end()

    place.world = place.make()
    assert place.look() == {"127.0.0.1": place.port}

    with place.client() as client:
        assert client.get("web:a") == "1"


def test_what_a_removal_could_not_do_is_done_later(place, monkeypatch):
    place.world.up(services=REDIS)
    place.world.up("other", services=REDIS)
    with place.client() as client:
        client.set("web:a", "1")
    server = place.service._server
    with monkeypatch.context() as patch:
        patch.setattr(server, "drop_keys", lambda name: (_ for _ in ()).throw(Unavailable("away")))
        place.world.services.agents.remove("web", ADMIN)
    assert len(server.users()) == 2

    place.look()

    assert set(server.users().values()) == {"other"}
    assert server.drop_keys("web") == 0


def test_the_keys_of_a_name_that_another_agent_has_by_now_stay(place, monkeypatch):
    place.world.up(services=REDIS)
    server = place.service._server
    with monkeypatch.context() as patch:
        patch.setattr(server, "drop_keys", lambda name: (_ for _ in ()).throw(Unavailable("away")))
        place.world.services.agents.remove("web", ADMIN)
    place.world.up(services=REDIS)
    with place.client() as client:
        client.set("web:a", "1")

        place.look()

        assert len(server.users()) == 1
        assert client.get("web:a") == "1"


def test_a_user_that_somebody_removed_is_back(place):
    agent = place.world.up(services=REDIS)
    place.service._server.drop_user(agent.id)

    place.look()

    with place.client() as client:
        assert client.ping()


def test_a_server_that_dies_is_back_where_it_was(place, eventually):
    place.world.up(services=REDIS)
    os.kill(place.service._server.pid, signal.SIGKILL)

    def answers():
        try:
            with place.client() as client:
                return client.ping()
        except redis_py.exceptions.RedisError:
            return False

    eventually(answers)


def test_a_port_that_is_taken_is_said_with_the_start(place):
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", place.port))
        other.listen()
        with pytest.raises(Unavailable) as failed:
            place.world.up(services=REDIS)

    assert failed.value.code == "SHARED_REDIS_PORT_TAKEN"
    assert "shared_redis.port" in failed.value.hint
    assert place.world.services.agents.start("web", ADMIN).state == "running"


def test_a_program_that_is_missing_is_said_with_the_start(make_world):
    world = make_world(redis={"server_binary": "/nonexistent/redis-server"})
    world.deploy(services=REDIS)

    with pytest.raises(Exception, match="nonexistent") as failed:
        world.services.agents.start("web", ADMIN)

    assert failed.value.code == "REDIS_MISSING"


def test_gateways_of_another_host_are_said_with_the_start(place, monkeypatch):
    elsewhere = Networks(gateway="192.0.2.1", isolated_gateway="192.0.2.2")
    monkeypatch.setattr(place.world.engine, "ensure_networks", lambda: elsewhere)

    with pytest.raises(Unavailable) as failed:
        place.world.up(services=REDIS)

    assert failed.value.code == "SHARED_REDIS_UNREACHABLE"


def test_only_networks_of_agents_that_asked_have_a_door(place, monkeypatch):
    networks = Networks(gateway="127.0.0.8", isolated_gateway="127.0.0.9")
    monkeypatch.setattr(place.world.engine, "ensure_networks", lambda: networks)

    place.world.up("inside", services=REDIS, network_egress=False)
    assert place.look() == {"127.0.0.9": place.port}
    place.world.up("outside", services=REDIS)
    assert place.look() == {"127.0.0.8": place.port, "127.0.0.9": place.port}
    place.world.services.agents.remove("inside", ADMIN)
    assert place.look() == {"127.0.0.8": place.port}


@pytest.mark.parametrize("fields", [{"name": "shared"}, {"env_vars": {"REDIS_URL": "redis://mine"}}])
def test_what_can_never_be_right_is_refused(place, fields):
    with pytest.raises(InvalidParameter):
        validate(place.world.spec(**{"name": "web", "services": REDIS, **fields}))

    assert validate(place.world.spec(**{"name": "web", **fields}))


def test_a_start_that_fails_is_no_crash(place, monkeypatch):
    def broken():
        raise Failed("no memory", code="SHARED_REDIS_START_FAILED")

    with monkeypatch.context() as patch:
        patch.setattr(place.service._server, "start", broken)
        with pytest.raises(Failed):
            place.world.up(services=REDIS)

    assert place.world.agent().spec.services == AgentServices(redis=True)
    assert place.world.agent().crashes == 0
    assert place.world.services.agents.start("web", ADMIN).state == "running"


def update(place, name="web", **fields):
    spec = place.world.spec(name, **fields)
    return place.world.services.deployments._deeds.updates.update(name, spec, ADMIN, wait_s=10)


def test_an_agent_that_is_given_it_later_has_it_when_its_new_container_starts(place):
    place.world.up()

    update(place, services=REDIS)

    with place.client() as client:
        assert client.set("web:a", "1")
    assert place.look() == {"127.0.0.1": place.port}


def test_an_agent_from_which_it_is_taken_keeps_its_keys_for_the_next_time(place, monkeypatch):
    place.world.up(services=REDIS)
    place.world.up("other", services=REDIS)
    client = place.client()
    client.set("web:a", "1")

    update(place)
    monkeypatch.setattr("agentainerd.services.shared_redis.ADMISSION_S", -1.0)
    place.look()

    with pytest.raises(redis_py.exceptions.ConnectionError):
        client.ping()
    monkeypatch.undo()
    update(place, services=REDIS)
    assert client.get("web:a") == "1"
    client.close()
    update(place)
    place.world.services.agents.remove("web", ADMIN)
    assert set(place.service._server.users().values()) == {"other"}
    assert place.service._server.drop_keys("web") == 0
