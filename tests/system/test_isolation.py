"""What a hostile agent finds inside its container: nothing of the host but the daemon's own port, and no way to become more."""

import os
import subprocess

import psutil
import pytest
from gevent import socket
from gevent.server import DatagramServer

from agentainerd.engine import firewall
from agentainerd.engine.networks import bridge_of
from tests.fakes.docker import new_sandbox, run_inside
from tests.fakes.hosts import addresses_of_this_host, has_ipv6, host_server, knock

pytestmark = [
    pytest.mark.docker,
    pytest.mark.redis,
    pytest.mark.skipif(os.geteuid() != 0, reason="the firewall and a network namespace need root"),
]
DROPPED = {"TimeoutError"}
NOWHERE = {"TimeoutError", "OSError", "gaierror", "ConnectionRefusedError"}
UDP = """
import json, socket
from concurrent.futures import ThreadPoolExecutor
def ask(target):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.settimeout(1.0)
        try:
            channel.sendto(b"?", target)
            return channel.recv(100).decode()
        except OSError as error:
            return type(error).__name__
with ThreadPoolExecutor(32) as pool:
    print(json.dumps(list(pool.map(ask, TARGETS))))
"""
HTTP = """
import json, urllib.request, urllib.error
def ask(path, token):
    request = urllib.request.Request("http://host.docker.internal:PORT" + path)
    if token:
        request.add_header("Authorization", "Bearer " + token)
    try:
        return urllib.request.urlopen(request, timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code
print(json.dumps([ask(path, token) for path, token in CALLS]))
"""
LOOK = """
import ctypes, json, os, socket, stat
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    ctypes.set_errno(0)
    done = getattr(libc, name)(*arguments)
    return os.strerror(ctypes.get_errno()) if done == -1 else "done"
def attempt(function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        return os.strerror(error.errno)
    return "done"
def read(path):
    try:
        with open(path, "rb") as file:
            return file.read(200000).decode("utf-8", "replace")
    except OSError as error:
        return ""
sockets, devices, writable = [], [], []
for top, folders, files in os.walk("/"):
    folders[:] = [one for one in folders if os.path.join(top, one) not in ("/proc", "/sys")]
    for name in files:
        path = os.path.join(top, name)
        mode = os.lstat(path).st_mode
        if stat.S_ISSOCK(mode): sockets.append(path)
        if stat.S_ISBLK(mode): devices.append(path)
for top, folders, files in [*os.walk("/proc/sys"), *os.walk("/sys")]:
    for name in files:
        path = os.path.join(top, name)
        try:
            os.close(os.open(path, os.O_WRONLY))
        except OSError:
            continue
        writable.append(path)
status = dict(line.split(":", 1) for line in read("/proc/self/status").splitlines())
print(json.dumps({
    "raw": attempt(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1),
    "packet": attempt(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 3),
    "mount": call("mount", b"none", b"/mnt", b"tmpfs", 0, 0),
    "remount": call("mount", b"none", b"/sys", b"sysfs", 32, 0),
    "user_namespace": call("unshare", 0x10000000),
    "mount_namespace": call("unshare", 0x00020000),
    "device": attempt(os.mknod, "/tmp/disk", 0o600 | stat.S_IFBLK, os.makedev(8, 0)),
    "ptrace": call("ptrace", 16, HOST_PID, 0, 0),
    "kill": attempt(os.kill, HOST_PID, 0),
    "module": call("init_module", b"", 0, b""),
    "reboot": call("reboot", 0x01234567),
    "clock": call("settimeofday", ctypes.byref(ctypes.c_longlong(0)), 0),
    "hostname": call("sethostname", b"x", 1),
    "keys": call("syscall", 250, 0, 0, 0, 0, 0),
    "bpf": call("syscall", 321, 0, 0, 0),
    "nice": attempt(os.setpriority, os.PRIO_PROCESS, 0, -20),
    "kernel_log": call("klogctl", 3, ctypes.create_string_buffer(100), 100),
    "sockets": sockets,
    "devices": devices,
    "writable": writable,
    "first": read("/proc/1/cmdline"),
    "processes": [name for name in os.listdir("/proc") if name.isdigit()],
    "core": len(read("/proc/kcore")),
    "mounts": read("/proc/self/mountinfo"),
    "unix": read("/proc/net/unix"),
    "environment": dict(os.environ),
    "capabilities": int(status["CapEff"], 16), "bounding": int(status["CapBnd"], 16),
    "no_new_privileges": status["NoNewPrivs"].strip(), "seccomp": status["Seccomp"].strip(),
    "there": [path for path in PATHS if os.path.lexists(path)],
}))
"""
KEPT = {0: "CHOWN", 1: "DAC_OVERRIDE", 3: "FOWNER", 5: "KILL", 6: "SETGID", 7: "SETUID", 10: "NET_BIND_SERVICE"}


class Host:
    """A daemon whose agents' network speaks IPv6 too, as one that was made by hand may."""

    def __init__(self, daemon, client, sandbox, image):
        self.daemon, self.client, self.image = daemon, client, image
        networks = {one["Name"]: one for one in client.networks()}
        self.bridges = [bridge_of(networks[name]) for name in (sandbox.network, sandbox.isolated_network)]
        self.gateways = [
            networks[name]["IPAM"]["Config"][0]["Gateway"] for name in (sandbox.network, sandbox.isolated_network)
        ]

    def up(self, name, **fields):
        status, said = self.daemon.control("POST", "/agents", {"name": name, "image": self.image, **fields})
        assert status == 201, said
        return self.daemon.control("POST", f"/agents/{name}/start?wait=30")[1]["data"]["container_id"]

    def knock(self, container, *places):
        return knock(self.client, container, *places)


@pytest.fixture
def host(start_daemon, docker_host, docker_client, agent_image, eventually):
    with new_sandbox(docker_host) as sandbox:
        block = f"fd98:{os.getpid() % 65536:x}::"
        pools = [  # of a range that no engine gives out by itself (RFC 2544), and not that of tests/fakes/hosts.py
            {"Subnet": f"{block}/64", "Gateway": f"{block}1"},
            {"Subnet": f"198.19.{os.getpid() % 256}.0/24", "Gateway": f"198.19.{os.getpid() % 256}.1"},
        ]
        docker_client.create_network(
            sandbox.network,
            driver="bridge",
            enable_ipv6=has_ipv6(),
            ipam={"Driver": "default", "Config": pools[::-1] if has_ipv6() else pools[1:]},
        )
        daemon = start_daemon(sandbox=sandbox)
        found = lambda: daemon.control("GET", "/system/info")[1]["data"]  # noqa: E731
        eventually(lambda: found()["isolation"] == "enforced", what="the firewall")
        host = Host(daemon, docker_client, sandbox, agent_image)
        host.gateway_v6 = f"{block}1"
        yield host


def listening_ports(but: int) -> list[int]:
    """Return the TCP ports that anything on this host listens on, beyond loopback."""
    return sorted(
        {
            one.laddr.port
            for one in psutil.net_connections("tcp")
            if one.status == psutil.CONN_LISTEN
            and not one.laddr.ip.startswith(("127.", "::1"))
            and one.laddr.port != but
        }
    )


def test_an_agent_reaches_no_port_of_the_host_but_the_daemons(host, outside):
    agent, port = host.up("web"), host.daemon.port
    echo = DatagramServer(("0.0.0.0", 0), lambda data, address: echo.sendto(b"secret", address))
    echo.start()
    with (
        host_server("0.0.0.0", b"secret") as everywhere,
        host_server("::" if has_ipv6() else "0.0.0.0", b"secret") as everywhere_v6,
    ):
        with host_server(host.gateways[0], b"secret") as on_gateway:
            addresses = addresses_of_this_host()
            ports = [everywhere, on_gateway, *listening_ports(port)]
            seen = host.knock(agent, *((address, one) for address in addresses for one in {everywhere, everywhere_v6}))
            assert set(seen) == DROPPED
            assert set(host.knock(agent, *((host.gateways[0], one) for one in ports))) == DROPPED
            v6 = [host.gateway_v6, *addresses_of_this_host(socket.AF_INET6)] if has_ipv6() else []
            assert set(host.knock(agent, *((address, everywhere_v6) for address in v6))) <= DROPPED
        asked = UDP.replace(
            "TARGETS", repr([(address, echo.server_port) for address in (host.gateways[0], *addresses)])
        )
        assert set(run_inside(host.client, agent, asked)) == DROPPED
    echo.stop()

    beyond = [(address, outside.port) for address in (outside.address, outside.address_v6) if address]
    assert host.knock(agent, *beyond) == ["outside"] * len(beyond)
    assert run_inside(host.client, agent, HTTP.replace("PORT", str(port)).replace("CALLS", "[('/livez', '')]")) == [200]


def test_metadata_services_are_dropped_by_a_rule_that_counts(host, outside, eventually):
    agent = host.up("web")
    beyond = outside.address_v6 or outside.address
    reached = lambda: host.knock(agent, (beyond, outside.port)) == ["outside"]  # noqa: E731
    eventually(reached, what="the container's IPv6 address being settled")
    targets = [address for address in (outside.metadata, outside.metadata_v6) if address]
    for address in targets:
        with socket.create_connection((address, outside.port), 2) as direct:
            assert direct.recv(100) == b"outside"  # this host does reach it

    seen = host.knock(agent, *((address, outside.port) for address in targets), ("169.254.169.254", 80))

    assert set(seen) == DROPPED
    assert dropped_by(host.bridges[0], "iptables", "169.254.0.0/16") >= 2
    if outside.metadata_v6:
        assert dropped_by(host.bridges[0], "ip6tables", outside.metadata_v6) >= 1


def dropped_by(bridge, tool, target) -> int:
    listed = subprocess.run(
        [tool, "-nvxL", firewall.forward_chain_of(bridge)], capture_output=True, text=True, check=True
    ).stdout
    rules = [line.split() for line in listed.splitlines() if "DROP" in line and target in line]
    assert len(rules) == 1, listed
    return int(rules[0][0])


def test_without_egress_nothing_is_reached_but_agents_and_the_daemon(host, outside):
    closed, peer = host.up("closed", network_egress=False), host.up("peer")
    stranger = host.client.create_container(host.image)["Id"]
    host.client.start(stranger)
    try:
        found = host.client.inspect_container(stranger)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        with host_server("0.0.0.0", b"secret") as everywhere:
            places = [
                *((address, everywhere) for address in addresses_of_this_host()),
                (found, 8000), (outside.address, outside.port), (outside.address_v6 or outside.address, outside.port),
                (outside.metadata, outside.port), ("169.254.169.254", 80), ("192.0.2.1", 80), ("example.com", 80),
                (host.gateway_v6, everywhere),
            ]  # fmt: skip
            assert set(host.knock(closed, *places)) <= NOWHERE
            assert (
                set(host.knock(closed, *((host.gateways[1], one) for one in listening_ports(host.daemon.port))))
                == DROPPED
            )
    finally:
        host.client.remove_container(stranger, force=True)

    assert set(host.knock(closed, ("peer", 8000))) <= {"TimeoutError", "closed"}  # connected: the echo server waits
    assert peer
    paths = HTTP.replace("PORT", str(host.daemon.port)).replace("CALLS", "[('/livez', ''), ('/agent/peer/', '')]")
    assert run_inside(host.client, closed, paths) == [200, 200]


def test_the_api_wants_the_token_from_agents_too_and_no_agent_is_given_one(host):
    agent, token = host.up("web", token="agents-own-token"), host.daemon.token
    calls = [
        ("/agents", ""), ("/agents", "agents-own-token"), ("/agents", token), ("/token", token),
        ("/agent/web/", token), ("/agent/web/", "agents-own-token"), ("/agent/web/", ""),
    ]  # fmt: skip

    seen = run_inside(host.client, agent, HTTP.replace("PORT", str(host.daemon.port)).replace("CALLS", repr(calls)))

    assert seen == [401, 401, 200, 403, 400, 200, 401]


def test_inside_there_is_nothing_of_the_host_and_no_way_to_become_more(host):
    daemon = host.daemon
    paths = [
        "/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/agentainer", "/var/lib/docker",
        str(daemon.state_dir), str(daemon.runtime_dir), str(daemon.folder), "/var/lib/agentainer", "/etc/agentainer",
    ]  # fmt: skip
    look = LOOK.replace("HOST_PID", str(daemon.pid)).replace("PATHS", repr(paths))

    seen = run_inside(host.client, host.up("web"), look)

    refused = (
        "raw", "packet", "mount", "remount", "user_namespace", "mount_namespace", "device", "module", "reboot", "clock",
        "hostname", "keys", "bpf", "kernel_log",
    )  # fmt: skip
    assert {name: seen[name] for name in refused} == dict.fromkeys(refused, "Operation not permitted")
    assert seen["nice"] in ("Permission denied", "Operation not permitted")
    assert (seen["ptrace"], seen["kill"]) == ("No such process", "No such process")
    assert (seen["sockets"], seen["devices"], seen["there"], seen["core"]) == ([], [], [], 0)
    assert seen["writable"] == []
    assert "docker-init" in seen["first"]
    assert len(seen["processes"]) < 6
    bits = {bit for bit in range(41) if seen["capabilities"] >> bit & 1}
    assert (bits, seen["bounding"]) == (set(KEPT), seen["capabilities"])
    assert (seen["no_new_privileges"], seen["seccomp"]) == ("1", "2")
    assert daemon.token not in str(seen)
    assert not [name for name in seen["environment"] if name.startswith(("AGENTAINER_TOKEN", "REDIS", "DOCKER"))]
    assert "agentainer.sock" not in seen["unix"] + seen["mounts"]
    assert str(daemon.state_dir) not in seen["mounts"]
