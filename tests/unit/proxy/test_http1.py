"""Requests as bytes in, fields out."""

import pytest

from agentainerd.proxy.http1 import Fault, RequestReader, drop_fields


def read(*pieces):
    reader = RequestReader()
    for piece in pieces:
        reader.feed(piece)
    return reader


def test_a_request_is_read_with_its_fields():
    reader = read(
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3 \r\nPrefer: wait=3\r\nPrefer: respond-async\r\n"
        b"Authorization:  Bearer t \r\nIdempotency-Key: k\r\nAccept: text/Event-Stream, */*\r\nX: y\r\n\r\nabc"
    )

    request = reader.requests.popleft()
    assert (request.method, request.target, request.host, request.length) == (b"POST", b"/x", b"a", 3)
    assert (request.authorization, request.key, request.accepts_events) == (b"Bearer t", b"k", True)
    assert b"wait=3" in request.prefer and b"respond-async" in request.prefer
    assert (request.done, request.pieces, request.keep_alive) == (True, [b"abc"], True)
    assert b"Content-Length" not in request.lines
    assert reader.idle


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_who_keeps_the_connection(head, keeps):
    assert read(head).requests[0].keep_alive is keeps


def test_a_body_arrives_after_its_head():
    reader = read(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
    request = reader.requests[0]
    assert (request.done, request.pieces) == (False, [b"ab"])

    reader.feed(b"cdGET /next HTTP/1.1\r\nHost: a\r\n\r\n")

    assert (request.done, request.pieces) == (True, [b"ab", b"cd"])
    assert [each.target for each in reader.requests] == [b"/", b"/next"]


def test_bytes_behind_an_upgrade_are_kept_apart():
    reader = read(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nrest")

    assert (reader.requests[0].upgrade, reader.rest, reader.requests[0].keep_alive) == (b"x", b"rest", False)


def test_a_fault_has_its_status_and_reason():
    reader = read(b"GET / HTTP/1.1\r\n\r\n")

    assert isinstance(reader.requests[0].fault, Fault)
    assert (reader.requests[0].fault.status, reader.requests[0].fault.reason) == (400, "no Host")


def test_fields_are_dropped_by_name_in_any_case():
    lines = [b"A", b": ", b"1", b"\r\n", b"b", b": ", b"2", b"\r\n"]

    drop_fields(lines, (b"a",))

    assert lines == [b"b", b": ", b"2", b"\r\n"]
