"""The EventSource of the tests, held against the examples of the HTML standard: who judges streams has to be right."""

import pytest

from tests.fakes.event_source import MessageEvent, Stream

EXAMPLES = {
    "data lines are joined": (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("message", "YHOO\n+2\n10", "")]),
    "comments, ids and what has no end": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event",
        [("message", "first event", "1"), ("message", "second event", "")],
    ),
    "empty data": (b"data\n\ndata\ndata\n\ndata:", [("message", "", ""), ("message", "\n", "")]),
    "one space is left out": (b"data:test\n\ndata: test\n\n", [("message", "test", "")] * 2),
    "types": (
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\n",
        [("add", "73857293", ""), ("remove", "2153", "")],
    ),
    "a type without data": (b"event: add\n\ndata: x\n\n", [("message", "x", "")]),
    "an id without data": (b"id: 7\n\ndata: x\n\n", [("message", "x", "7")]),
    "an id with a NUL": (b"id: 7\n\nid: a\0b\ndata: x\n\n", [("message", "x", "7")]),
    "line ends": (b"data: a\r\rdata: b\r\n\r\ndata: c\n\n", [("message", each, "") for each in "abc"]),
    "a byte order mark": (b"\xef\xbb\xbfdata: x\n\n", [("message", "x", "")]),
    "bytes that are no UTF-8": (b"data: \xff\n\n", [("message", "\ufffd", "")]),
    "unknown fields": (b"name: x\nDATA: y\n data: z\n\ndata: x\n\n", [("message", "x", "")]),
}


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_the_standards_examples(example, size):
    stream, expected = EXAMPLES[example]
    parser = Stream()

    told = [event for at in range(0, len(stream), size) for event in parser.feed(stream[at : at + size])]

    assert told == [MessageEvent(*each) for each in expected]


def test_a_retry_is_digits_or_nothing():
    parser = Stream()
    list(parser.feed(b"retry: 100\nretry: 1s\nretry: -1\nretry\n\n"))

    assert parser.retry_ms == 100
