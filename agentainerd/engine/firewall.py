"""What agents may reach of the host and of the cloud that it runs in: the daemon's port, the shared Redis, and what was allowed.

On Docker's networks every address of the host is reachable on any port through the bridge, also where a network has no way
out (moby#21990), and a container with a way out reaches the metadata service of the cloud, which gives out the host's
credentials. One chain of ours per bridge, first in INPUT, closes the host; another one, in front of Docker's own forwarding,
drops what goes to metadata services. Needs CAP_NET_ADMIN and iptables; where it can't be done, `Enforcement` says why, and
nothing is pretended. docs/decisions/0003-networks.md has the whole picture.
"""

import ipaddress
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from agentainerd.model.containers import Networks

METADATA = ("169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32")
"""Where clouds answer for the machine: link-local (nearly all), Alibaba, Azure's agent, Oracle."""
METADATA_V6 = ("fd00:ec2::254/128", "fd20:ce::254/128", "fe80::/10")
ANY_PORT = "*"

_WAIT_S = "5"  # for the lock that Docker's own iptables calls take too
_TIMEOUT_S = 20.0
_BRIDGE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_CAP_NET_ADMIN = 12
_DNS = ("-p udp --dport 53", "-p tcp --dport 53")
_RESOLVERS = Path("/etc/resolv.conf")
_LOCK_FILE = "XTABLES_LOCKFILE"  # who is not root may have it elsewhere


@dataclass(frozen=True, slots=True)
class Enforcement:
    """Whether host and metadata services are closed to agents; `why` not, or "" where they are."""

    enforced: bool
    why: str = ""


def protect(
    networks: Networks, port: int, doors: Mapping[str, int] = MappingProxyType({}), *, host_ports: Sequence[str] = ()
) -> Enforcement:
    """Close the host to agents on both networks but for TCP `port`, and metadata services to those that have a way out.

    `doors` are gateways of theirs at which one more port is open, to those on that network. `host_ports` are further TCP ports,
    for agents with a way out alone; ANY_PORT among them leaves the host open to those. The resolvers that the host uses are left
    open to them too. Safe to repeat; blocks its greenlet for some ten milliseconds.
    """
    if networks.is_member:
        return Enforcement(False, "agentainerd runs in a container, where the host's firewall is out of its reach")
    isolated = restrict(networks.isolated_bridge, port, door=_door(networks.isolated_gateway, doors))
    if not isolated.enforced:
        return isolated
    withheld = withhold_metadata(networks.bridge)
    if not withheld.enforced:
        return withheld
    if ANY_PORT in host_ports:
        lift_host(networks.bridge)
        return Enforcement(True)
    door = _door(networks.gateway, doors)
    return restrict(networks.bridge, port, host_ports=host_ports, resolvers=resolvers(), door=door)


def restrict(
    bridge: str,
    port: int,
    *,
    host_ports: Sequence[str] = (),
    resolvers: Sequence[str] = (),
    door: tuple[str, int] | None = None,
) -> Enforcement:
    """Let what comes from `bridge` reach TCP `port` of the host and answers to the host's own connections; drop the rest.

    `door`: one address and a port of it that may be reached too; the port of no other address.

    Replaces what an earlier call said for this bridge, at once: no packet meets half of the rules.
    """
    chain = chain_of(bridge)
    opened = [f"-p tcp --dport {number}" for number in (port, *host_ports)]
    opened_v4 = [f"-p tcp -d {door[0]} --dport {door[1]}"] if door else []
    asked = [(one, f"-d {one} {dns}") for one in resolvers for dns in _DNS]
    # A neighbour must be found before anything can be sent to it; IPv4 has ARP for that, which is no IP.
    neighbours = [f"-p ipv6-icmp --icmpv6-type {kind}" for kind in (133, 135, 136)]
    rules = {
        "iptables": [*opened, *opened_v4, *(rule for one, rule in asked if ":" not in one)],
        "ip6tables": [*opened, *neighbours, *(rule for one, rule in asked if ":" in one)],
    }
    return _enforce(
        bridge,
        chain,
        "INPUT",
        {
            tool: [
                "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
                *(f"{rule} -j ACCEPT" for rule in let),
                "-j DROP",
            ]
            for tool, let in rules.items()
        },
    )


def withhold_metadata(bridge: str) -> Enforcement:
    """Drop what comes from `bridge` and goes to a metadata service beyond this host; names may be asked for there."""
    rules = {
        tool: [*(f"{dns} -j RETURN" for dns in _DNS), *(f"-d {network} -j DROP" for network in targets)]
        for tool, targets in (("iptables", METADATA), ("ip6tables", METADATA_V6))
    }
    return _enforce(bridge, forward_chain_of(bridge), "DOCKER-USER", rules)


def lift(bridge: str) -> None:
    """Remove our chains of this bridge, where there are some. Never fails: without permission or iptables there are none."""
    lift_host(bridge)
    _lift(bridge, forward_chain_of(bridge), ("DOCKER-USER", "FORWARD"))


def lift_host(bridge: str) -> None:
    """Open the host to what comes from this bridge. Never fails, as `lift`."""
    _lift(bridge, chain_of(bridge), ("INPUT",))


def chain_of(bridge: str) -> str:
    """Return the name of the chain for what a bridge may reach of the host; at most 28 characters, as iptables wants it."""
    return f"AGENTAINER-{bridge}"


def forward_chain_of(bridge: str) -> str:
    """Return the name of the chain for what a bridge may reach beyond the host."""
    return f"AGENTAINERF-{bridge}"


def resolvers(path: Path = _RESOLVERS) -> list[str]:
    """Return the addresses of the name servers that containers ask too: those of the host, but for its own loopback."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for word, *rest in (line.split() for line in lines if line.strip()):
        try:
            address = ipaddress.ip_address(rest[0].partition("%")[0]) if word == "nameserver" and rest else None
        except ValueError:
            continue
        if address is not None and not address.is_loopback:
            found.append(str(address))
    return found


def _door(gateway: str, doors: Mapping[str, int]) -> tuple[str, int] | None:
    return (gateway, doors[gateway]) if gateway in doors else None


def _enforce(bridge: str, chain: str, parent: str, rules: dict[str, list[str]]) -> Enforcement:
    """Set the chain of both protocols, where this machine speaks both."""
    if why := _obstacle(bridge):
        return Enforcement(False, why)
    for tool in _tools():
        if failure := _replace(tool, bridge, chain, parent, rules[tool]):
            return Enforcement(False, failure)
    return Enforcement(True)


def _tools() -> tuple[str, ...]:
    return ("iptables", "ip6tables") if os.path.exists("/proc/net/if_inet6") else ("iptables",)


def _obstacle(bridge: str) -> str:
    """Return why it can't even be tried, or ""."""
    if not _BRIDGE.fullmatch(bridge):
        return f"a network of agents has no Linux bridge ({bridge or 'another driver'})"
    if not may_administer():
        return "agentainerd runs neither as root nor with CAP_NET_ADMIN, so it can't change the firewall"
    for tool in _tools():
        if _program(tool) is None:
            return f"there is no {tool} on this host"
    if not os.path.isdir(f"/sys/class/net/{bridge}"):
        return f"the bridge {bridge} is not on this host: the engine runs elsewhere"
    return ""


def may_administer(status: str = "/proc/self/status") -> bool:
    """Return whether this process has CAP_NET_ADMIN, as root or by its unit."""
    try:
        text = Path(status).read_text()
    except OSError:
        return os.geteuid() == 0
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", text, re.MULTILINE)
    return effective is not None and bool(int(effective[1], 16) >> _CAP_NET_ADMIN & 1)


def _replace(tool: str, bridge: str, chain: str, parent: str, rules: Iterable[str]) -> str:
    """Set the chain's rules and its jump, first in `parent`, in one commit; return why that failed, or ""."""
    if parent != "INPUT" and _run(tool, "-n", "-L", parent):
        parent = "FORWARD"  # an engine without that chain of the user's
    jump = f"{parent} -i {bridge} -j {chain}"
    lines = ["*filter", f":{chain} - [0:0]"]
    if _run(tool, "-C", *jump.split()) == "":
        lines.append(f"-D {jump}")
    lines += [f"-I {jump}", *(f"-A {chain} {rule}" for rule in rules), "COMMIT", ""]
    return _run(f"{tool}-restore", "--noflush", text="\n".join(lines))


def _lift(bridge: str, chain: str, parents: Sequence[str]) -> None:
    if not _BRIDGE.fullmatch(bridge) or not may_administer():
        return
    for tool in _tools():
        if _program(tool) is None:
            continue
        for parent in parents:
            while _run(tool, "-D", parent, "-i", bridge, "-j", chain) == "":
                pass
        _run(tool, "-F", chain)
        _run(tool, "-X", chain)


def _run(tool: str, *arguments: str, text: str | None = None) -> str:
    """Run it; return "" where it went well, else what it said."""
    command = [tool, "-w", _WAIT_S, *arguments]
    environment = {"LC_ALL": "C", "PATH": _path()}
    if lock := os.environ.get(_LOCK_FILE):
        environment[_LOCK_FILE] = lock
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{tool}: {error}"
    if done.returncode == 0:
        return ""
    said = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
    return f"{tool}: {said[0]}"


def _program(tool: str) -> str | None:
    return shutil.which(tool, path=_path())


def _path() -> str:
    return os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
