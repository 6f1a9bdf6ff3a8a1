"""The table of docs/requests.md: what happens to an agent, what its client gets, and what the record says."""

import base64
import gc
import hashlib
import socket
import threading

import gevent
import pytest

from agentainerd import defaults
from agentainerd.model.requests import Reason, ReplayPolicy, RequestState
from agentainerd.proxy import watch
from agentainerd.proxy.routing import AgentPass
from agentainerd.proxy.target import Target
from tests.fakes.agents import RawAgent, answer, body_of, receive_all
from tests.fakes.planes import Answered


def only(mapping):
    assert len(mapping) == 1, mapping
    return next(iter(mapping.values()))


def silent(connection, _request):
    connection.shutdown(socket.SHUT_RDWR)


# ---- an agent that answers


def test_an_answer_passes_with_its_status_fields_and_body(make_plane):
    agent = RawAgent(lambda c, r: c.sendall(answer(b"made", status=b"201 Made It", fields=b"X-One: 1\r\nX-One: 2\r\n")))
    plane = make_plane(agent=agent)

    got = plane.ask("POST", "/agent/web/things?x=1&x=&y=%2F", body=b"{}")

    assert got.raw.startswith(b"HTTP/1.1 201 Made It\r\n")
    assert got.raw.count(b"X-One:") == 2
    assert got.body == b"made"
    assert got.fields["x-agentainer-request-id"] in plane.journal.settled
    record, outcome = only(plane.journal.settled)
    assert (outcome.state, outcome.reason, outcome.status) == (RequestState.COMPLETED, Reason.ANSWERED, 201)
    assert (record.body, record.body_bytes, record.target) == (b"{}", 2, b"/agent/web/things?x=1&x=&y=%2F")
    assert not plane.journal.live


@pytest.mark.parametrize("path", ["/", "/a//b", "/%2e%2e/x", "/a%2Fb?q=%00&&=", "/?", "/;p=1", "/a/../b"])
def test_the_path_reaches_the_agent_byte_for_byte(plane, path):
    plane.ask(path="/agent/web" + path)

    assert plane.agent.requests[0].split(b" ")[1] == path.encode()


def test_an_agent_is_found_by_id_by_name_without_slash_and_by_host(plane):
    for target, host in (
        (f"/agent/{plane.route.agent_id}/x", "localhost"),
        ("/agent/web/x", "localhost"),
        ("/x", "web.localhost:8081"),
        ("/x", "WEB.localhost"),
    ):
        plane.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    plane.ask(path="/agent/web?q=1")

    assert [request.split(b" ")[1] for request in plane.agent.requests] == [b"/x"] * 4 + [b"/?q=1"]


def test_the_agent_gets_our_fields_and_nobody_elses(plane):
    spoofed = {
        "X-Agentainer-Replay": "true",
        "x_agentainer_attempt": "9",
        "X.Agentainer.Received-At": "never",
        "X-Forwarded-For": "6.6.6.6",
        "X_Forwarded_Host": "evil",
        "Forwarded": "for=6.6.6.6",
        "Transfer_Encoding": "chunked",
        "Proxy-Authorization": "Basic x",
        "X-Mine": "kept",
    }
    got = plane.ask(fields=spoofed)

    seen = plane.agent.requests[0]
    assert b"X-Mine: kept\r\n" in seen
    assert b"X-Forwarded-For: 127.0.0.1\r\n" in seen
    assert b"X-Forwarded-Proto: http\r\n" in seen
    assert b"X-Forwarded-Host: localhost\r\n" in seen
    assert b"X-Forwarded-Prefix: /agent/web\r\n" in seen
    assert b"Via: 1.1 agentainer\r\n" in seen
    assert f"X-Agentainer-Request-ID: {got.fields['x-agentainer-request-id']}\r\n".encode() in seen
    assert b"traceparent: 00-" in seen
    for word in (b"6.6.6.6", b"evil", b"never", b"Basic", b"attempt", b"Transfer", b"Replay"):
        assert word not in seen


def test_fields_named_in_connection_stay_here_but_not_ours(plane):
    plane.ask(
        fields={"Connection": "close, X-Secret, X-Forwarded-For, Host", "X-Secret": "s", "traceparent": "00-a-b-01"}
    )

    seen = plane.agent.requests[0]
    assert b"X-Secret" not in seen
    assert b"X-Forwarded-For: 127.0.0.1" in seen
    assert b"Host: localhost" in seen
    assert b"traceparent: 00-a-b-01\r\n" in seen


def test_a_trusted_proxys_chain_is_continued(make_plane):
    plane = make_plane(trusted_proxies=frozenset(["127.0.0.1"]))

    plane.ask(fields={"X-Forwarded-For": "9.9.9.9", "X-Forwarded-Proto": "https"})

    assert b"X-Forwarded-For: 9.9.9.9, 127.0.0.1\r\n" in plane.agent.requests[0]
    assert b"X-Forwarded-Proto: https\r\n" in plane.agent.requests[0]


def test_a_connection_to_the_agent_is_used_again(plane):
    with plane.connect() as connection:
        for _ in range(5):
            connection.sendall(b"GET /agent/web/ HTTP/1.1\r\nHost: h\r\n\r\n")
            assert connection.recv(65536).endswith(b"ok")

    assert plane.agent.connections == 1
    assert len(plane.agent.requests) == 5


def test_a_large_upload_passes_through_and_is_kept_in_a_file(plane):
    body = b"x" * 3_000_000

    got = plane.ask("PUT", "/agent/web/big", body=body)

    assert got.status == 200
    assert body_of(plane.agent.requests[0]) == body
    spool = only(plane.journal.spools)
    assert spool.data == body
    assert spool.discarded


def test_a_chunked_upload_reaches_the_agent_with_the_same_bytes(plane):
    pieces = [b"abc", b"d" * 70000, b"e"]
    chunks = (
        b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        + b"0\r\nX-Agentainer-Replay: t\r\n\r\n"
    )
    head = b"POST /agent/web/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"

    got = Answered(plane.send(head + chunks))

    assert got.status == 200
    assert body_of(plane.agent.requests[0]) == b"".join(pieces)
    assert b"X-Agentainer-Replay" not in plane.agent.requests[0]


def test_a_client_that_waits_for_100_continue_gets_it(plane):
    with plane.connect() as connection:
        connection.sendall(
            b"POST /agent/web/ HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
        )
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        assert b"200 OK" in receive_all(connection)

    assert b"Expect" not in plane.agent.requests[0]


def test_an_event_stream_passes_piece_by_piece(make_plane):
    go_on = gevent.event.Event()

    def stream(connection, _request):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"9\r\ndata: 1\n\n\r\n")
        go_on.wait(5)
        connection.sendall(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    plane = make_plane(agent=RawAgent(stream))
    with plane.connect() as connection:
        connection.sendall(
            b"GET /agent/web/ HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n"
        )
        first = connection.recv(65536)
        assert first.endswith(b"data: 1\n\n\r\n")
        go_on.set()
        assert receive_all(connection).endswith(b"data: 2\n\n\r\n0\r\n\r\n")


def test_interim_answers_pass(make_plane):
    agent = RawAgent(lambda c, r: c.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer()))
    got = make_plane(agent=agent).ask()

    assert got.raw.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("method", "reply"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n"),
    ],
)
def test_answers_without_a_body_end_with_their_head(make_plane, method, reply):
    plane = make_plane(agent=RawAgent(lambda c, r: c.sendall(reply)))
    with plane.connect() as connection:
        for _ in range(2):
            connection.sendall(f"{method} /agent/web/ HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            assert connection.recv(65536).startswith(reply.split(b"\r\n")[0])

    assert plane.agent.connections == 1


def test_an_answer_that_ends_with_its_connection_is_passed_whole(make_plane):
    def close_delimited(connection, _request):
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello")
        connection.shutdown(socket.SHUT_WR)

    plane = make_plane(agent=RawAgent(close_delimited))

    assert plane.ask().body == b"hello"
    old = plane.send(b"GET /agent/web/ HTTP/1.0\r\n\r\n")
    assert old.endswith(b"\r\n\r\nhello")
    assert b"chunked" not in old


def test_cookies_are_confined_to_the_agents_path(make_plane):
    fields = (
        b"Set-Cookie: a=1; Path=/; Domain=example.org; HttpOnly\r\nSet-Cookie: b=2\r\nStrict-Transport-Security: x\r\n"
    )
    plane = make_plane(agent=RawAgent(lambda c, r: c.sendall(answer(fields=fields))))

    got = plane.ask()
    at_root = plane.send(b"GET / HTTP/1.1\r\nHost: web.localhost\r\nConnection: close\r\n\r\n")

    assert b"Set-Cookie: a=1; HttpOnly; Path=/agent/web/\r\n" in got.raw
    assert b"Set-Cookie: b=2; Path=/agent/web/\r\n" in got.raw
    assert b"Strict-Transport" not in got.raw
    assert b"Set-Cookie: a=1; Path=/; HttpOnly\r\n" in at_root


# ---- an agent that is away


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_to_a_stopped_agent_is_queued(plane, method):
    plane.route.close()

    got = plane.ask(method, "/agent/web/api?x=1", body=b'{"a":1}' if method == "POST" else None)

    assert got.status == 202
    request_id = got.json["data"]["request_id"]
    assert got.json == {
        "success": True,
        "message": "Agent is not running. Request queued for replay when agent starts.",
        "data": {"request_id": request_id, "status": "pending"},
    }
    assert got.fields["location"] == f"/requests/{request_id}?t=ticket-{request_id[:4]}"
    assert int(got.fields["retry-after"]) >= 1
    record, reason = plane.journal.pending[request_id]
    assert reason is Reason.QUEUED
    assert record.body == (b'{"a":1}' if method == "POST" else b"")
    assert record.head.startswith(f"{method} /api?x=1 HTTP/1.1\r\n".encode())
    assert not plane.agent.requests


def test_a_large_body_is_queued_in_a_sealed_file(plane):
    plane.route.close()
    body = b"y" * 1_000_000

    got = plane.ask("POST", body=body)

    record, _ = plane.journal.pending[got.json["data"]["request_id"]]
    assert got.status == 202
    assert (record.body, record.body_bytes) == (b"", len(body))
    spool = only(plane.journal.spools)
    assert (spool.name, spool.data, spool.sealed, spool.discarded) == (record.spool, body, True, False)


def test_a_starting_agent_is_waited_for(plane):
    plane.route.hold()
    asked = gevent.spawn(plane.ask)
    gevent.sleep(0.05)
    assert not asked.ready()

    plane.route.open()

    assert asked.get(timeout=5).status == 200


def test_a_request_held_too_long_is_queued(plane):
    plane.route.hold()
    plane.route.hold_timeout_s = 0.05

    assert plane.ask().status == 202


def test_prefer_wait_holds_for_a_stopped_agent(plane):
    plane.route.close()
    asked = gevent.spawn(plane.ask, fields={"Prefer": "wait=5"})
    gevent.sleep(0.05)

    plane.route.open()

    assert asked.get(timeout=5).status == 200


def test_prefer_respond_async_is_202_though_the_agent_is_ready(plane):
    got = plane.ask("POST", fields={"Prefer": "respond-async"}, body=b"{}")

    assert got.status == 202
    assert got.fields["preference-applied"] == "respond-async"
    assert not plane.agent.requests


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_agent_that_cannot_be_connected_gets_it_later(plane, method):
    suspects = []
    plane.routes.on_suspect = lambda route, target: suspects.append((route, target))
    plane.agent.close()

    got = plane.ask(method, body=b"{}")

    assert got.status == 202
    assert suspects == [(plane.route, plane.route.targets[0])]
    assert not only(plane.journal.pending)[0].maybe_duplicate
    assert not plane.journal.live


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"Accept": "text/event-stream"}, 503, "AGENT_NOT_RUNNING"),
        ({"Connection": "Upgrade", "Upgrade": "websocket"}, 503, "AGENT_NOT_RUNNING"),
        ({"Content-Length": str(11 * 1024 * 1024)}, 413, "TOO_LARGE_TO_QUEUE"),
    ],
)
def test_what_cannot_be_queued_is_refused(plane, fields, status, code):
    plane.route.close()

    got = plane.ask("POST" if "Content-Length" in fields else "GET", fields=fields)

    assert (got.status, got.json["code"]) == (status, code)
    assert "retry-after" in got.fields or status == 413
    assert not plane.journal.pending


def test_a_chunked_body_that_turns_out_too_large_is_413(plane):
    plane.route.close()
    chunk = b"100000\r\n" + b"z" * 0x100000 + b"\r\n"

    with plane.connect() as connection:
        sending = threading.Thread(
            target=lambda: send_quietly(
                connection, b"POST /agent/web/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 12
            )
        )
        sending.start()
        got = Answered(receive_all(connection))
        sending.join()

    assert got.status == 413
    assert not plane.journal.pending
    assert only(plane.journal.spools).discarded


def send_quietly(connection, data):
    try:
        connection.sendall(data)
    except OSError:
        pass


@pytest.mark.parametrize(("persistence", "policy"), [(False, ReplayPolicy.AUTO), (True, ReplayPolicy.NEVER)])
def test_without_persistence_an_absent_agent_is_503(plane, persistence, policy):
    plane.route.persistence, plane.route.policy = persistence, policy
    plane.route.close()

    got = plane.ask()

    assert (got.status, got.json["message"]) == (503, "Agent is not running")
    assert "retry-after" in got.fields
    assert not plane.journal.pending


def test_a_full_queue_is_429(plane):
    plane.route.close()
    plane.journal.full = True

    got = plane.ask("POST", body=b"{}")

    assert (got.status, got.json["code"], got.fields["retry-after"]) == (429, "QUEUE_FULL", "7")
    assert not plane.journal.settled


# ---- an agent that has it, and does not answer


def test_a_request_to_an_agent_that_died_is_queued_and_marked(make_plane):
    plane = make_plane(agent=RawAgent(silent))
    plane.routes.on_dead_check = lambda route, target: True

    got = plane.ask("POST", body=b"{}")

    assert got.status == 202
    record, _ = only(plane.journal.pending)
    assert record.maybe_duplicate
    assert (record.body, record.body_bytes) == (b"{}", 2)
    assert len(plane.agent.requests) == 1


def test_a_request_that_is_over_leaves_nothing_for_the_collector(make_plane):
    """What only the garbage collector frees stays in memory, body and all, until it runs."""
    plane = make_plane()
    plane.ask("POST", body=b"warm")
    gc.collect()
    gc.disable()
    try:
        plane.ask("POST", body=b"x" * 50_000)
        plane.route.close()
        plane.ask("POST", body=b"x" * 50_000)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [each for each in gc.garbage if type(each).__module__.startswith("agentainerd")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()

    assert not left


@pytest.mark.parametrize("fields", [{"Accept": "text/event-stream"}, {}], ids=["event stream", "queue full"])
def test_what_reached_an_agent_that_died_and_can_not_be_queued_is_502(make_plane, fields):
    """A refusal would say that it did not run."""
    plane = make_plane(agent=RawAgent(silent))
    plane.routes.on_dead_check = lambda route, target: True
    plane.journal.full = True

    got = plane.ask("GET", fields=fields)

    assert (got.status, got.json["code"]) == (502, "OUTCOME_UNKNOWN")
    assert only(plane.journal.settled)[1].reason is Reason.OUTCOME_UNKNOWN


def test_under_policy_safe_an_unsafe_request_to_an_agent_that_died_is_502(make_plane):
    plane = make_plane(agent=RawAgent(silent))
    plane.route.policy = ReplayPolicy.SAFE
    plane.routes.on_dead_check = lambda route, target: True

    got = plane.ask("POST", body=b"{}")

    assert (got.status, got.json["code"]) == (502, "OUTCOME_UNKNOWN")
    _, outcome = only(plane.journal.settled)
    assert (outcome.state, outcome.reason) == (RequestState.FAILED, Reason.OUTCOME_UNKNOWN)


def test_an_unsafe_request_to_a_living_agent_is_never_sent_again(make_plane):
    plane = make_plane(agent=RawAgent(silent))

    got = plane.ask("POST", body=b"{}")

    assert (got.status, got.json["code"]) == (502, "OUTCOME_UNKNOWN")
    assert len(plane.agent.requests) == 1
    assert only(plane.journal.settled)[1].reason is Reason.OUTCOME_UNKNOWN


def test_an_idempotent_request_to_a_living_agent_is_sent_once_more_then_queued(make_plane):
    plane = make_plane(agent=RawAgent(silent))

    got = plane.ask("PUT", body=b"{}")

    assert got.status == 202
    assert len(plane.agent.requests) == 2
    assert only(plane.journal.pending)[0].maybe_duplicate


def test_a_second_sending_that_is_answered_is_the_answer(make_plane):
    def first_silent(connection, request):
        if len(agent.requests) == 1:
            silent(connection, request)
        else:
            connection.sendall(answer(body_of(request)))

    agent = RawAgent(first_silent)
    plane = make_plane(agent=agent)

    got = plane.ask("PUT", body=b"x" * 100_000)

    assert got.body == b"x" * 100_000
    assert not plane.journal.pending


def test_a_silent_agent_is_504_after_its_time(make_plane, monkeypatch):
    monkeypatch.setattr(watch, "SWEEP_S", 0.02)
    plane = make_plane(agent=RawAgent(lambda c, r: None))
    plane.route.request_timeout_s = 0.1

    got = plane.ask("POST", body=b"{}")

    assert (got.status, got.json["code"]) == (504, "OUTCOME_UNKNOWN")
    assert len(plane.agent.requests) == 1


def test_a_pooled_connection_that_the_agent_closed_is_replaced(make_plane, eventually):
    closing = []

    def close_after(connection, _request):
        connection.sendall(answer())
        closing.append(connection)

    plane = make_plane(agent=RawAgent(close_after))
    assert plane.ask().status == 200
    closing[0].shutdown(socket.SHUT_RDWR)

    assert plane.ask("POST", body=b"{}").status == 200
    assert plane.agent.connections == 2
    assert len(plane.agent.requests) == 2


# ---- an answer that breaks off, or is none


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ],
)
def test_an_answer_that_breaks_off_never_ends_cleanly(make_plane, reply, eventually):
    def half(connection, _request):
        connection.sendall(reply)
        connection.shutdown(socket.SHUT_RDWR)

    plane = make_plane(agent=RawAgent(half))

    raw = plane.ask().raw

    assert not raw.endswith(b"0\r\n\r\n")
    _, outcome = eventually(lambda: plane.journal.settled and only(plane.journal.settled))
    assert (outcome.state, outcome.reason) == (RequestState.FAILED, Reason.INTERRUPTED)
    assert not plane.journal.pending


def test_a_close_delimited_answer_of_an_agent_that_died_breaks_off(make_plane, eventually):
    def die(connection, _request):
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhalf")
        plane.agent.close()

    plane = make_plane(agent=RawAgent(die))

    raw = plane.ask().raw

    assert not raw.endswith(b"0\r\n\r\n")
    assert eventually(lambda: plane.journal.settled)
    assert only(plane.journal.settled)[1].reason is Reason.INTERRUPTED


@pytest.mark.parametrize(
    "reply",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 100 Go On\r\n\r\n" * 12,
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 200_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_502_and_not_pooled(make_plane, reply):
    plane = make_plane(agent=RawAgent(lambda c, r: c.sendall(reply)))

    first, second = plane.ask("POST", body=b"{}"), plane.ask("POST", body=b"{}")

    for got in (first, second):
        assert b"HTTP/1.1 502 Bad Gateway\r\n" in got.raw
        assert b"BAD_ANSWER" in got.raw
    assert plane.agent.connections == 2


@pytest.mark.parametrize(
    "reply",
    [
        answer(b"ok") + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nleaked",
        b"HTTP/1.1 204 No Content\r\n\r\nleaked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nleaked",
    ],
)
def test_bytes_behind_an_answer_never_reach_the_next_client(make_plane, reply):
    plane = make_plane(agent=RawAgent(lambda c, r: c.sendall(reply)))

    first, second = plane.ask(), plane.ask()

    assert b"leaked" not in first.raw + second.raw
    assert plane.agent.connections == 2


def test_a_client_that_leaves_takes_the_agents_work_with_it(make_plane, monkeypatch, eventually):
    monkeypatch.setattr(watch, "SWEEP_S", 0.02)
    plane = make_plane(agent=RawAgent(lambda c, r: None))
    connection = plane.connect()
    connection.sendall(b"POST /agent/web/ HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}")
    eventually(lambda: plane.agent.requests)

    connection.close()

    eventually(lambda: plane.journal.settled)
    assert only(plane.journal.settled)[1].reason is Reason.INTERRUPTED
    assert not plane.journal.pending
    assert len(plane.agent.requests) == 1


def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing(plane, eventually):
    connection = plane.connect()
    connection.sendall(b"POST /agent/web/ HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nhalf")
    eventually(lambda: plane.journal.live)

    connection.close()

    eventually(lambda: plane.journal.settled)
    assert only(plane.journal.settled)[1].reason is Reason.INTERRUPTED
    assert not plane.journal.pending


def test_a_small_body_that_never_comes_whole_never_reaches_the_agent(plane, eventually):
    connection = plane.connect()
    connection.sendall(b"POST /agent/web/ HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nhalf")
    eventually(lambda: plane.data_plane.connections == 1)

    connection.close()

    eventually(lambda: plane.data_plane.connections == 0)
    assert not (plane.journal.live or plane.journal.settled or plane.agent.connections)


def test_bodies_that_are_waited_for_have_so_much_memory(make_plane, monkeypatch, eventually):
    monkeypatch.setattr(defaults, "MAX_HELD_BODY_BYTES", 150_000)
    plane = make_plane()
    head = b"POST /agent/web/ HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\nConnection: close\r\n\r\n"
    first, second = plane.connect(), plane.connect()
    first.sendall(head + b"half")
    eventually(lambda: plane.data_plane.connections == 2)
    second.sendall(head + b"half")
    eventually(lambda: plane.agent.connections == 1)  # there was no room: it is passed on as it comes

    for connection in (first, second):
        connection.sendall(b"x" * 99_996)
        assert Answered(receive_all(connection)).status == 200
        connection.close()
    assert sorted(map(len, map(body_of, plane.agent.requests))) == [100_000, 100_000]


# ---- a journal that is away


def test_without_a_journal_a_ready_agent_goes_on_and_says_so(plane):
    plane.journal.available = False

    got = plane.ask("POST", body=b"{}")

    assert (got.status, got.fields["x-agentainer-journal"]) == (200, "unavailable")


def test_without_a_journal_nothing_is_promised(plane):
    plane.journal.available = False
    plane.route.close()

    got = plane.ask("POST", body=b"{}")

    assert (got.status, got.json["code"]) == (503, "JOURNAL_UNAVAILABLE")
    assert "retry-after" in got.fields


def test_a_strict_owner_gets_503_without_a_journal(make_plane):
    plane = make_plane(reject_without_journal=True)
    plane.journal.available = False

    got = plane.ask("POST", body=b"{}")

    assert (got.status, got.json["code"]) == (503, "JOURNAL_UNAVAILABLE")
    assert not plane.agent.requests


@pytest.mark.parametrize("size", [2, 300_000])
def test_no_byte_of_an_answer_leaves_before_its_record_is_durable(make_plane, eventually, size):
    plane = make_plane(agent=RawAgent(lambda c, r: c.sendall(answer(b"k" * size))))
    waiting = []

    class Slow:
        done, refused = False, ""
        then = waiting.append

    begin = plane.journal.begin
    plane.journal.begin = lambda record: begin(record) and Slow()
    with plane.connect() as connection:
        connection.sendall(b"GET /agent/web/ HTTP/1.1\r\nHost: h\r\n\r\n")
        eventually(lambda: plane.agent.requests)
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        waiting.pop()()
        connection.settimeout(5)
        got = b""
        while got.count(b"k") < size:
            got += connection.recv(65536)
    assert waiting == []


# ---- idempotency keys


def test_the_same_key_and_request_get_the_first_answer(plane):
    first = plane.ask("POST", fields={"Idempotency-Key": "k1"}, body=b"{}")
    second = plane.ask("POST", fields={"Idempotency-Key": '"k1"'}, body=b"{}")

    assert (first.status, first.body, second.status, second.body) == (200, b"ok", 200, b"ok")
    assert "idempotent-replayed" not in first.fields
    assert second.fields["idempotent-replayed"] == "true"
    assert second.fields["x-agentainer-request-id"] == first.fields["x-agentainer-request-id"]
    assert len(plane.agent.requests) == 1


def test_the_same_key_with_another_body_is_422(plane):
    plane.ask("POST", fields={"Idempotency-Key": "k1"}, body=b"{}")

    got = plane.ask("POST", fields={"Idempotency-Key": "k1"}, body=b"{1}")

    assert (got.status, got.json["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")


def test_the_same_key_while_the_first_runs_is_409(make_plane, eventually):
    go_on = gevent.event.Event()
    plane = make_plane(agent=RawAgent(lambda c, r: (go_on.wait(5), c.sendall(answer()))))
    first = gevent.spawn(plane.ask, "POST", fields={"Idempotency-Key": "k"}, body=b"{}")
    eventually(lambda: plane.agent.requests)

    got = plane.ask("POST", fields={"Idempotency-Key": "k"}, body=b"{}")
    go_on.set()

    assert (got.status, got.json["code"]) == (409, "IDEMPOTENCY_KEY_IN_FLIGHT")
    assert first.get(timeout=5).status == 200


def test_the_same_key_of_a_queued_request_gets_the_same_202(plane):
    plane.route.close()

    first = plane.ask("POST", fields={"Idempotency-Key": "k"}, body=b"{}")
    second = plane.ask("POST", fields={"Idempotency-Key": "k"}, body=b"{}")

    assert (first.status, second.status) == (202, 202)
    assert first.json["data"] == second.json["data"]
    assert first.fields["location"] == second.fields["location"]
    assert len(plane.journal.pending) == 1


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_that_is_none_is_400(plane, key):
    got = plane.ask("POST", fields={"Idempotency-Key": key}, body=b"{}")

    assert (got.status, got.json["code"]) == (400, "IDEMPOTENCY_KEY_INVALID")


def test_at_least_once_is_recorded_whole_before_the_agent_sees_it(plane):
    plane.route.policy = ReplayPolicy.AT_LEAST_ONCE
    seen = []
    plane.agent.script = lambda c, r: (seen.extend(plane.journal.live.values()), c.sendall(answer()))

    assert plane.ask("POST", body=b"{}").status == 200
    assert seen[0].body == b"{}"
    assert plane.journal.reserved == [seen[0].id]


# ---- tokens


def test_a_control_token_is_not_given_to_an_agent(plane):
    told = []
    plane.routes.control_token_digests = frozenset([hashlib.sha256(b"root-token").digest()])
    plane.routes.on_control_token = lambda client, agent: told.append((client, agent))

    for value in ("Bearer root-token", "bearer  root-token", "root-token"):
        got = plane.ask(fields={"Authorization": value})
        assert (got.status, got.json["code"]) == (400, "CONTROL_TOKEN_ON_AGENT_PATH")

    assert told == [("127.0.0.1", "web")] * 3
    assert not plane.agent.requests
    assert plane.ask(fields={"Authorization": "Bearer other"}).status == 200


def test_an_agent_with_a_token_asks_for_it(plane):
    plane.route.token_digest = hashlib.sha256(b"agent-token").digest()

    missing = plane.ask()
    wrong = plane.ask(fields={"Authorization": "Bearer nope"})
    right = plane.ask(fields={"Authorization": "Bearer agent-token"})

    assert (missing.status, wrong.status, right.status) == (401, 401, 200)
    assert missing.fields["www-authenticate"] == "Bearer"
    assert b"agent-token" not in plane.agent.requests[0]


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


@pytest.fixture
def passes(plane):
    """Named tokens "named" (for web), "old" (for web, over), "elsewhere" (for api); web asks for a token."""
    plane.route.token_digest = digest("agent-token")
    plane.routes.agent_passes = {
        digest("named"): AgentPass("t1", frozenset({"web", "api"}), 0.0),
        digest("old"): AgentPass("t2", frozenset({"web"}), 1.0),
        digest("elsewhere"): AgentPass("t3", frozenset({"api"}), 0.0),
    }
    plane.routes.control_token_digests = frozenset({digest("root-token"), *plane.routes.agent_passes})
    return plane


def test_a_named_token_opens_the_path_of_its_agent_which_does_not_see_it(passes):
    used = []
    passes.routes.on_token_used = used.append
    basic = base64.b64encode(b"me:named").decode()

    for value in ("Bearer named", "named", f"Basic {basic}"):
        assert passes.ask(fields={"Authorization": value}).status == 200

    assert used == ["t1"] * 3
    assert not any(b"named" in request or basic.encode() in request for request in passes.agent.requests)


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [
        ("elsewhere", 400, "TOKEN_NOT_FOR_THIS_AGENT"), ("old", 401, "TOKEN_EXPIRED"),
        ("root-token", 400, "CONTROL_TOKEN_ON_AGENT_PATH"), ("nope", 401, "UNAUTHORIZED"),
    ],
)  # fmt: skip
def test_any_other_token_of_ours_does_not_and_gets_to_no_agent(passes, token, status, code):
    got = passes.ask(fields={"Authorization": f"Bearer {token}"})

    assert (got.status, got.json["code"]) == (status, code)
    assert not passes.agent.requests


def test_a_named_token_for_an_agent_that_asks_for_none_is_not_passed_on(passes):
    passes.route.token_digest = b""

    got = passes.ask(fields={"Authorization": "Bearer named"})

    assert (got.status, got.json["code"]) == (400, "TOKEN_NOT_FOR_THIS_AGENT")
    assert not passes.agent.requests


def test_what_is_wrong_or_missing_is_told_and_too_much_of_it_slowed_down(passes):
    told = []

    def refused(client, agent, is_wrong):
        told.append((client, agent, is_wrong))
        return 7 if is_wrong else 0

    passes.routes.on_token_refused = refused

    missing, wrong = passes.ask(), passes.ask(fields={"Authorization": "Bearer nope"})

    assert (missing.status, wrong.status, wrong.json["code"]) == (401, 429, "TOO_MANY_FAILED_LOGINS")
    assert wrong.fields["retry-after"] == "7"
    assert told == [("127.0.0.1", "web", False), ("127.0.0.1", "web", True)]
    assert passes.ask(fields={"Authorization": "Bearer agent-token"}).status == 200


# ---- the rest


def test_an_unknown_agent_is_404_and_before_all_are_known_503(plane):
    assert (plane.ask(path="/agent/nobody/").status, plane.ask(path="/agent/web%2f/").status) == (404, 404)
    plane.routes.complete = False
    assert plane.ask(path="/agent/nobody/").status == 503


def test_a_request_that_goes_round_is_stopped(plane):
    assert plane.ask(fields={"Via": ", ".join(["1.1 agentainer"] * 5)}).status == 508


def test_own_errors_say_what_in_json_and_in_proxy_status(plane):
    got = plane.ask(path="/agent/nobody/")

    assert got.json["code"] == "AGENT_NOT_FOUND"
    assert got.json["message"] == "Agent not found: nobody"
    assert got.fields["proxy-status"] == "agentainer; error=destination_not_found"
    assert got.fields["x-agentainer-request-id"]


@pytest.fixture
def pair(plane):
    """A second replica beside the first; `second` is its agent."""
    second = RawAgent()
    plane.route.targets.append(Target(second.address, number=2))
    plane.route.open()
    plane.second = second
    yield plane
    second.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_replica_that_refuses_is_passed_over(pair, method):
    suspects = []
    pair.routes.on_suspect = lambda route, target: suspects.append(target.number)
    pair.agent.close()

    statuses = [pair.ask(method, body=b"{}").status for _ in range(4)]

    assert statuses == [200] * 4
    assert suspects and set(suspects) == {1}
    assert len(pair.second.requests) == 4
    assert not pair.journal.pending


def test_requests_one_after_the_other_take_turns(pair):
    for _ in range(6):
        assert pair.ask().status == 200

    assert len(pair.agent.requests) == len(pair.second.requests) == 3


@pytest.fixture
def dying(pair):
    """The first replica, which is asked first, dies of each request."""
    pair.routes.on_dead_check = lambda route, target: True
    pair.agent.script = lambda connection, request: connection.close()
    pair.route.targets[1].in_flight = 1
    return pair


@pytest.mark.parametrize(("method", "fields"), [("GET", {}), ("PUT", {}), ("POST", {"Idempotency-Key": "k"})])
def test_a_repeatable_request_whose_replica_died_goes_to_another_one_marked(dying, method, fields):
    got = dying.ask(method, body=b"{}", fields=fields)

    assert got.status == 200
    assert len(dying.agent.requests) == len(dying.second.requests) == 1
    assert b"X-Agentainer-Maybe-Duplicate: 1\r\n" in dying.second.requests[0]
    assert b"Maybe-Duplicate" not in dying.agent.requests[0]


def test_an_unsafe_one_is_queued_because_who_is_answered_takes_it_to_have_run_once(dying):
    got = dying.ask("POST", body=b"{}")

    assert (got.status, dying.second.requests) == (202, [])
    assert only(dying.journal.pending)[0].maybe_duplicate


def test_under_the_policy_safe_an_unsafe_one_is_given_up(dying):
    dying.route.policy = ReplayPolicy.SAFE

    assert dying.ask("POST", body=b"{}").status == 502
    assert not dying.second.requests


def test_an_idempotent_one_that_a_living_replica_does_not_answer_goes_to_another_one(pair):
    pair.routes.on_dead_check = lambda route, target: False
    pair.agent.script = lambda connection, request: connection.close()
    pair.route.targets[1].in_flight = 1

    assert pair.ask("GET").status == 200
    assert len(pair.second.requests) == 1


def test_where_all_replicas_refuse_it_is_queued(pair):
    pair.agent.close()
    pair.second.close()

    assert pair.ask("POST", body=b"{}").status == 202


def test_an_upgrade_goes_to_a_replica_that_takes_it(pair):
    pair.agent.close()

    def switch(connection, request):
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
        connection.close()

    pair.second.script = switch
    pair.route.targets[1].in_flight = 1

    assert pair.ask(fields={"Connection": "Upgrade", "Upgrade": "x"}).status == 101
