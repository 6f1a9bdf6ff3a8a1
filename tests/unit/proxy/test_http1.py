"""Requests as bytes in, fields out."""

import pytest

from agentainerd import defaults
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
    lines = [b"A: 1\r\n", b"b: 2\r\n"]

    drop_fields(lines, (b"a",))

    assert lines == [b"b: 2\r\n"]


def test_a_request_may_begin_in_the_piece_that_ends_a_body():
    reader = read(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab", b"cdGET /next HTTP/1.1\r\nHost: a\r\n\r\n"
    )

    assert [request.fault for request in reader.requests] == [None, None]
    assert reader.broken is None


def test_a_long_body_before_a_request_does_not_count_as_its_head():
    body = b"x" * 60_000
    reader = read(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n",
        body + b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 1000,
        b"y" * 9000,
        b"\r\n\r\n",
    )

    assert (reader.broken, len(reader.requests), reader.requests[1].fault) == (None, 2, None)


@pytest.mark.parametrize(("size", "status"), [(defaults.MAX_HEAD_BYTES, None), (defaults.MAX_HEAD_BYTES + 1, 431)])
@pytest.mark.parametrize("step", [1000, 40_000, 100_000])
def test_a_head_is_measured_to_the_byte_however_it_comes(size, status, step):
    fields = [b"X: %b\r\n" % (b"y" * 9995)] * 6
    start = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(fields)
    data = start + b"Z: %b\r\n\r\n" % (b"z" * (size - len(start) - 7))
    assert len(data) == size

    reader = read(*(data[at : at + step] for at in range(0, size, step)))

    fault = reader.broken or reader.requests[0].fault
    assert (fault and fault.status) == status


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("in_one_piece", [True, False])
def test_trailers_are_bounded(in_one_piece):
    trailers = b"0\r\n" + b"T: %b\r\n" % (b"t" * 1000) * 9 + b"\r\n"
    reader = read(CHUNKED + trailers) if in_one_piece else read(CHUNKED, trailers)

    assert reader.requests[0].fault.status == 431
    assert reader.broken.status == 431


@pytest.mark.parametrize("beginning", [b"0\r\nT: ", b"0\r\nT", b"1;x", b"1;x="])
def test_what_is_dropped_of_a_chunked_body_is_bounded_before_it_is_whole(beginning):
    reader = read(CHUNKED, beginning)
    pieces = 0
    while reader.broken is None:
        reader.feed(b"t" * 1000)
        pieces += 1
        assert pieces < 20

    assert reader.broken.status == 431


def test_chunks_of_one_byte_are_no_extensions():
    reader = read(CHUNKED)
    for _ in range(20_000):
        reader.feed(b"0000000000000001\r\nx\r\n")
    reader.feed(b"0\r\n\r\n")

    assert (reader.broken, reader.requests[0].done, reader.requests[0].fault) == (None, True, None)
