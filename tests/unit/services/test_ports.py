"""Named ports of agents: from spec or image into the route, the container's environment, and addresses for people."""

import pytest

from agentainerd.errors import InvalidParameter, NotFound
from tests.fakes.world import ADMIN

PORTS = {"gui": 6080, "jupyter": 8888}


def test_ports_reach_route_environment_and_api(world):
    agent = world.up(named_ports=PORTS)

    assert world.route().ports == {b"gui": 6080, b"jupyter": 8888}
    environment = world.engine.environment_of(agent.id)
    access = world.routes.ports
    assert environment["AGENT_PORT_GUI_TOKEN"] == access.token(agent.id, "gui")
    assert environment["AGENT_PORT_JUPYTER_TOKEN"] == access.token(agent.id, "jupyter")
    assert world.services.agents.public([agent])[0]["named_ports"] == PORTS


def test_an_image_says_them_too_and_the_spec_wins(world):
    world.engine.add_image("desktop", labels={"agentainer.ports": "gui=6080"})
    world.engine.add_image("wrong", labels={"agentainer.ports": "nothing"})
    assert world.deploy("labelled", image="desktop").named_ports == {"gui": 6080}
    assert world.deploy("given", image="desktop", named_ports={"web": 1}).named_ports == {"web": 1}
    with pytest.raises(InvalidParameter):
        world.deploy("wrong", image="wrong")


def test_each_replica_has_them(world):
    world.up(named_ports=PORTS, replicas=2)
    assert world.route("web-2").ports == world.route().ports


def test_an_address_opens_one_port_once(world):
    agent = world.up(named_ports=PORTS)

    gui, jupyter = world.services.ports.open("web", "", ADMIN)

    assert gui.url.startswith("http://gui.web.localhost:8081/?agentainer_token=")
    assert (jupyter.port, jupyter.path) == ("jupyter", "/agent/web/:jupyter/")
    word = gui.url.partition("=")[2]
    assert not world.routes.ports.redeem(word, agent.id, "jupyter", 0.0)
    assert world.routes.ports.redeem(word, agent.id, "gui", 0.0)
    assert [login.port for login in world.services.ports.open(agent.id, "gui", ADMIN)] == ["gui"]
    assert '"action":"open_port"' in world.log_of("audit.log")


def test_what_is_not_there_can_not_be_opened(world):
    world.up(named_ports=PORTS)
    world.deploy("plain")
    for ref, port, code in (
        ("web", "x", "PORT_NOT_FOUND"),
        ("plain", "", "NO_NAMED_PORTS"),
        ("no", "", "AGENT_NOT_FOUND"),
    ):
        with pytest.raises(NotFound) as error:
            world.services.ports.open(ref, port, ADMIN)
        assert error.value.code == code
