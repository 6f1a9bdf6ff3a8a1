"""Addresses of proxies that are trusted."""

import pytest

from agentainerd.proxy.peers import MAX_KNOWN, Peers

TRUSTED = Peers(["10.0.0.0/8", "192.0.2.7/32", "127.0.0.1", "2001:db8::/32", "::1"])


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "10.255.255.255", "192.0.2.7", "127.0.0.1", "2001:db8::5", "::1", "::ffff:10.1.2.3"]
)
def test_addresses_in_a_trusted_network_are_trusted(address):
    assert address in TRUSTED
    assert address in TRUSTED  # as remembered


@pytest.mark.parametrize(
    "address", ["11.0.0.1", "192.0.2.8", "127.0.0.2", "2001:db9::1", "::2", "", "proxy", "::ffff:11.0.0.1"]
)
def test_others_are_not(address):
    assert address not in TRUSTED


def test_nobody_is_trusted_unless_said():
    assert "127.0.0.1" not in Peers()
    assert None not in Peers(["0.0.0.0/0"])


def test_what_is_remembered_is_bounded():
    peers = Peers(["10.0.0.0/8"])
    for number in range(MAX_KNOWN + 5):
        assert f"10.0.{number // 250}.{number % 250}" in peers

    assert len(peers._known) <= MAX_KNOWN
