import socket

import pytest

from agentainerd.engine.firewall import Enforcement
from agentainerd.errors import Unavailable
from agentainerd.gateways import Gateways
from agentainerd.model.containers import Networks
from tests.fakes.daemons import free_port


class TwoNetworks:
    """An engine of which only the networks matter; loopback addresses stand for the bridges'."""

    def __init__(self, gateway: str = "127.0.0.2", isolated: str = "127.0.0.3") -> None:
        self.networks = Networks(gateway, isolated, bridge="agentainer0", isolated_bridge="agentainer1")
        self.is_away = False

    def ensure_networks(self) -> Networks:
        if self.is_away:
            raise Unavailable("cannot reach the engine")
        return self.networks


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def served():
    found = []
    yield found
    for listener in found:
        listener.close()


class Firewall:
    def __init__(self, *answers: Enforcement) -> None:
        self.rules = []
        self._answers = list(answers)

    def protect(self, networks: Networks, port: int, doors: dict[str, int]) -> Enforcement:
        self.doors = doors
        self.rules.append((networks.bridge, networks.isolated_bridge, port))
        return self._answers.pop(0) if self._answers else Enforcement(True)


def gateways_of(engine, served, port, firewall=None, **changes):
    firewall = firewall or Firewall()
    made = Gateways(
        engine, served.append, firewall.protect,
        **{"doors": lambda networks: {}, "port": port, "is_covered": False, "closed_for": "", **changes},
    )  # fmt: skip
    return made, firewall.rules


def test_both_gateways_are_served_once(served, port):
    made, rules = gateways_of(TwoNetworks(), served, port)

    assert made.run_once(0) == 2
    assert made.run_once(1) == 0

    assert [listener.getsockname() for listener in served] == [("127.0.0.2", port), ("127.0.0.3", port)]
    assert made.addresses == ["127.0.0.2", "127.0.0.3"]
    assert rules == [("agentainer0", "agentainer1", port)] * 2
    assert made.enforcement == Enforcement(True)
    assert (made.isolation, made.warnings) == ("enforced", [])


def test_a_new_address_is_served_too(served, port):
    engine = TwoNetworks()
    made, rules = gateways_of(engine, served, port)
    made.run_once(0)

    engine.networks = Networks("127.0.0.4", "127.0.0.3", bridge="br-1", isolated_bridge="br-2")

    assert made.run_once(1) == 1
    assert rules == [("agentainer0", "agentainer1", port), ("br-1", "br-2", port)]


def test_an_address_that_is_not_up_yet_is_tried_again(served, port):
    engine = TwoNetworks(gateway="192.0.2.1")
    made, _ = gateways_of(engine, served, port)

    assert made.run_once(0) == 1

    engine.networks = Networks("127.0.0.2", "127.0.0.3", bridge="a", isolated_bridge="b")
    assert made.run_once(1) == 1


def test_a_taken_address_is_an_error_that_is_told(served, port):
    engine = TwoNetworks()
    with socket.socket() as other:
        other.bind(("127.0.0.2", port))
        other.listen()
        made, _ = gateways_of(engine, served, port)

        with pytest.raises(Unavailable, match="address in use"):
            made.run_once(0)

    assert made.run_once(1) == 2


def test_an_engine_that_is_away_is_the_loops_matter(served, port):
    engine = TwoNetworks()
    engine.is_away = True
    made, _ = gateways_of(engine, served, port)

    with pytest.raises(Unavailable):
        made.run_once(0)

    engine.is_away = False
    assert made.run_once(1) == 2


@pytest.mark.parametrize(
    "changes", [{"is_covered": True, "closed_for": ""}, {"is_covered": False, "closed_for": "why"}]
)
def test_nothing_is_bound_where_it_is_covered_or_closed_but_the_firewall_is_set(served, port, changes, caplog):
    firewall = Firewall()
    made = Gateways(TwoNetworks(), served.append, firewall.protect, doors=lambda networks: {}, port=port, **changes)

    assert made.run_once(0) == 0

    assert served == []
    assert firewall.rules == [("agentainer0", "agentainer1", port)]
    assert ("agents cannot reach the daemon: why" in caplog.text) is bool(changes["closed_for"])


def test_a_firewall_that_cannot_be_set_is_said_once(served, port, caplog):
    no = Enforcement(False, "there is no iptables on this host")
    made, _ = gateways_of(TwoNetworks(), served, port, Firewall(no, no, Enforcement(True), no))

    assert (made.isolation, made.warnings) == ("not yet", [])
    made.run_once(0)
    made.run_once(1)
    assert caplog.text.count("agents can reach services of this host: there is no iptables") == 1
    assert made.enforcement == no
    assert made.isolation == no.why
    assert made.warnings == [f"agents can reach services of this host: {no.why}"]

    made.run_once(2)
    made.run_once(3)
    assert caplog.text.count("agents can reach services") == 2


def test_doors_are_opened_in_the_firewall_at_once_and_by_the_loop(served, port):
    firewall = Firewall()
    doors = {}
    made, _ = gateways_of(TwoNetworks(), served, port, firewall, doors=lambda networks: doors)

    made.run_once(0)
    assert firewall.doors == {}
    doors["127.0.0.3"] = 6379
    made.open_doors()
    assert firewall.doors == {"127.0.0.3": 6379}
    doors.clear()
    made.run_once(1)
    assert firewall.doors == {}
    assert made.addresses == ["127.0.0.2", "127.0.0.3"]


def test_doors_stay_as_they_are_while_nobody_knows_who_wants_them(served, port):
    firewall = Firewall()
    answers = [{"127.0.0.3": 6379}, Unavailable("Redis does not answer"), {}]

    def doors(networks):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    made, _ = gateways_of(TwoNetworks(), served, port, firewall, doors=doors)
    made.run_once(0)
    with pytest.raises(Unavailable):
        made.run_once(1)
    assert firewall.doors == {"127.0.0.3": 6379}

    made.run_once(2)
    assert firewall.doors == {}


def test_a_door_that_cannot_be_opened_leaves_the_host_closed_and_is_told(served, port):
    firewall = Firewall()

    def broken(networks):
        raise Unavailable("the port is taken")

    made, rules = gateways_of(TwoNetworks(), served, port, firewall, doors=broken)

    with pytest.raises(Unavailable, match="the port is taken"):
        made.open_doors()
    with pytest.raises(Unavailable, match="the port is taken"):
        made.run_once(0)

    assert len(rules) == 2
    assert firewall.doors == {}
    assert made.addresses == ["127.0.0.2", "127.0.0.3"]
