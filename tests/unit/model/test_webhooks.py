import base64
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from agentainerd.errors import InvalidParameter
from agentainerd.model.webhooks import (
    MAX_ATTEMPTS,
    RETRY_AFTER_S,
    AddressRule,
    check,
    headers,
    key_of,
    new_secret,
    pause_s,
    receiver,
)

SECRET = new_secret()


def test_the_signature_is_what_the_reference_library_takes_and_makes():
    body = '{"type":"job.completed","ключ":"\\n"}'.encode()
    now = time.time()

    fields = headers(SECRET, "msg_1", body, now)

    assert Webhook(SECRET).verify(body, fields) == {"type": "job.completed", "ключ": "\n"}
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body + b" ", fields)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body, fields | {"webhook-id": "msg_2"})
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(body, fields)
    assert fields["webhook-timestamp"] == str(int(now))


@pytest.mark.parametrize("size", [24, 25, 32, 64])
def test_a_secret_is_whsec_and_base64(size):
    key = bytes(range(size))
    text = "whsec_" + base64.b64encode(key).decode()

    assert key_of(text) == key_of(text.rstrip("=")) == key


@pytest.mark.parametrize(
    "secret",
    ["whsec_", "whsec_abc", base64.b64encode(bytes(32)).decode(), "whsec_" + "ä" * 40, "whsec_" + "A" * 23, "whsec_" + "A" * 200,
     "whsec_" + "A" * 31 + "%"],
)  # fmt: skip
def test_what_is_no_secret_is_refused_without_being_shown(secret):
    with pytest.raises(InvalidParameter, match=r"webhook\.secret") as failure:
        check("https://example.com", secret)

    assert secret == "whsec_" or secret not in failure.value.message


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook",
        "http://127.0.0.1:9000",
        "https://[::1]:1/x?y=z",
        "http://xn--bcher-kva.example/",
        "HTTPS://A.B/",
    ],
)
def test_urls_of_http_and_https_are_taken(url):
    check(url, "")


@pytest.mark.parametrize(
    "url",
    ["", "example.com", "ftp://example.com/", "file:///etc/passwd", "https://", "https:///x", "http://a b/", "http://a/\r\nX: y",
     "http://bücher.example/", "http://a:99999/", "http://a:0/", "http://[::1/", "https://me:secret@example.com/", "http://a/" + "x" * 2048],
)  # fmt: skip
def test_other_urls_are_not(url):
    with pytest.raises(InvalidParameter, match=r"webhook\.url") as failure:
        check(url, "")

    assert "secret" not in failure.value.message


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://Example.com/a", "example.com:443"),
        ("http://example.com", "example.com:80"),
        ("http://[::1]:9/", "::1:9"),
    ],
)
def test_a_receiver_is_a_host_and_a_port(url, place):
    assert receiver(url) == place


def test_ten_attempts_take_about_a_day_each_later_than_the_one_before():
    assert MAX_ATTEMPTS == 10
    assert list(RETRY_AFTER_S) == sorted(RETRY_AFTER_S)
    assert 20 * 3600 < sum(pause_s(attempt, 0.0, 0.5) for attempt in range(1, MAX_ATTEMPTS)) < 28 * 3600
    assert (pause_s(1, 0.0, 0.0), pause_s(1, 0.0, 1.0)) == (4.0, 6.0)


def test_who_asks_for_more_time_gets_it_but_not_for_ever():
    assert pause_s(1, 90.0, 0.5) == 90.0
    assert pause_s(3, 90.0, 0.5) == 300.0
    assert pause_s(1, 1e12, 0.5) == 86400.0


def rule(*words: str) -> AddressRule:
    return AddressRule(words, metadata=("169.254.0.0/16", "fe80::/10"), agents=("172.20.0.0/16",), own_port=8081)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("169.254.169.254", "is in 169.254.0.0/16 (jobs.webhook_refuse: metadata)"),
        ("::ffff:169.254.169.254", "is in 169.254.0.0/16 (jobs.webhook_refuse: metadata)"),
        ("64:ff9b::a9fe:a9fe", "is in 169.254.0.0/16 (jobs.webhook_refuse: metadata)"),
        ("2002:a9fe:a9fe::1", "is in 169.254.0.0/16 (jobs.webhook_refuse: metadata)"),
        ("fe80::1%eth0", "is in fe80::/10 (jobs.webhook_refuse: metadata)"),
        ("172.20.0.1", "is in 172.20.0.0/16 (jobs.webhook_refuse: agents)"),
        ("192.0.2.7", "is in 192.0.2.0/24 (jobs.webhook_refuse: 192.0.2.0/24)"),
        ("0.0.0.0", "is in 0.0.0.0/8, where nobody is"),
        ("::", "is in ::/128, where nobody is"),
        ("255.255.255.255", "is in 224.0.0.0/3, where nobody is"),
        ("ff02::1", "is in ff00::/8, where nobody is"),
    ],
)
def test_addresses_are_refused_in_whatever_form_they_come(address, why):
    assert rule("metadata", "agents", "192.0.2.0/24").refusal(address, 80, "/") == f"{address} {why}"


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "8.8.8.8", "2001:db8::1", "172.21.0.1"]
)
def test_other_addresses_are_not(address):
    assert rule("metadata", "agents").refusal(address, 80, "/") == ""


@pytest.mark.parametrize(
    ("word", "address"),
    [("loopback", "127.9.9.9"), ("loopback", "::1"), ("private", "10.1.1.1"), ("private", "fd00::1")],
)
def test_more_can_be_refused_by_name(word, address):
    assert rule(word).refusal(address, 80, "/").endswith(f"(jobs.webhook_refuse: {word})")


def test_the_daemon_is_no_receiver_of_its_own_but_its_agents_are():
    for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert rule().refusal(address, 8081, "/api/v1/jobs") == f"{address}:8081 is the daemon itself"
        assert rule().refusal(address, 8081, "/agent/web/hook") == ""
        assert rule().refusal(address, 8082, "/api/v1/jobs") == ""
