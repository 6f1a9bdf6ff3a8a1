import os

import pytest

from agentainerd import config_values as values

PORT = values.integer(0, 65535)
SPAN = values.seconds(0, 3600)
SIZE = values.size(1024, 2**40)
WORD = values.choice("text", "json")
REDIS_URL = values.url("redis", "rediss", "unix")
ROOTS = values.texts(values.absolute_folder)
PROXIES = values.texts(values.ip_network)


@pytest.mark.parametrize(
    ("parse", "given", "wanted"),
    [
        (values.text, "a b", "a b"),
        (values.boolean, True, True),
        (values.boolean, "False", False),
        (values.boolean, "1", True),
        (PORT, 0, 0),
        (PORT, "65535", 65535),
        (SPAN, 1, 1.0),
        (SPAN, 0.5, 0.5),
        (SPAN, "1m30s", 90.0),
        (SIZE, 2048, 2048),
        (SIZE, "1Mi", 1024 * 1024),
        (SIZE, "1M", 1_000_000),
        (WORD, "JSON", "json"),
        (values.host, "127.0.0.1", "127.0.0.1"),
        (values.host, "[::1]", "::1"),
        (values.host, "box-1.example", "box-1.example"),
        (values.optional_host, "", ""),
        (values.domain, "Agents.Example.", "agents.example"),
        (values.host_pattern, "*.Example.com", "*.example.com"),
        (values.host_pattern, "*", "*"),
        (values.host_pattern, "box", "box"),
        (values.origin, "https://App.example.com/", "https://app.example.com"),
        (values.origin, "chrome-extension://abc", "chrome-extension://abc"),
        (values.origin, "null", "null"),
        (values.host_port, 5432, "5432"),
        (values.host_port, "5432", "5432"),
        (values.host_port, "*", "*"),
        (values.network, "agentainer-network", "agentainer-network"),
        (values.folder, "/a/../b", "/b"),
        (values.folder, "", ""),
        (values.program, "valkey-server", "valkey-server"),
        (values.program, "/usr/bin/redis-server", "/usr/bin/redis-server"),
        (REDIS_URL, "redis://:pass@host:6380/2", "redis://:pass@host:6380/2"),
        (REDIS_URL, "unix:///run/redis.sock", "unix:///run/redis.sock"),
        (REDIS_URL, "", ""),
        (ROOTS, ["/srv/a/", "/srv/b"], ("/srv/a", "/srv/b")),
        (ROOTS, "/srv/a, /srv/b", ("/srv/a", "/srv/b")),
        (ROOTS, "", ()),
        (PROXIES, ["10.0.0.0/8", "::1"], ("10.0.0.0/8", "::1/128")),
        (values.token, "agt_0aZ~", "agt_0aZ~"),
        (values.secret, "any thing é", "any thing é"),
    ],
)
def test_a_right_value_is_taken(parse, given, wanted):
    assert parse(given) == wanted
    assert type(parse(given)) is type(wanted)


@pytest.mark.parametrize(
    ("parse", "given", "reason"),
    [
        (values.text, 12, "12 is not text: put it in quotes"),
        (values.text, "a\nb", "has a control character"),
        (values.boolean, "yes", "'yes' is neither true nor false"),
        (values.boolean, 1, "1 is neither true nor false"),
        (PORT, "http", "'http' is not a whole number from 0 to 65535"),
        (PORT, 65536, "65536 is not a whole number"),
        (PORT, -1, "-1 is not a whole number"),
        (PORT, True, "true is not a whole number"),
        (PORT, 80.0, "80.0 is not a whole number"),
        (PORT, [80], "[80] is not a whole number"),
        (SPAN, "1:30", "'1:30' is not a time from 0 to 3600 seconds: write 90, 30s or 24h"),
        (SPAN, 3601, "3601 is not a time"),
        (SPAN, float("nan"), "nan is not a time"),
        (SPAN, False, "false is not a time"),
        (SIZE, "big", "'big' is not a size"),
        (SIZE, 10, "10 is not a size"),
        (SIZE, None, "nothing is not a size"),
        (WORD, "xml", "'xml' is not one of text, json"),
        (values.host, "127.0.0.1:8081", "is not an IP address or a host name (the port has a key of its own)"),
        (values.host, "", "is not an IP address"),
        (values.host, "a b", "is not an IP address"),
        (values.domain, "127.0.0.1", "is not a domain name"),
        (
            values.host_pattern,
            "example.com:443",
            "is not a host name: write example.com, *.example.com or *, without a port",
        ),
        (values.host_pattern, "*.*.com", "is not a host name"),
        (values.host_pattern, "https://example.com", "is not a host name"),
        (values.host_port, 0, "is not a whole number from 1 to 65535"),
        (values.host_port, "5432; reboot", "is not a whole number from 1 to 65535"),
        (values.origin, "app.example.com", "is not an origin: write https://app.example.com, null or *"),
        (values.origin, "https://app.example.com/path", "is not an origin"),
        (values.network, "-x", "is not a network name"),
        (values.some_folder, "", "is empty: name a folder"),
        (REDIS_URL, "http://host", "is not a URL of the form redis://..., rediss://..., unix://..."),
        (REDIS_URL, "redis://host:port", "is not a URL"),
        (REDIS_URL, "redis://", "is not a URL"),
        (ROOTS, ["srv"], "'srv' is not an absolute path"),
        (ROOTS, 3, "3 is not a list: write [one, two]"),
        (PROXIES, ["10.0.0.1/8"], "'10.0.0.1/8' is not an IP address or network"),
        (values.token, "two words", "is not a token"),
        (values.token, 123, "is not a token"),
        (values.secret, 123, "is not text: put it in quotes"),
    ],
)
def test_a_wrong_value_is_refused_with_what_would_be_right(parse, given, reason):
    with pytest.raises(ValueError) as failure:  # noqa: PT011 - the text is checked below
        parse(given)

    assert reason in str(failure.value)


def test_messages_show_neither_passwords_nor_long_values():
    with pytest.raises(ValueError, match="cannot|not") as failure:
        REDIS_URL("http://user:hunter2@host/")
    assert "hunter2" not in str(failure.value)

    with pytest.raises(ValueError, match="cannot|not") as failure:
        values.token("hunter 2")
    assert "hunter" not in str(failure.value)

    assert len(values.shown("x" * 1000)) == 80


def test_a_relative_folder_is_taken_from_here_and_a_tilde_from_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")

    assert values.folder("data") == os.path.join(os.getcwd(), "data")
    assert values.folder("~/data") == "/home/ada/data"


@pytest.mark.parametrize(
    ("host", "wanted"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),
     ("192.168.1.2", False), ("::", False), ("example.org", False)],
)  # fmt: skip
def test_loopback_is_certain_or_not_at_all(host, wanted):
    assert values.is_loopback(host) is wanted
