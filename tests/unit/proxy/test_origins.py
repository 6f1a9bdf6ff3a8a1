"""Host and Origin: which are ours."""

import pytest

from agentainerd.proxy.origins import MAX_KNOWN, Names, Origins, Verdict

OURS, HOST, ORIGIN = Verdict.OURS, Verdict.STRANGE_HOST, Verdict.STRANGE_ORIGIN
NAMES = Names(
    domain="agents.test", own=("box", "0.0.0.0"), hosts=("api.example.com", "*.example.org"),
    origins=("https://app.example.net", "https://dev.example.net:8443", "chrome-extension://abc"),
)  # fmt: skip


@pytest.fixture
def origins():
    return Origins(NAMES)


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost:8081", "LOCALHOST:8081", "localhost.", "localhost.:8081", "localhost:", "web.localhost",
        "127.0.0.1", "127.0.0.1:8081", "192.168.1.20:8081", "203.0.113.9", "[::1]:8081", "[::1]", "[fe80::1]:8081",
        "[::ffff:127.0.0.1]", "host.docker.internal:8081", "box:8081", "agents.test", "web.agents.test", "Web.Agents.Test:80",
        "api.example.com", "API.example.com:443", "a.example.org", "a.b.example.org", None,
    ],
)  # fmt: skip
def test_our_names_and_every_address_are_taken(origins, host):
    assert origins.judge(host and host.encode(), None) is OURS


@pytest.mark.parametrize(
    "host",
    [
        "", "evil.example", "localhost.evil.example", "evillocalhost", "agents.test.evil.example", "evilagents.test",
        "example.com", "x.api.example.com", "example.org", "evilexample.org", "box.evil.example", "127.0.0.1.evil.example",
        "127.0.0.1.nip.io", "2130706433", "0x7f000001", "127.1", "localhost:8081:1", "localhost:x", "localhost:123456",
        "user@localhost", "evil.example@localhost", "localhost/", "localhost evil.example", "localhost,evil.example", "[::1",
        "::1", "[localhost]", "[]", "local\x00host", "localhost\xff", "%6cocalhost", "local host", "localhost..", ".", ":8081",
        "localhost\t", " localhost", "a" * 600 + ".localhost",
    ],
)  # fmt: skip
def test_other_names_and_what_only_looks_like_ours_are_strange(origins, host):
    assert origins.judge(host.encode("latin-1"), None) is HOST


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8081", "http://localhost:8081"),
        ("localhost:8081", "http://localhost:3000"),  # a page under development on this machine
        ("localhost:8081", "HTTP://LocalHost:8081"),
        ("localhost:8081", "http://web.localhost:8081"),
        ("localhost:8081", "http://127.0.0.1:5173"),
        ("localhost:8081", "http://[::1]:5173"),
        ("192.168.1.20:8081", "http://192.168.1.20:8081"),
        ("[2001:db8::1]:8081", "http://[2001:db8::1]:8081"),
        ("127.0.0.1:8081", "https://api.example.com"),  # a proxy in front that replaces Host
        ("127.0.0.1:8081", "https://a.example.org"),
        ("localhost", "https://app.example.net"),
        ("localhost", "https://dev.example.net:8443"),
        ("localhost", "chrome-extension://abc"),
        ("box", "http://box:8081"),
    ],
)
def test_pages_of_ours_and_listed_ones_may_send_requests(origins, host, origin):
    assert origins.judge(host.encode(), origin.encode()) is OURS


@pytest.mark.parametrize(
    "origin",
    [
        "", "null", "http://evil.example", "https://evil.example", "http://203.0.113.9", "http://192.168.1.99:8081",
        "http://localhost.evil.example", "http://evillocalhost", "http://user@localhost", "http://localhost@evil.example",
        "http://localhost/", "http://localhost/path", "http://localhost?x", "http://localhost#x", "localhost", "//localhost",
        "ftp://localhost", "file://localhost", "javascript://localhost", "http://app.example.net", "https://app.example.net:1",
        "https://x.app.example.net", "chrome-extension://abcd", "http://localhost http://evil.example", "http://",
        "http://[::1", "http://2130706433", "http://localhost,http://evil.example", "http://evil.example\x00.localhost",
    ],
)  # fmt: skip
def test_pages_of_others_may_not(origins, origin):
    assert origins.judge(b"localhost:8081", origin.encode("latin-1")) is ORIGIN


def test_a_strange_host_is_told_before_a_strange_origin(origins):
    assert origins.judge(b"evil.example", b"http://evil.example") is HOST


def test_a_page_at_an_address_is_ours_only_where_it_sends_its_requests_to_that_address(origins):
    assert origins.judge(b"203.0.113.9", b"http://203.0.113.9") is OURS
    assert origins.judge(b"203.0.113.10", b"http://203.0.113.9") is ORIGIN
    assert origins.judge(None, b"http://203.0.113.9") is ORIGIN


def test_a_star_takes_every_host_but_no_strange_page():
    origins = Origins(Names(hosts=("*",)))

    assert origins.judge(b"any.example", None) is OURS
    assert origins.judge(b"any.example", b"https://any.example") is OURS
    assert origins.judge(b"any.example", b"https://other.example") is ORIGIN
    assert origins.judge(b"not a host", None) is HOST


def test_a_star_takes_every_origin_and_null_can_be_listed():
    assert Origins(Names(origins=("*",))).judge(b"localhost", b"http://evil.example") is OURS
    assert Origins(Names(origins=("null",))).judge(b"localhost", b"null") is OURS


def test_new_names_count_at_once(origins):
    assert origins.judge(b"new.example", None) is HOST

    origins.use(Names(hosts=("new.example",)))

    assert origins.judge(b"new.example", None) is OURS
    assert origins.judge(b"api.example.com", None) is HOST


def test_what_is_remembered_is_bounded_and_long_values_are_not_kept(origins):
    for number in range(MAX_KNOWN + 10):
        origins.judge(b"h%d.localhost" % number, None)
        assert len(origins._known) <= MAX_KNOWN
    before = len(origins._known)

    assert origins.judge(b"localhost", b"http://" + b"a" * 10_000) is ORIGIN
    assert len(origins._known) == before


def test_ours_is_false_so_that_a_verdict_can_be_asked(origins):
    assert not origins.judge(b"localhost", None)
    assert origins.judge(b"evil.example", None)
