import pytest

from agentainerd.engine.networks import bridge_of, gateway_of


@pytest.mark.parametrize(
    ("pools", "gateway"),
    [
        ([{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}], "172.18.0.1"),
        (
            [{"Subnet": "fd00::/64", "Gateway": "fd00::1"}, {"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.254/24"}],
            "10.9.0.254",
        ),
        ([{"Subnet": "10.9.0.0/24"}], "10.9.0.1"),
        ([{"Subnet": "fd00::/64"}], ""),
        ([], ""),
        (None, ""),
    ],
)
def test_the_gateway_is_the_hosts_ipv4_address(pools, gateway):
    assert gateway_of({"IPAM": {"Config": pools}}) == gateway


def test_a_bridge_has_the_name_that_it_was_given_or_one_of_its_network():
    plain = {"Id": "0123456789abcdef", "Driver": "bridge", "Options": {}}

    assert bridge_of(plain) == "br-0123456789ab"
    assert bridge_of({**plain, "Options": {"com.docker.network.bridge.name": "agentainer1"}}) == "agentainer1"
    assert bridge_of({**plain, "Driver": "overlay"}) == ""
