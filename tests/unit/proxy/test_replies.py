"""Answers of our own."""

import json

from agentainerd.proxy import replies


def test_a_reply_is_the_envelope_with_code_and_proxy_status():
    data = replies.encode(replies.NOT_RUNNING, "id-1", close=True)

    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    for line in (
        b"Content-Length: %d" % len(body),
        b"X-Agentainer-Request-ID: id-1",
        b"Proxy-Status: agentainer; error=destination_unavailable",
        b"Retry-After: 5",
        b"Connection: close",
    ):
        assert line in head.split(b"\r\n")
    assert json.loads(body) == {
        "success": False,
        "message": "Agent is not running",
        "error": "Agent is not running",
        "code": "AGENT_NOT_RUNNING",
    }


def test_a_reply_to_head_has_no_body():
    assert replies.encode(replies.LOOP, "id", head_only=True).endswith(b"\r\n\r\n")


def test_every_reply_says_what_and_has_a_phrase():
    table = [value for value in vars(replies).values() if isinstance(value, replies.Reply)]

    assert len(table) > 15
    for reply in table:
        assert reply.message
        assert reply.code.isupper()
        assert reply.status in replies.PHRASES
