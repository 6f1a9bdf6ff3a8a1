import subprocess
import sys

import pytest

from agentainerd.engine import firewall
from agentainerd.model.containers import Networks


@pytest.mark.parametrize("bridge", ["", "a b", "x; reboot", "-j x", "averyveryverylongname"])
def test_a_name_that_can_be_no_bridge_is_not_enforced(bridge):
    assert not firewall.restrict(bridge, 8081).enforced
    assert not firewall.withhold_metadata(bridge).enforced
    firewall.lift(bridge)


def test_a_bridge_of_another_host_is_not_enforced():
    enforcement = firewall.restrict("nosuchbridge", 8081)

    assert not enforcement.enforced
    assert "nosuchbridge is not on this host" in enforcement.why or "CAP_NET_ADMIN" in enforcement.why


def test_networks_are_protected_both_or_the_reason_is_told():
    enforcement = firewall.protect(Networks("", "", bridge="nosuchbridge", isolated_bridge="nosuch2"), 8081)

    assert not enforcement.enforced
    assert enforcement.why


@pytest.mark.parametrize("bridge", ["agentainer1", "br-0123456789ab", "x" * 15])
def test_a_chains_name_is_short_enough_for_iptables(bridge):
    assert len(firewall.chain_of(bridge)) <= 28
    assert len(firewall.forward_chain_of(bridge)) <= 28
    assert firewall.chain_of(bridge) != firewall.forward_chain_of(bridge)


@pytest.mark.parametrize(
    ("effective", "may"),
    [
        ("0000000000000000", False),
        ("0000000000001000", True),
        ("000001ffffffffff", True),
        ("000001ffffffefff", False),
    ],
)
def test_what_counts_is_the_capability_and_not_the_user(tmp_path, effective, may):
    status = tmp_path / "status"
    status.write_text(f"Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t{effective}\nCapBnd:\t000001ffffffffff\n")

    assert firewall.may_administer(str(status)) is may


def test_without_the_capability_nothing_is_tried_and_the_reason_is_told():
    program = (
        "import os, sys\nfrom agentainerd.engine import firewall\n"
        "os.geteuid() or os.setuid(65534)\nprint(firewall.restrict('lo', 8081).why)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert "neither as root nor with CAP_NET_ADMIN" in done.stdout


def test_the_resolvers_are_those_that_containers_ask_too(tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_text(
        "# nameserver 9.9.9.9\nsearch example.com\nnameserver 192.0.2.53\nnameserver 127.0.0.53\n"
        "nameserver ::1\nnameserver fe80::1%eth0\nnameserver\nnameserver nonsense\n; nameserver 8.8.8.8\n\n"
    )

    assert firewall.resolvers(path) == ["192.0.2.53", "fe80::1"]
    assert firewall.resolvers(tmp_path / "none") == []
