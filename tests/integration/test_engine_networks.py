"""What agents reach, seen from inside real containers: each other, the daemon, the host, the world."""

import ipaddress
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import docker
import gevent
import pytest
from gevent import socket

from agentainerd.engine import firewall
from agentainerd.engine.docker_engine import DockerEngine
from agentainerd.errors import Conflict
from agentainerd.model.containers import Container, ContainerSpec
from tests.fakes.docker import new_sandbox, run_inside
from tests.fakes.hosts import addresses_of_this_host, host_server, knock

pytestmark = pytest.mark.docker


@pytest.fixture
def deploy(docker_engine: DockerEngine, agent_image: str) -> Callable[..., Container]:
    def deploy(name: str, *, egress: bool = True) -> Container:
        agent_id = f"agent-{uuid.uuid4().hex[:16]}"
        spec = ContainerSpec(
            name=f"agentainer-{agent_id}",
            hostname=agent_id,
            image=agent_image,
            aliases=(agent_id, name),
            labels={"agentainer.id": agent_id},
            env={"AGENT_ID": agent_id},
            egress=egress,
        )
        return docker_engine.start(docker_engine.create(spec))

    return deploy


def names_of(client: docker.APIClient, box: Container, *names: str) -> list[str]:
    program = f"import json, socket; print(json.dumps([socket.gethostbyname(name) for name in {names!r}]))"
    return run_inside(client, box.id, program)


def asks(client: docker.APIClient, box: Container, *urls: str) -> list[str]:
    """Return the agent ids that answer the URLs."""
    program = (
        "import json, urllib.request as r; "
        f"print(json.dumps([json.load(r.urlopen(url, timeout=5))['agent_id'] for url in {urls!r}]))"
    )
    return run_inside(client, box.id, program)


def wait_for_port(box: Container, eventually: Callable[..., object]) -> None:
    def connects() -> bool:
        try:
            socket.create_connection((box.address, 8000), 1).close()
        except OSError:
            return False
        return True

    eventually(connects, what=f"{box.address}:8000")


def test_agents_of_both_kinds_reach_each_other_by_id_and_by_name(deploy, docker_client, eventually):
    open_box, closed_box, other_closed = deploy("web"), deploy("db", egress=False), deploy("cache", egress=False)
    for box in (open_box, closed_box, other_closed):
        wait_for_port(box, eventually)

    assert asks(docker_client, open_box, "http://db:8000/", f"http://{closed_box.agent_id}:8000/") == [
        closed_box.agent_id,
        closed_box.agent_id,
    ]
    assert asks(docker_client, closed_box, "http://web:8000/", "http://cache:8000/") == [
        open_box.agent_id,
        other_closed.agent_id,
    ]


def test_the_address_of_an_agent_is_reached_from_the_host_whatever_its_egress(deploy, eventually):
    for box in (deploy("a"), deploy("b", egress=False)):
        wait_for_port(box, eventually)


def test_host_docker_internal_is_the_gateway_of_the_agents_own_network(deploy, docker_client, docker_engine):
    networks = docker_engine.ensure_networks()

    subnets = [ipaddress.ip_network(subnet) for subnet in networks.subnets]
    for gateway in (networks.gateway, networks.isolated_gateway):
        assert any(ipaddress.ip_address(gateway) in subnet for subnet in subnets)
    assert names_of(docker_client, deploy("a"), "host.docker.internal") == [networks.gateway]
    assert names_of(docker_client, deploy("b", egress=False), "host.docker.internal") == [networks.isolated_gateway]


def test_only_an_agent_with_egress_reaches_the_world(deploy, docker_client, outside):
    place = (outside.address, outside.port)

    assert knock(docker_client, deploy("a").id, place) == ["outside"]
    assert knock(docker_client, deploy("b", egress=False).id, place) == ["TimeoutError"]


@pytest.fixture
def protected(docker_engine: DockerEngine) -> Iterator[Callable[..., firewall.Enforcement]]:
    networks = docker_engine.ensure_networks()
    yield lambda port, **options: firewall.protect(networks, port, **options)
    firewall.lift(networks.bridge)
    firewall.lift(networks.isolated_bridge)


@pytest.fixture
def restricted(docker_engine: DockerEngine) -> Iterator[Callable[[int], firewall.Enforcement]]:
    bridge = docker_engine.ensure_networks().isolated_bridge
    yield lambda port: firewall.restrict(bridge, port)
    firewall.lift(bridge)


def needs_root(enforcement: firewall.Enforcement) -> None:
    if os.geteuid() != 0:
        assert not enforcement.enforced
        assert "root" in enforcement.why
        pytest.skip("the firewall needs root, and says so (asserted)")
    assert enforcement == firewall.Enforcement(True)


def test_an_agent_without_egress_reaches_the_daemons_port_and_nothing_else(
    deploy, docker_client, docker_engine, restricted
):
    networks = docker_engine.ensure_networks()
    closed_box, open_box = deploy("b", egress=False), deploy("a")
    with ExitStack() as servers:
        daemon = servers.enter_context(host_server(networks.isolated_gateway, b"daemon"))
        other = servers.enter_context(host_server(networks.isolated_gateway, b"secret"))
        everywhere = servers.enter_context(host_server("0.0.0.0", b"secret"))
        needs_root(restricted(daemon))

        seen = knock(
            docker_client,
            closed_box.id,
            (networks.isolated_gateway, daemon),
            (networks.isolated_gateway, other),
            *((address, everywhere) for address in addresses_of_this_host()),
        )

        assert seen[0] == "daemon"
        assert set(seen[1:]) == {"TimeoutError"}
        # Another bridge has rules of its own; those of a daemon that used these networks before are still there.
        firewall.lift(networks.bridge)
        assert knock(docker_client, open_box.id, (networks.gateway, everywhere)) == ["secret"]


def test_an_agent_with_egress_reaches_the_ports_of_the_host_that_it_may(
    deploy, docker_client, docker_engine, protected
):
    gateway = docker_engine.ensure_networks().gateway
    box = deploy("a").id
    with ExitStack() as servers:
        daemon, database, other = (servers.enter_context(host_server("0.0.0.0", b"here")) for _ in range(3))
        places = [(gateway, port) for port in (daemon, database, other)]

        needs_root(protected(daemon))
        assert knock(docker_client, box, *places) == ["here", "TimeoutError", "TimeoutError"]

        protected(daemon, host_ports=(str(database),))
        assert knock(docker_client, box, *places) == ["here", "here", "TimeoutError"]

        protected(daemon, host_ports=("*",))
        assert knock(docker_client, box, *places) == ["here", "here", "here"]


def test_metadata_services_are_dropped_and_the_rest_of_the_world_is_not(
    deploy, docker_client, docker_engine, protected, outside
):
    box, bridge = deploy("a").id, docker_engine.ensure_networks().bridge
    places = [(outside.address, outside.port), (outside.metadata, outside.port)]
    needs_root(protected(8081))
    assert knock(docker_client, box, *places) == ["outside", "TimeoutError"]

    firewall.lift(bridge)
    assert knock(docker_client, box, *places) == ["outside", "outside"]  # it is the rule that does it


def test_the_host_still_reaches_agents_behind_the_rules(deploy, eventually, restricted):
    box = deploy("b", egress=False)
    needs_root(restricted(8081))

    wait_for_port(box, eventually)


def test_the_rules_are_set_once_replaced_and_lifted(docker_engine, restricted):
    bridge = docker_engine.ensure_networks().isolated_bridge
    needs_root(restricted(8081))
    restricted(8082)

    rules = firewall_rules()
    inputs = [line for line in rules if line.startswith("-A INPUT")]
    jumps = [line for line in inputs if bridge in line]
    assert len(jumps) == 1
    before = inputs[: inputs.index(jumps[0])]
    assert [line for line in before if "-j AGENTAINER" not in line] == []  # but for bridges of other daemons, set since
    ports = [line for line in rules if firewall.chain_of(bridge) in line and "--dport" in line]
    assert [line.split("--dport ")[1].split()[0] for line in ports] == ["8082"]

    firewall.lift(bridge)
    firewall.lift(bridge)

    assert not [line for line in firewall_rules() if bridge in line and "AGENTAINER" in line]


def test_the_capability_is_enough_to_set_the_rules(docker_engine, restricted):
    networks = docker_engine.ensure_networks()
    needs_root(restricted(8081))
    program = (
        "import os, sys\nfrom agentainerd.engine import firewall\nfrom agentainerd.model.containers import Networks\n"
        f"print(os.geteuid(), firewall.protect(Networks('', '', {networks.bridge!r}, {networks.isolated_bridge!r}), 8083))"
    )

    done = subprocess.run(
        [
            "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all,+net_admin,+net_raw",
            "--ambient-caps=+net_admin,+net_raw", sys.executable, "-c", program,
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.stdout == "65534 Enforcement(enforced=True, why='')\n", done.stderr


def firewall_rules() -> list[str]:
    return subprocess.run(["iptables", "-S"], capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_bridge_that_is_not_here_is_not_enforced():
    enforcement = firewall.restrict("nosuchbridge", 8081)

    assert not enforcement.enforced
    assert enforcement.why


def test_an_agent_without_egress_gets_no_name_of_the_world(deploy, docker_client):
    program = """
import json, socket, time
start = time.monotonic()
try:
    found = socket.gethostbyname("example.com")
except OSError as error:
    found = type(error).__name__
print(json.dumps([found, time.monotonic() - start]))
"""
    found, took_s = run_inside(docker_client, deploy("b", egress=False).id, program)

    assert found == "gaierror"
    assert took_s < 5


def test_networks_made_by_hand_are_used_and_an_open_isolated_one_is_refused(docker_host, docker_client):
    with new_sandbox(docker_host) as sandbox:
        docker_client.create_network(sandbox.network, driver="bridge")
        docker_client.create_network(sandbox.isolated_network, driver="bridge")
        engine = DockerEngine(docker_host, network=sandbox.network, isolated_network=sandbox.isolated_network)

        with pytest.raises(Conflict) as failure:
            engine.ensure_networks()

        assert failure.value.code == "NETWORK_NOT_ISOLATED"
        docker_client.remove_network(sandbox.isolated_network)
        made = docker_client.inspect_network(sandbox.network)["Id"]
        networks = engine.ensure_networks()
        engine.close()
        assert docker_client.inspect_network(sandbox.network)["Id"] == made
        assert networks.bridge == f"br-{made[:12]}"
        isolated = docker_client.inspect_network(sandbox.isolated_network)
        assert isolated["Labels"] == {"managed-by": "agentainer"}
        assert isolated["Internal"]


def test_two_that_make_the_networks_at_once_get_the_same(docker_host):
    with new_sandbox(docker_host) as sandbox:
        engines = [
            DockerEngine(docker_host, network=sandbox.network, isolated_network=sandbox.isolated_network)
            for _ in range(4)
        ]
        found = gevent.joinall([gevent.spawn(engine.ensure_networks) for engine in engines])  # noqa: TID251

        assert len({greenlet.get() for greenlet in found}) == 1
        for engine in engines:
            engine.close()


def test_a_container_survives_the_loss_of_its_networks(docker_host, docker_client, agent_image, eventually):
    with new_sandbox(docker_host) as sandbox:
        engine = DockerEngine(docker_host, network=sandbox.network, isolated_network=sandbox.isolated_network)
        spec = ContainerSpec(
            name=f"agentainer-{uuid.uuid4().hex[:16]}",
            hostname="a",
            image=agent_image,
            aliases=("agent-x", "web"),
            labels={"agentainer.id": "agent-x"},
            env={},
        )
        box = engine.start(engine.create(spec))
        engine.stop(box.id, grace_s=0)
        docker_client.remove_network(sandbox.network)
        docker_client.remove_network(sandbox.isolated_network)

        again = engine.start(box.id)

        wait_for_port(again, eventually)
        joined = docker_client.inspect_container(box.id)["NetworkSettings"]["Networks"]
        assert set(joined) == {sandbox.network, sandbox.isolated_network}
        assert all({"agent-x", "web"} <= set(endpoint["Aliases"]) for endpoint in joined.values())
        engine.close()
