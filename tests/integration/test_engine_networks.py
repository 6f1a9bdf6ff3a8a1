"""What agents reach, seen from inside real containers: each other, the daemon, the host, the world."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import docker
import gevent
import psutil
import pytest
from gevent import socket
from gevent.server import StreamServer

from agentainerd.engine import firewall
from agentainerd.engine.docker_engine import DockerEngine
from agentainerd.errors import Conflict
from agentainerd.model.containers import Container, ContainerSpec
from tests.fakes.docker import new_sandbox, run_inside

pytestmark = pytest.mark.docker

KNOCK = """
import json, socket, sys
def knock(host, port):
    try:
        with socket.create_connection((host, port), 1.0) as connection:
            connection.settimeout(2.0)
            return connection.recv(100).decode() or "closed"
    except OSError as error:
        return type(error).__name__
print(json.dumps([knock(host, port) for host, port in TARGETS]))
"""


@contextmanager
def host_server(address: str, says: bytes) -> Iterator[int]:
    """Serve on an address of the host; give the port."""
    server = StreamServer((address, 0), lambda connection, _: connection.sendall(says))
    server.start()
    try:
        yield server.server_port
    finally:
        server.stop()


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


def knock(client: docker.APIClient, box: Container, *targets: tuple[str, int]) -> list[str]:
    """Return what the container gets from each target: the first bytes, or the error."""
    return run_inside(client, box.id, KNOCK.replace("TARGETS", repr(list(targets))))


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

    assert names_of(docker_client, deploy("a"), "host.docker.internal") == [networks.gateway]
    assert names_of(docker_client, deploy("b", egress=False), "host.docker.internal") == [networks.isolated_gateway]


@pytest.fixture
def outside() -> Iterator[tuple[str, int]]:
    """A host beyond this one, and its port: a network namespace behind a cable, where a server says "outside"."""
    if os.geteuid() != 0:
        pytest.skip("a network namespace needs root")
    name = f"out{uuid.uuid4().hex[:8]}"
    block = f"198.18.{os.getpid() % 250}"
    server = (
        f"import socket; s = socket.create_server(('{block}.2', 7000)); print(1, flush=True)\n"
        "while True:\n    c = s.accept()[0]; c.sendall(b'outside'); c.close()"
    )

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)

    try:
        ip("netns", "add", name)
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("addr", "add", f"{block}.1/24", "dev", name)
        ip("link", "set", name, "up")
        for words in (("addr", "add", f"{block}.2/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
            ip("-n", name, *words)
        ip("-n", name, "route", "add", "default", "via", f"{block}.1")
        with subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, "-c", server], stdout=subprocess.PIPE
        ) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == b"1\n"
            yield f"{block}.2", 7000
            running.kill()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)
        subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)


def test_only_an_agent_with_egress_reaches_the_world(deploy, docker_client, outside):
    assert knock(docker_client, deploy("a"), outside) == ["outside"]
    assert knock(docker_client, deploy("b", egress=False), outside) == ["TimeoutError"]


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
            closed_box,
            (networks.isolated_gateway, daemon),
            (networks.isolated_gateway, other),
            *((address, everywhere) for address in addresses_of_this_host()),
        )

        assert seen[0] == "daemon"
        assert set(seen[1:]) == {"TimeoutError"}
        # With egress, the host is as open as the original's network document says.
        assert knock(docker_client, open_box, (networks.gateway, everywhere)) == ["secret"]


def addresses_of_this_host() -> list[str]:
    return [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]


def test_the_host_still_reaches_agents_behind_the_rules(deploy, eventually, restricted):
    box = deploy("b", egress=False)
    needs_root(restricted(8081))

    wait_for_port(box, eventually)


def test_the_rules_are_set_once_replaced_and_lifted(docker_engine, restricted):
    bridge = docker_engine.ensure_networks().isolated_bridge
    needs_root(restricted(8081))
    restricted(8082)

    rules = firewall_rules()
    jumps = [line for line in rules if line.startswith("-A INPUT") and bridge in line]
    assert len(jumps) == 1
    assert next(line for line in rules if line.startswith("-A INPUT")) == jumps[0]
    ports = [line for line in rules if firewall.chain_of(bridge) in line and "--dport" in line]
    assert [line.split("--dport ")[1].split()[0] for line in ports] == ["8082"]

    firewall.lift(bridge)
    firewall.lift(bridge)

    assert not [line for line in firewall_rules() if bridge in line and "AGENTAINER" in line]


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
