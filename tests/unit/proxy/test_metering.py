"""What a meter notices of answers however they are cut, and what it passes on."""

import json

import pytest

from agentainerd.proxy.metering import KEPT_BYTES, Meter

USAGE = '{"prompt_tokens": 7, "completion_tokens": 3}'
EVENTS = (
    'data: {"choices": [{"delta": {"content": "a \\"usage\\": {1} b"}}], "usage": null}',
    ": a comment",
    'data: {"choices": [{"delta": {"content": "Bäume"}}]}',
    f'data: {{"choices": [], "usage": {USAGE}}}',
    "data: [DONE]",
)


def stream_of(newline: str) -> bytes:
    return "".join(event + newline * 2 for event in EVENTS).encode()


def fed(meter: Meter, data: bytes, size: int) -> bytes:
    passed = b"".join(meter.feed(data[start : start + size]) for start in range(0, len(data), size))
    return passed + meter.end()


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_stream_cut_anywhere_is_passed_on_whole_and_its_usage_is_found(newline):
    data = stream_of(newline)
    for size in (*range(1, 40), len(data)):
        meter = Meter(is_stream=True, hides_usage=False)

        assert fed(meter, data, size) == data
        assert meter.usage.startswith(USAGE.encode()), size
        assert meter.events == 4, size


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_the_event_that_only_says_the_usage_is_taken_out_and_nothing_else(newline):
    data = stream_of(newline)
    kept = "".join(event + newline * 2 for event in EVENTS if '"usage": {"' not in event).encode()
    for size in (*range(1, 40), len(data)):
        meter = Meter(is_stream=True, hides_usage=True)

        assert fed(meter, data, size) == kept, size
        assert meter.usage.startswith(USAGE.encode()), size


def test_an_event_with_text_and_usage_stays():
    data = f'data: {{"choices": [{{"delta": {{}}}}], "usage": {USAGE}}}\n\n'.encode()
    meter = Meter(is_stream=True, hides_usage=True)

    assert fed(meter, data, 5) == data
    assert meter.usage.startswith(USAGE.encode())


def test_an_event_without_an_end_is_not_held_for_ever():
    meter = Meter(is_stream=True, hides_usage=True)

    passed = meter.feed(b"data: " + b"x" * (KEPT_BYTES + 1))

    assert len(passed) == KEPT_BYTES + 7
    assert meter.feed(b"yz\n\n") + meter.end() == b"yz\n\n"


def test_a_document_is_passed_on_at_once_and_looked_at_when_it_is_over():
    data = json.dumps({"data": ["x" * 200_000], "usage": {"prompt_tokens": 5}}).encode()
    meter = Meter(is_stream=False, hides_usage=True)

    assert fed(meter, data, 1000) == data
    assert meter.usage.startswith(b'{"prompt_tokens": 5}')


def test_a_long_line_of_a_stream_is_looked_at_from_its_end():
    data = f'data: {{"response": {{"output": "{"x" * 300_000}", "usage": {USAGE}}}}}\n\n'.encode()
    meter = Meter(is_stream=True, hides_usage=False)

    assert fed(meter, data, 4096) == data
    assert meter.usage.startswith(USAGE.encode())
