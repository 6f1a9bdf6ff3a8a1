"""Heads and cookies on their way through."""

import pytest

from agentainerd.proxy.heads import confined


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        (b"a=1", b"a=1; Path=/agent/web/"),
        (b"a=1; Path=/", b"a=1; Path=/agent/web/"),
        (b"a=1; path=/x; Secure", b"a=1; Secure; Path=/agent/web/x"),
        (b"a=1; Domain=.example.org; DOMAIN=x", b"a=1; Path=/agent/web/"),
        (b"a=1; Path=relative", b"a=1; Path=/agent/web/"),
        (b"a=1; Path=/a; Path=/b", b"a=1; Path=/agent/web/b"),
        (b"a=1; Max-Age=5;HttpOnly", b"a=1; Max-Age=5; HttpOnly; Path=/agent/web/"),
    ],
)
def test_a_cookie_holds_under_its_agents_path_only(cookie, expected):
    assert confined(cookie, b"/agent/web") == expected
