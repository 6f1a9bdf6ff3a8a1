import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentainerd.model.requests import (
    IdempotencyKey,
    Outcome,
    Reason,
    Record,
    ReplayPolicy,
    RequestState,
    StoredResponse,
)
from agentainerd.store import packing

FIELDS = ("head", "method", "target", "received_at", "expires_at", "body", "spool", "body_bytes", "client", "policy")
records = st.builds(
    Record,
    st.uuids().map(str),
    st.just("agent-1"),
    head=st.binary(max_size=50),
    method=st.sampled_from([b"GET", b"POST"]),
    target=st.binary(max_size=30),
    received_at=st.floats(0, 1e10),
    expires_at=st.floats(0, 1e10),
    body=st.binary(max_size=50),
    client=st.text(max_size=20),
    policy=st.sampled_from(list(ReplayPolicy)),
    attempt=st.integers(0, 9),
    maybe_duplicate=st.booleans(),
    seq=st.integers(0, 2**53),
)


def whole(record):
    record.body_bytes = len(record.body)
    return record


@given(records.map(whole))
def test_live_record_comes_back_whole(record):
    found = packing.unpack_live(record.id, record.agent_id, packing.pack_live(record))

    for name in (*FIELDS, "id", "agent_id", "attempt", "maybe_duplicate", "seq"):
        assert getattr(found, name) == getattr(record, name), name
    assert found.lease == -1, "recorded as live"


@pytest.mark.parametrize(
    ("body", "spool", "body_bytes", "expected"),
    [(b"abc", "", 3, 3), (b"", "", 3, -1), (b"", "x.body", 70_000, 70_000), (b"ab", "", -1, -1)],
)
def test_live_record_whose_body_was_on_its_way_is_not_replayable(body, spool, body_bytes, expected):
    record = Record("id", "agent-1", b"", b"POST", b"/", 0.0, 0.0, body=body, spool=spool, body_bytes=body_bytes)

    found = packing.unpack_live("id", "agent-1", packing.pack_live(record))

    assert (found.body_bytes, found.is_replayable) == (expected, expected >= 0)


@given(records.map(whole))
def test_claimed_record_comes_back_whole(record):
    record.key = IdempotencyKey("scope", "print")
    answer = [
        record.agent_id.encode(), packing.pack_meta(record), record.head, record.body, b"", b"%d" % record.seq, b"scope",
        repr(record.expires_at).encode(), b"3", b"1", b"7", record.id.encode(),
    ]  # fmt: skip

    found = packing.unpack_claimed(answer)

    for name in (*FIELDS, "id", "agent_id", "seq", "key"):
        assert getattr(found, name) == getattr(record, name), name
    assert (found.attempt, found.maybe_duplicate, found.lease) == (3, True, 7)


def test_claimed_record_that_has_gone_meanwhile_is_none():
    assert packing.unpack_claimed([None] * 11 + [b"id"]) is None


@pytest.mark.parametrize("response", [None, StoredResponse(200, b"HTTP/1.1 200 OK\r\n", b"\0\xff", True)])
def test_answer_comes_back_as_it_was(response):
    assert packing.unpack_response(packing.pack_response(response)) == response


@given(records.map(whole), st.floats(0, 1e10))
def test_summary_of_the_past_says_what_the_record_and_the_outcome_say(record, now):
    outcome = Outcome(RequestState.COMPLETED, Reason.ANSWERED, status=207, response_bytes=9, duration_s=0.5)

    found = packing.unpack_past("agent-1", packing.pack_past(record, outcome, now))

    assert (found.id, found.state, found.reason, found.status) == (record.id, "completed", "answered", 207)
    assert (found.received_at, found.finished_at, found.attempts) == (record.received_at, now, record.attempt)
    assert found.target == record.target.decode("latin-1")


@pytest.mark.parametrize(
    ("method", "fingerprint", "expected"), [(b"GET", "", True), (b"POST", "", False), (b"POST", "print", True)]
)
def test_meta_says_what_may_be_sent_twice(method, fingerprint, expected):
    key = IdempotencyKey("scope", fingerprint) if fingerprint else None
    record = Record("id", "agent-1", b"", method, b"/", 0.0, 0.0, key=key)

    assert packing.unpack_meta(packing.pack_meta(record)).is_repeatable is record.is_repeatable is expected
