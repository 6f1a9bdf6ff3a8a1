"""Routes and gates."""

import gevent
import pytest

from agentainerd.proxy.routing import Gate, Route, RouteTable
from agentainerd.proxy.target import Target


def route():
    return Route("agent-0123456789abcdef", "web")


def test_a_route_is_found_by_id_and_by_name_until_it_is_withdrawn():
    table, web = RouteTable(), route()
    table.publish(web)

    assert table.find(b"web") is web
    assert table.find(b"agent-0123456789abcdef") is web
    assert table.find(b"WEB") is None
    assert table.routes() == [web]
    table.withdraw(web)
    assert table.find(b"web") is None
    assert table.routes() == []


def test_a_gate_that_is_held_lets_go_when_it_opens_and_when_it_closes():
    for change, gate in ((Route.open, Gate.OPEN), (Route.close, Gate.CLOSED)):
        web = route()
        web.hold()
        waiting = gevent.spawn(web.wait_open, 5)
        gevent.sleep(0)
        change(web)
        assert waiting.get(timeout=1) is gate


def test_a_gate_is_waited_for_no_longer_than_said():
    web = route()
    web.hold()

    assert web.wait_open(0.01) is Gate.HOLDING


def test_a_closed_gate_is_waited_for_only_if_asked():
    web = route()

    assert web.wait_open(5) is Gate.CLOSED
    waiting = gevent.spawn(web.wait_open, 5, even_closed=True)
    gevent.sleep(0)
    web.hold()
    gevent.sleep(0)
    web.open()
    assert waiting.get(timeout=1) is Gate.OPEN


@pytest.fixture
def three():
    route = Route("agent-1", "web")
    route.targets = [Target(("127.0.0.1", number), number=number) for number in (1, 2, 3)]
    route.open()
    return route


def test_the_target_with_the_fewest_in_flight_is_picked(three):
    three.targets[0].in_flight = three.targets[2].in_flight = 2
    three.targets[1].in_flight = 1

    assert {three.pick() for _ in range(5)} == {three.targets[1]}
    assert three.pick_but([three.targets[1]]) in (three.targets[0], three.targets[2])


def test_targets_with_equally_many_take_turns(three):
    assert [three.pick().number for _ in range(6)] == [1, 2, 3, 1, 2, 3]


def test_no_target_is_picked_twice_for_one_request(three):
    tried = []
    while (target := three.pick_but(tried)) is not None:
        tried.append(target)

    assert sorted(target.number for target in tried) == [1, 2, 3]


def test_a_route_is_open_while_one_of_its_targets_serves(three):
    one, two, other = three.targets

    three.dismiss(one)
    three.dismiss(two)
    assert (three.gate, three.serving) == (Gate.OPEN, [other])
    three.dismiss(other)
    assert (three.gate, three.pick()) == (Gate.HOLDING, None)
    three.admit(two)

    assert (three.gate, three.pick()) == (Gate.OPEN, two)


def test_a_closed_route_serves_nobody_until_somebody_is_admitted(three):
    three.close()
    assert three.serving == []

    three.remove(three.targets[0])
    three.admit(Target(("127.0.0.1", 9)))  # none of its own

    assert (three.gate, three.serving, len(three.targets)) == (Gate.CLOSED, [], 2)


def test_one_replica_has_a_route_of_its_own():
    table = RouteTable()
    whole = Route("agent-1", "web")
    whole.parts = {number: Route("agent-1", f"web-{number}", number=number, whole=whole) for number in (1, 2)}
    table.publish(whole)
    whole.targets = [Target(("127.0.0.1", number), number=number) for number in (1, 2)]

    whole.admit(whole.targets[1])
    part = table.find(b"web-2")

    assert part is table.find(b"agent-1-2")
    assert (part.gate, part.pick(), part.whole) == (Gate.OPEN, whole.targets[1], whole)
    assert table.find(b"web-1").gate is Gate.CLOSED
    assert table.routes() == [whole]
    whole.dismiss(whole.targets[1])
    assert part.gate is Gate.HOLDING
    table.withdraw(whole)
    assert table.find(b"web-2") is None and part.gate is Gate.CLOSED
