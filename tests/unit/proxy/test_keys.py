"""What an idempotency key is."""

import pytest

from agentainerd.model.requests import Record
from agentainerd.proxy import keys
from agentainerd.proxy.body import Body
from agentainerd.proxy.journal import KeyVerdict
from agentainerd.proxy.request import Request


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b"k", b"k"),
        (b'"k"', b"k"),
        (b"a b", b"a b"),
        (b"", None),
        (b"x" * 255, b"x" * 255),
        (b"x" * 256, None),
        (b"\xff", None),
    ],
)
def test_a_key_is_a_token_or_a_string(value, key):
    assert keys.read(value) == key


def whole(*pieces):
    body = Body(Request(pieces=list(pieces), done=True), lambda: None, None)
    assert body.collect()
    return body


def record(agent="agent-1", method=b"POST", target=b"/agent/web/"):
    return Record("id", agent, head=b"", method=method, target=target, received_at=0, expires_at=1)


def test_a_request_is_the_same_by_method_target_and_body_within_its_agent():
    one = keys.identify(record(), whole(b"a", b"b"), b"k")

    assert one == keys.identify(record(), whole(b"ab"), b"k")
    assert one.fingerprint != keys.identify(record(method=b"PUT"), whole(b"ab"), b"k").fingerprint
    assert one.fingerprint != keys.identify(record(target=b"/agent/web/x"), whole(b"ab"), b"k").fingerprint
    assert one.fingerprint != keys.identify(record(), whole(b"abc"), b"k").fingerprint
    assert one.scope != keys.identify(record(agent="agent-2"), whole(b"ab"), b"k").scope


def test_every_verdict_that_is_no_answer_has_a_refusal():
    assert {keys.refusal(verdict).status for verdict in KeyVerdict} == {409, 422}
