"""Server-sent events: cut anywhere, ended by any line end, bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentainerd.model.sse import Message, Parser, TooLong

STREAM = (
    b'\xef\xbb\xbfevent: one\ndata: {"a":\ndata:1}\nid: 7\n\n: a comment\n\nretry: 10\n\nnonsense\ndata\n\n'
    b"data: \xc3\xa4\xe2\x82\xac\r\n\r\ndata: three\r\rdata: never ended\n"
)
MESSAGES = [
    Message(b'{"a":\n1}', "one", "7"),
    Message(b"", "", "7"),
    Message("ä€".encode(), "", "7"),
    Message(b"three", "", "7"),
]


def parse(pieces, max_bytes=1000):
    parser = Parser(max_bytes)
    return [message for piece in pieces for message in parser.feed(piece)]


def test_a_stream_in_one_piece():
    assert parse([STREAM]) == MESSAGES


def test_a_stream_cut_in_two_at_every_byte():
    for place in range(len(STREAM) + 1):
        assert parse([STREAM[:place], STREAM[place:]]) == MESSAGES, place


def test_a_stream_byte_by_byte_with_empty_pieces_between():
    assert parse([piece for byte in STREAM for piece in (bytes([byte]), b"")]) == MESSAGES


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_a_stream_cut_anywhere(cuts):
    places = [0, *sorted(cuts), len(STREAM)]

    assert parse([STREAM[a:b] for a, b in zip(places, places[1:], strict=False)]) == MESSAGES


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 200, b"data: xxxxxxxxx\n" * 20 + b"\n"])
def test_what_never_ends_is_refused(stream):
    with pytest.raises(TooLong):
        parse([stream[place : place + 7] for place in range(0, len(stream), 7)], max_bytes=100)


def test_an_id_with_a_nul_is_none():
    assert parse([b"id: a\0b\ndata: x\n\n"]) == [Message(b"x")]
