"""How the services are put together: who tells whom."""

import pytest

from agentainerd.errors import InvalidParameter
from agentainerd.model.agents import Volume
from agentainerd.proxy.target import Target


def test_a_control_token_on_an_agents_path_is_audited_with_the_agent_and_no_token(world, eventually):
    world.routes.on_control_token("192.0.2.1", "web")

    line = eventually(lambda: world.log_of("audit.log"))
    assert '"control_token_on_agent_path"' in line and '"192.0.2.1"' in line and '"web"' in line


def test_what_is_accepted_wakes_the_replay(world, eventually):
    agent = world.up()

    request_id = world.queue(agent)

    eventually(lambda: world.summary(request_id).state == "completed")


def test_a_refused_connection_makes_readiness_look_again(world, eventually):
    agent = world.up()
    route = world.route()

    world.routes.on_suspect(route, route.targets[0])
    eventually(lambda: world.is_ready())

    world.engine.kill(agent.id)
    assert world.routes.on_dead_check(route, route.targets[0] if route.targets else _retired())


def _retired():
    target = Target(("127.0.0.1", 1))
    target.retire()
    return target


def test_the_daemons_own_folders_and_the_engines_socket_are_closed_to_agents(make_world, tmp_path):
    world = make_world(docker={"host": f"unix://{tmp_path}/engine/docker.sock"})
    (tmp_path / "engine").mkdir()

    for path in (world.state_dir, tmp_path / "engine", tmp_path):
        with pytest.raises(InvalidParameter):
            world.services.volumes.resolve([Volume(str(path), "/x")])


def test_agents_are_told_where_the_daemon_is(world):
    agent = world.up()

    spec = world.engine._boxes[agent.container_id].spec

    assert spec.env["AGENTAINER_URL"] == "http://host.docker.internal:8081"
