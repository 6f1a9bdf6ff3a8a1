"""What agents without egress may reach of the host: the daemon's port, and nothing else.

Docker's internal networks have no route out, but every address of the host is reachable on any port through the bridge
(moby#21990). One chain of ours per bridge, first in INPUT, closes that. Needs root and iptables; where it can't be
done, `Enforcement` says why, and nothing is pretended. docs/decisions/0003-networks.md has the whole picture.
"""

import logging
import os
import re
import shutil
import subprocess
from dataclasses import dataclass

log = logging.getLogger(__name__)

_WAIT_S = "5"  # for the lock that Docker's own iptables calls take too
_TIMEOUT_S = 20.0
_BRIDGE = re.compile(r"[A-Za-z0-9_.-]{1,15}")


@dataclass(frozen=True, slots=True)
class Enforcement:
    """Whether the host is closed to agents without egress; `why` not, or "" where it is."""

    enforced: bool
    why: str = ""


def restrict(bridge: str, port: int) -> Enforcement:
    """Let what comes from `bridge` reach TCP `port` of the host and answers to the host's own connections; drop the rest.

    Replaces what an earlier call said for this bridge, at once: no packet meets half of the rules. Safe to repeat.
    Blocks its greenlet for some ten milliseconds.
    """
    if why := _obstacle(bridge):
        return Enforcement(False, why)
    chain = chain_of(bridge)
    rules = (
        f"-A {chain} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
        f"-A {chain} -p tcp --dport {port} -j ACCEPT",
        f"-A {chain} -j DROP",
    )
    failure = _replace("iptables", bridge, chain, rules)
    if failure:
        return Enforcement(False, failure)
    # The agents' networks are IPv4, but a bridge has a link-local IPv6 address too.
    if shutil.which("ip6tables") and (failure := _replace("ip6tables", bridge, chain, (f"-A {chain} -j DROP",))):
        log.warning("ip6tables rules could not be set: %s", failure, extra={"bridge": bridge})
    return Enforcement(True)


def lift(bridge: str) -> None:
    """Remove our chain of this bridge, where there is one. Never fails: without root or iptables there is none."""
    if not _BRIDGE.fullmatch(bridge):
        return
    chain = chain_of(bridge)
    for tool in ("iptables", "ip6tables"):
        if shutil.which(tool) is None or os.geteuid() != 0:
            continue
        while _run(tool, "-D", "INPUT", "-i", bridge, "-j", chain) == "":
            pass
        _run(tool, "-F", chain)
        _run(tool, "-X", chain)


def chain_of(bridge: str) -> str:
    """Return the name of the chain for a bridge; at most 28 characters, as iptables wants it."""
    return f"AGENTAINER-{bridge}"


def _obstacle(bridge: str) -> str:
    """Return why it can't even be tried, or ""."""
    if not _BRIDGE.fullmatch(bridge):
        return f"the isolated network has no Linux bridge ({bridge or 'another driver'})"
    if os.geteuid() != 0:
        return "agentainerd does not run as root, so it can't change the firewall"
    if shutil.which("iptables") is None:
        return "there is no iptables on this host"
    if not os.path.isdir(f"/sys/class/net/{bridge}"):
        return f"the bridge {bridge} is not on this host: the engine runs elsewhere"
    return ""


def _replace(tool: str, bridge: str, chain: str, rules: tuple[str, ...]) -> str:
    """Set the chain's rules and its jump, first in INPUT, in one commit; return why that failed, or ""."""
    jump = f"INPUT -i {bridge} -j {chain}"
    lines = ["*filter", f":{chain} - [0:0]"]
    if _run(tool, "-C", *jump.split()) == "":
        lines.append(f"-D {jump}")
    lines += [f"-I {jump}", *rules, "COMMIT", ""]
    return _run(f"{tool}-restore", "--noflush", text="\n".join(lines))


def _run(tool: str, *arguments: str, text: str | None = None) -> str:
    """Run it; return "" where it went well, else what it said."""
    command = [tool, "-w", _WAIT_S, *arguments]
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=_environment()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{tool}: {error}"
    if done.returncode == 0:
        return ""
    said = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
    return f"{tool}: {said[0]}"


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "LC_ALL": "C"}
