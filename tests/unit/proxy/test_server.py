"""Framing and limits at the front: what is refused never reaches an agent, and the connection closes behind it."""

import contextlib
import os
import resource
import socket
import threading

import gevent
import pytest

from agentainerd import defaults
from agentainerd.proxy import watch
from agentainerd.proxy.origins import Names, Origins
from tests.fakes.agents import RawAgent, answer, receive_all
from tests.fakes.planes import Answered

MALFORMED = {
    "no host": b"GET /agent/web/ HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "host with a path": b"GET /agent/web/ HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "two lengths": b"POST /agent/web/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "equal lengths": b"POST /agent/web/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "listed length": b"POST /agent/web/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na",
    "signed length": b"POST /agent/web/ HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
    "both framings": b"POST /agent/web/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "gzip, chunked": b"POST /agent/web/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"POST /agent/web/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"POST /agent/web/ HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "identity": b"POST /agent/web/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
    "obs-fold": b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    "space before colon": b"GET /agent/web/ HTTP/1.1\r\nHost : a\r\n\r\n",
    "bare LF": b"GET /agent/web/ HTTP/1.1\nHost: a\n\n",
    "bare CR": b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    "NUL": b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "two spaces": b"GET  /agent/web/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "space at the end": b"GET /agent/web/  HTTP/1.1\r\nHost: a\r\n\r\n",
    "no version": b"GET /agent/web/\r\n\r\n",
    "HTTP/2.0": b"GET /agent/web/ HTTP/2.0\r\nHost: a\r\n\r\n",
    "RTSP": b"GET /agent/web/ RTSP/1.0\r\nHost: a\r\n\r\n",
    "lower-case method": b"get /agent/web/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "made-up method": b"FROB /agent/web/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "fragment": b"GET /agent/web/#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "other host in the target": b"GET http://b/agent/web/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "relative target": b"GET agent/web/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk": b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "control in target": b"GET /agent/web/\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "two authorizations": b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "bad chunk size": b"POST /agent/web/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_refused_and_reaches_nobody(plane, name):
    got = Answered(plane.send(MALFORMED[name] + b"GET /agent/web/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"))

    assert got.status == 400, got.raw
    assert got.fields["connection"] == "close"
    assert got.json["code"] == "MALFORMED_REQUEST"
    assert not [
        request for request in plane.agent.requests if b"smuggled" in request or b"Content-Length: 1" in request
    ]
    assert not plane.journal.pending


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
        (b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 17000 + b"\r\n\r\n", 431),
        (b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\n" + b"X: %b\r\n" % (b"y" * 9000) * 20, 431),
        (b"GET /agent/web/" + b"a" * 17000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /" + b"a" * 100_000, 414),
        (b"POST /agent/web/ HTTP/1.1\r\nHost: a\r\nExpect: 200-maybe\r\nContent-Length: 1\r\n\r\n", 417),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 405),
    ],
)
def test_limits_have_their_own_status(plane, data, status):
    got = Answered(plane.send(data))

    assert got.status == status
    assert not plane.agent.requests


def test_every_split_of_a_request_is_the_same_request(plane):
    data = b"POST /agent/web/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    for at in range(1, len(data)):
        with plane.connect() as connection:
            connection.sendall(data[:at])
            gevent.sleep(0)
            connection.sendall(data[at:])
            assert b"200 OK" in receive_all(connection), at

    assert len({request.partition(b"\r\n")[0] for request in plane.agent.requests}) == 1


def test_pipelined_requests_are_answered_in_order(make_plane):
    plane = make_plane(agent=RawAgent(lambda c, r: c.sendall(answer(r.split(b" ")[1]))))
    one = b"GET /agent/web/%d HTTP/1.1\r\nHost: a\r\n\r\n"

    raw = plane.send(
        b"".join(one % n for n in range(20)) + b"GET /agent/web/last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    )

    bodies = [part.partition(b"\r\n\r\n")[2] for part in raw.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert bodies == [b"/%d" % n for n in range(20)] + [b"/last"]


def test_a_good_request_before_a_bad_one_is_answered(plane):
    raw = plane.send(b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\n\r\n" + MALFORMED["two lengths"])

    assert raw.startswith(b"HTTP/1.1 200 OK")
    assert b"HTTP/1.1 400 Bad Request" in raw


def test_an_old_client_gets_its_connection_closed_unless_it_asks(plane):
    assert b"Connection: keep-alive" in plane.send(
        b"GET /agent/web/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /agent/web/ HTTP/1.0\r\n\r\n"
    )
    assert plane.send(b"GET /agent/web/ HTTP/1.0\r\n\r\n").endswith(b"ok")
    assert len(plane.agent.requests) == 3


def test_an_absolute_target_is_the_path_behind_it(plane):
    plane.send(b"GET http://a/agent/web/x?y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

    assert plane.agent.requests[0].startswith(b"GET /x?y HTTP/1.1\r\n")


def test_a_slow_head_is_408(make_plane, monkeypatch):
    monkeypatch.setattr(watch, "SWEEP_S", 0.02)
    monkeypatch.setattr(defaults, "HEAD_TIMEOUT_S", 0.1)
    plane = make_plane()
    with plane.connect() as connection:
        connection.sendall(b"GET /agent/web/ HTTP/1.1\r\nHost:")
        assert Answered(receive_all(connection)).status == 408


def test_a_slow_body_is_408(make_plane, monkeypatch):
    monkeypatch.setattr(watch, "SWEEP_S", 0.02)
    monkeypatch.setattr(defaults, "BODY_IDLE_TIMEOUT_S", 0.1)
    plane = make_plane()
    plane.route.close()
    with plane.connect() as connection:
        connection.sendall(b"POST /agent/web/ HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        assert Answered(receive_all(connection)).status == 408
    assert not plane.journal.pending


def test_a_body_that_trickles_is_408_though_it_never_stops(make_plane, monkeypatch):
    monkeypatch.setattr(watch, "SWEEP_S", 0.02)
    monkeypatch.setattr(defaults, "BODY_GRACE_S", 0.3)
    monkeypatch.setattr(defaults, "MIN_BODY_RATE", 1000)
    plane = make_plane()
    for length in (100, 1_000_000):  # one that is waited for whole, and one that is passed on as it comes
        with plane.connect() as connection:
            connection.sendall(b"POST /agent/web/ HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length)
            trickle = gevent.spawn(drip, connection)
            assert Answered(receive_all(connection)).status == 408
            trickle.kill()


def drip(connection):
    """A byte every 50 ms, for as long as somebody takes them."""
    try:
        while True:
            connection.sendall(b"x")
            gevent.sleep(0.05)
    except OSError:
        pass


def test_a_body_at_a_fair_rate_may_take_longer_than_the_grace(make_plane, monkeypatch):
    monkeypatch.setattr(watch, "SWEEP_S", 0.02)
    monkeypatch.setattr(defaults, "BODY_GRACE_S", 0.1)
    monkeypatch.setattr(defaults, "MIN_BODY_RATE", 1000)
    plane = make_plane()
    with plane.connect() as connection:
        connection.sendall(
            b"POST /agent/web/ HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\nConnection: close\r\n\r\n"
        )
        for _ in range(10):
            connection.sendall(b"x" * 5000)
            gevent.sleep(0.03)
        assert Answered(receive_all(connection)).status == 200


def test_an_idle_connection_is_closed(make_plane, monkeypatch):
    monkeypatch.setattr(watch, "SWEEP_S", 0.02)
    monkeypatch.setattr(defaults, "KEEPALIVE_TIMEOUT_S", 0.1)
    plane = make_plane()
    with plane.connect() as connection:
        assert receive_all(connection) == b""


def test_a_client_that_does_not_read_is_let_go(make_plane, monkeypatch, eventually):
    monkeypatch.setattr(watch, "SWEEP_S", 0.02)
    monkeypatch.setattr(defaults, "WRITE_STALL_TIMEOUT_S", 0.2)
    plane = make_plane(agent=RawAgent(lambda c, r: c.sendall(answer(b"x" * 50_000_000))))
    with plane.connect() as connection:
        connection.sendall(b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: plane.journal.settled)

    assert next(iter(plane.journal.settled.values()))[1].reason == "interrupted"
    eventually(lambda: plane.route.in_flight == 0)


def test_draining_finishes_what_runs_and_takes_nothing_more(make_plane, eventually):
    go_on = gevent.event.Event()
    plane = make_plane(agent=RawAgent(lambda c, r: (go_on.wait(5), c.sendall(answer()))))
    idle = plane.connect()
    running = gevent.spawn(plane.ask)
    eventually(lambda: plane.agent.requests)

    plane.data_plane.stop_accepting()
    assert receive_all(idle) == b""
    idle.close()
    drained = gevent.spawn(plane.data_plane.drain, 5)
    go_on.set()

    assert running.get(timeout=5).status == 200
    assert drained.get(timeout=5) == 0
    with pytest.raises(OSError, match="refused"):
        plane.connect()


def test_draining_has_an_end(make_plane, eventually):
    plane = make_plane(agent=RawAgent(lambda c, r: None))
    running = gevent.spawn(plane.ask)
    eventually(lambda: plane.agent.requests)

    plane.data_plane.stop_accepting()

    assert plane.data_plane.drain(0.1) == 1
    assert running.get(timeout=5).raw == b""
    assert plane.journal.settled


def test_many_connections_are_served_side_by_side(plane):
    got = []
    threads = [threading.Thread(target=lambda: got.append(plane.ask().status)) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert got == [200] * 100


def address_of_this_host() -> str:
    """An address of this machine that is not loopback, as a client of another machine has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        return probe.getsockname()[0]


def test_one_address_can_not_take_all_connections(make_plane, eventually):
    host = address_of_this_host()
    plane = make_plane(host=host, max_connections_per_source=3)
    open_ = [plane.connect() for _ in range(3)]
    eventually(lambda: plane.data_plane.connections == 3)

    with plane.connect() as fourth:
        refused = Answered(receive_all(fourth))
    assert (refused.status, refused.json["code"]) == (429, "TOO_MANY_CONNECTIONS")

    open_.pop().close()
    eventually(lambda: plane.data_plane.connections == 2)
    assert plane.ask().status == 200
    for connection in open_:
        connection.close()


@pytest.mark.parametrize("trusted", [True, False])
def test_addresses_that_stand_for_many_have_no_such_limit(make_plane, trusted):
    host = address_of_this_host() if trusted else "127.0.0.1"
    plane = make_plane(host=host, max_connections_per_source=1, trusted_proxies=(host,) if trusted else ())
    connections = [plane.connect() for _ in range(5)]

    assert plane.ask().status == 200
    for connection in connections:
        connection.close()


def test_connections_beyond_the_bound_wait_until_one_ends(make_plane, eventually):
    plane = make_plane(max_connections=2)
    first, second = plane.connect(), plane.connect()
    eventually(lambda: plane.data_plane.connections == 2)
    waiting = gevent.spawn(plane.ask)
    gevent.sleep(0.05)
    assert plane.data_plane.connections == 2

    first.close()

    assert waiting.get(timeout=5).status == 200
    second.close()


def test_an_agent_has_only_so_many_requests_at_once(make_plane, eventually):
    go_on = gevent.event.Event()
    plane = make_plane(agent=RawAgent(lambda c, r: (go_on.wait(5), c.sendall(answer()))), max_in_flight=2)
    running = [gevent.spawn(plane.ask) for _ in range(2)]
    eventually(lambda: len(plane.agent.requests) == 2)

    refused = plane.ask()
    go_on.set()

    assert (refused.status, refused.json["code"], refused.fields["retry-after"]) == (503, "AGENT_BUSY", "1")
    assert refused.fields["proxy-status"] == "agentainer; error=connection_limit_reached"
    assert [each.get(timeout=5).status for each in running] == [200, 200]
    assert plane.ask().status == 200


@contextlib.contextmanager
def no_more_descriptors():
    """This process has as many open files as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    filler = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (filler[0] + 50, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                filler.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in filler:
            os.close(descriptor)


def test_without_a_file_descriptor_clients_wait_and_others_are_served(make_plane, eventually, caplog):
    plane = make_plane()
    kept = plane.connect()
    eventually(lambda: plane.data_plane.connections == 1)
    late = socket.socket()
    with no_more_descriptors():
        late.connect(plane.address)
        eventually(lambda: "no connection can be accepted now" in caplog.text)
        kept.sendall(b"GET /agent/nobody/ HTTP/1.1\r\nHost: a\r\n\r\n")
        assert kept.recv(65536).startswith(b"HTTP/1.1 404")

    late.sendall(b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert Answered(receive_all(late)).status == 200
    late.close()
    kept.close()


def test_strangers_are_told_by_host_and_origin(make_plane):
    plane = make_plane(judge=Origins(Names(hosts=("agents.example.com",))).judge)

    def code(**fields):
        raw = plane.send(
            "\r\n".join(
                ["GET /agent/web/ HTTP/1.1", "Connection: close", *(f"{k}: {v}" for k, v in fields.items()), "", ""]
            ).encode()
        )
        got = Answered(raw)
        return got.status if got.status == 200 else (got.status, got.json["code"])

    assert code(Host="localhost:8081") == 200
    assert code(Host="agents.example.com", Origin="https://agents.example.com") == 200
    assert code(Host="rebound.example.org") == (403, "HOST_NOT_ALLOWED")
    assert code(Host="127.0.0.1:8081", Origin="https://evil.example") == (403, "ORIGIN_NOT_ALLOWED")
    assert len(plane.agent.requests) == 2
