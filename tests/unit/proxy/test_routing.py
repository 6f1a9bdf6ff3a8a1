"""Routes and gates."""

import gevent

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


def test_the_target_with_the_fewest_in_flight_is_picked():
    web = route()
    assert web.pick() is None
    busy, idle = Target(("127.0.0.1", 1)), Target(("127.0.0.1", 2))
    busy.in_flight = 2
    web.targets = [busy, idle]

    assert web.pick() is idle
    assert web.in_flight == 2
