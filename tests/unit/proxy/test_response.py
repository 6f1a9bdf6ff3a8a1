"""Answers as bytes in, fields out."""

import pytest

from agentainerd.proxy.request import Fault
from agentainerd.proxy.response import Answer


def read(*pieces, **options):
    answer = Answer()
    answer.reset(**options)
    for piece in pieces:
        answer.feed(piece)
    return answer


def test_an_answer_is_read_at_every_split():
    data = b"HTTP/1.1 201 Made It\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a\r\nX: y\r\n\r\n3\r\nabc\r\n0\r\nT: t\r\n\r\n"
    for at in range(1, len(data)):
        answer = read(data[:at], data[at:])
        assert (answer.status, answer.line, answer.chunked, answer.done) == (
            201,
            b"HTTP/1.1 201 Made It\r\n",
            True,
            True,
        )
        assert (b"".join(answer.pieces), answer.cookies) == (b"abc", [b"a"])
        assert answer.lines == [b"X: y\r\n"]
        assert answer.keep_alive
        assert not answer.overrun


@pytest.mark.parametrize(
    ("data", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_who_keeps_the_connection(data, keeps):
    assert read(data).keep_alive is keeps


def test_interim_answers_are_kept_apart():
    answer = read(
        b"HTTP/1.1 103 Early\r\nLink: x\r\nX-Agentainer-Y: z\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    )

    assert (answer.status, answer.interim) == (200, [b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n"])


@pytest.mark.parametrize("before", [b"\n", b"\r\n", b"\r\n\r\n", b"\r"])
@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n"])
@pytest.mark.parametrize("fields", [b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b""])
def test_nothing_stands_before_a_status_line(before, interim, fields):
    body = b"5\r\nhello\r\n0\r\n\r\n" if b"chunked" in fields else b"hello"
    rest = b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n" + body

    with pytest.raises(Fault):
        read(interim + before + rest)
    assert read(interim + rest).status == 200


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore", {}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nokmore", {}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", {"head_only": True}),
        (b"HTTP/1.1 304 Not Modified\r\n\r\nmore", {}),
    ],
)
def test_bytes_behind_the_end_are_an_overrun(data, options):
    answer = read(data, **options)

    assert answer.overrun
    assert b"more" not in b"".join(answer.pieces)


def test_a_switch_nobody_asked_for_is_a_fault():
    data = b"HTTP/1.1 101 Switch\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nrest"

    with pytest.raises(Fault):
        read(data)
    assert read(data, may_switch=True).rest == b"rest"


def test_the_next_answer_of_a_connection_starts_anew():
    answer = read(b"HTTP/1.1 404 Not Found\r\nSet-Cookie: a\r\nContent-Length: 2\r\n\r\nno")
    assert answer.can_be_followed

    for _ in range(2):
        answer.reset()
        answer.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
        assert (answer.status, answer.line, answer.length, answer.take()) == (200, b"HTTP/1.1 200 OK\r\n", -1, b"ok")
        assert (answer.cookies, answer.overrun, answer.done) == ([], False, True)


def test_an_answer_without_its_body_does_not_spoil_the_next_one():
    answer = read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", head_only=True)
    assert answer.can_be_followed

    answer.reset()
    answer.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    assert (answer.take(), answer.done) == (b"ok", True)


def test_a_long_body_of_known_length_passes_by_the_parser():
    answer = read(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nab")
    answer.feed(b"c" * 99_990)
    assert not answer.done
    answer.feed(b"d" * 8)
    assert (answer.done, len(answer.take()), answer.can_be_followed) == (True, 100_000, True)

    answer.reset()
    answer.feed(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert answer.can_be_followed


def test_a_long_body_that_is_longer_than_said_is_an_overrun():
    answer = read(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    answer.feed(b"x" * 100_001)

    assert (answer.done, len(answer.take()), answer.overrun, answer.can_be_followed) == (True, 100_000, True, False)
