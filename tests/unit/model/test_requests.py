"""What may be sent twice."""

import pytest

from agentainerd.model.requests import IdempotencyKey, Record


def record(method=b"POST", **fields):
    return Record("id", "agent-1", head=b"", method=method, target=b"/", received_at=0, expires_at=1, **fields)


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE", b"QUERY"])
def test_idempotent_methods_may_be_repeated(method):
    assert record(method).is_repeatable


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"LOCK"])
def test_others_only_with_a_key(method):
    assert not record(method).is_repeatable
    assert record(method, key=IdempotencyKey("s", "f")).is_repeatable


def test_what_was_not_stored_whole_can_not_be_replayed():
    assert record(body_bytes=0).is_replayable
    assert not record(body_bytes=-1).is_replayable
