import pytest

from agentainerd.engine import firewall


@pytest.mark.parametrize("bridge", ["", "a b", "x; reboot", "-j x", "averyveryverylongname"])
def test_a_name_that_can_be_no_bridge_is_not_enforced(bridge):
    assert not firewall.restrict(bridge, 8081).enforced
    firewall.lift(bridge)


def test_a_bridge_of_another_host_is_not_enforced():
    enforcement = firewall.restrict("nosuchbridge", 8081)

    assert not enforcement.enforced
    assert "nosuchbridge is not on this host" in enforcement.why or "root" in enforcement.why


@pytest.mark.parametrize("bridge", ["agentainer1", "br-0123456789ab"])
def test_a_chains_name_is_short_enough_for_iptables(bridge):
    assert len(firewall.chain_of(bridge)) <= 28
