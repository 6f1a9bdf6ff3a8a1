"""How each row of the table in docs/requests.md is counted: every request once, by how it ended."""

import socket

import pytest

from agentainerd.proxy.routing import Route
from agentainerd.proxy.target import Target
from tests.fakes.agents import RawAgent, answer

COUNTED = ("queued", "repeated", "refused", "unavailable", "unknown", "interrupted", "left", "upgraded")


def counted(plane):
    """What was counted, without zeros; answers by the first digit of their status."""
    tally = plane.route.tally
    found = {name: getattr(tally, name) for name in COUNTED}
    found |= {f"{digit}xx": number for digit, number in enumerate(tally.statuses)}
    found = {name: number for name, number in found.items() if number}
    assert sum(found.values()) == tally.requests
    return found


def test_answers_are_counted_by_status_with_their_time(make_plane):
    statuses = iter((b"200 OK", b"201 Created", b"404 Not Found", b"500 Oops"))
    plane = make_plane(agent=RawAgent(lambda c, r: c.sendall(answer(status=next(statuses)))))

    for _ in range(4):
        plane.ask()

    assert counted(plane) == {"2xx": 2, "4xx": 1, "5xx": 1}
    assert plane.route.tally.latency.count == 4
    assert 0 < plane.route.tally.latency.seconds < 4
    assert plane.route.tally.errors == 1


def test_without_persistence_they_are_counted_too(plane):
    plane.route.persistence = False

    plane.ask()

    assert counted(plane) == {"2xx": 1}


def test_a_queued_one(plane):
    plane.route.close()

    assert plane.ask("POST", body=b"x").status == 202

    assert counted(plane) == {"queued": 1}
    assert plane.route.tally.latency.count == 0


def test_one_that_could_not_be_queued(plane):
    plane.route.close()
    plane.journal.available = False

    assert plane.ask().status == 503

    assert counted(plane) == {"unavailable": 1}


def test_one_without_the_agents_token(plane):
    plane.route.token_digest = b"x" * 32

    assert plane.ask().status == 401

    assert counted(plane) == {"refused": 1}


def test_one_too_many(make_plane):
    plane = make_plane(max_in_flight=0)

    assert plane.ask().status == 503

    assert counted(plane) == {"unavailable": 1}


def test_an_unsafe_one_that_the_agent_did_not_answer(make_plane):
    plane = make_plane(agent=RawAgent(lambda connection, _: connection.shutdown(socket.SHUT_RDWR)))

    assert plane.ask("POST", body=b"x").status == 502

    assert counted(plane) == {"unknown": 1}
    assert plane.route.tally.errors == 1


def test_an_answer_that_is_none(make_plane):
    plane = make_plane(agent=RawAgent(lambda connection, _: connection.sendall(b"garbage\r\n\r\n")))

    assert plane.ask().status == 502

    assert counted(plane) == {"unknown": 1}


def test_an_answer_that_breaks_off(make_plane, eventually):
    def break_off(connection, _request):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        connection.close()

    plane = make_plane(agent=RawAgent(break_off))
    with plane.connect() as connection, pytest.raises(ConnectionResetError):
        connection.sendall(b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\n\r\n")
        while connection.recv(1000):
            pass

    eventually(lambda: counted(plane) == {"interrupted": 1})


def test_a_client_that_leaves(make_plane, eventually):
    plane = make_plane(agent=RawAgent(lambda connection, _: None))
    with plane.connect() as connection:
        connection.sendall(b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: plane.agent.requests)

    eventually(lambda: counted(plane) == {"left": 1})
    assert plane.route.tally.errors == 0


def test_a_client_that_leaves_while_it_is_held(plane, eventually):
    plane.route.hold()
    plane.route.hold_timeout_s = 0.05
    with plane.connect() as connection:
        connection.sendall(b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\n\r\n")

    eventually(lambda: plane.route.tally.requests == 1)
    assert counted(plane) in ({"left": 1}, {"queued": 1})


def test_a_repeated_answer(plane):
    for _ in range(2):
        plane.ask("POST", fields={"Idempotency-Key": "k"}, body=b"x")

    assert counted(plane) == {"2xx": 1, "repeated": 1}


def test_a_tunnel_and_an_upgrade_that_was_answered(make_plane, eventually):
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    said = iter((switch, answer(status=b"400 No")))

    def script(connection, _request):
        connection.sendall(next(said))
        connection.shutdown(socket.SHUT_WR)

    plane = make_plane(agent=RawAgent(script))
    for _ in range(2):
        plane.send(b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")

    eventually(lambda: counted(plane) == {"upgraded": 1, "4xx": 1})


def test_an_upgrade_while_the_agent_is_away(plane):
    plane.route.close()

    plane.send(
        b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nGET / HTTP/1.0\r\n\r\n"
    )

    assert counted(plane) == {"unavailable": 1}


def test_replicas_count_for_their_agent_and_a_new_route_counts_on(plane):
    part = Route(plane.route.agent_id, "web-1", number=1, whole=plane.route)
    part.targets = [Target(plane.agent.address)]
    part.open()
    plane.route.parts[1] = part
    plane.routes.publish_part(part)
    plane.ask(path="/agent/web-1/")

    again = Route(plane.route.agent_id, "web")
    again.targets = [Target(plane.agent.address)]
    again.open()
    plane.routes.publish(again)
    plane.ask()

    assert again.tally is plane.route.tally
    assert counted(plane) == {"2xx": 2}
