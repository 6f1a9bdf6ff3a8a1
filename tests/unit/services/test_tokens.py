"""The control token, tickets, and how often one may be wrong."""

import hashlib
import hmac
import os
import random
import re
import statistics
import time

import pytest

from agentainerd import defaults
from agentainerd.errors import Conflict, InvalidParameter, TooManyRequests, Unauthorized, Unavailable
from agentainerd.model.tokens import new_secret
from agentainerd.proxy.routing import RouteTable
from agentainerd.services import tokens as module
from agentainerd.services.audit import Actor, AuditService
from agentainerd.services.named_tokens import NamedTokenService
from agentainerd.services.tokens import FAILURE_WINDOW_S, MAX_FAILURES, MAX_SOURCES, Failures, TokenService
from agentainerd.store.audit import AuditFile
from agentainerd.store.connection import RedisClient
from agentainerd.store.tokens import TokenStore
from agentainerd.supervisor import Supervisor

ADMIN = Actor("unix:0(root)/pid 1", "unix")
TIMING_SAMPLES = int(os.environ.get("TIMING_SAMPLES", "0"))


def audit_of(folder) -> AuditService:
    return AuditService(AuditFile(str(folder), max_file_bytes=1 << 20), Supervisor().spawn)


def none(audit: AuditService) -> NamedTokenService:
    """No named tokens; the store is never asked."""
    return NamedTokenService(TokenStore(RedisClient("unix:///nowhere")), audit)


@pytest.fixture
def make(tmp_path):
    audits = []

    def build(configured: str = "") -> TokenService:
        audits.append(audit_of(tmp_path))
        service = TokenService(str(tmp_path), configured, RouteTable(), audits[-1], named=none(audits[-1]))
        service.open()
        return service

    yield build
    for audit in audits:
        audit.close()


@pytest.fixture
def tokens(make):
    return make()


def kept(folder) -> str:
    return (folder / "token").read_text().strip()


def test_a_token_is_made_once_long_and_closed_to_others(make, tmp_path):
    make()
    made = kept(tmp_path)

    assert re.fullmatch(r"agt_[0-9A-Za-z]{43}", made)
    assert oct((tmp_path / "token").stat().st_mode & 0o777) == "0o600"
    assert make().show(ADMIN) == made


def test_a_file_that_others_could_read_is_not_believed(make, tmp_path, caplog):
    make()
    leaked = kept(tmp_path)
    (tmp_path / "token").chmod(0o644)

    again = make()

    assert again.show(ADMIN) != leaked
    assert "could be read by others" in caplog.text
    assert leaked not in caplog.text
    with pytest.raises(Unauthorized):
        again.verify(leaked, "192.0.2.1")


def test_a_link_in_the_tokens_place_is_not_followed(make, tmp_path):
    (tmp_path / "elsewhere").write_text("agt_chosen-by-somebody")
    (tmp_path / "token").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(Unavailable):
        make()
    assert (tmp_path / "elsewhere").read_text() == "agt_chosen-by-somebody"


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    service = TokenService(str(tmp_path / "none"), "", RouteTable(), audit_of(tmp_path), named=none(audit_of(tmp_path)))

    with pytest.raises(Unavailable, match="cannot keep the control token"):
        service.open()


def test_the_token_of_the_configuration_is_used_and_not_replaced(make):
    tokens = make("from-the-configuration")

    tokens.verify("from-the-configuration", "192.0.2.1")
    assert tokens.is_configured
    with pytest.raises(Conflict) as failure:
        tokens.rotate(ADMIN)
    assert failure.value.code == "TOKEN_CONFIGURED"


def test_after_a_rotation_the_old_token_is_refused_at_once(tokens, tmp_path):
    old = tokens.show(ADMIN)

    new = tokens.rotate(ADMIN)

    assert new == kept(tmp_path) != old
    tokens.verify(new, "192.0.2.1")
    with pytest.raises(Unauthorized):
        tokens.verify(old, "192.0.2.1")


def test_a_rotation_that_cannot_be_written_changes_nothing(tokens, tmp_path, monkeypatch):
    old = tokens.show(ADMIN)
    monkeypatch.setattr(module.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))

    with pytest.raises(Unavailable, match="No space left"):
        tokens.rotate(ADMIN)

    tokens.verify(old, "192.0.2.1")
    assert kept(tmp_path) == old
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com"])
def test_the_token_that_everybody_knows_is_refused_beyond_loopback(make, host):
    with pytest.raises(InvalidParameter) as failure:
        make(defaults.SEED_TOKEN).check(host)
    assert failure.value.code == "DEFAULT_TOKEN_REFUSED"

    make("another").check(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_on_loopback_it_is_taken(make, host):
    make(defaults.SEED_TOKEN).check(host)


@pytest.mark.parametrize("given", ["", " ", "\0", "x" * 8192, "\udcff", "ünïcode", "agt_" + "0" * 43])
def test_what_is_not_the_token_is_refused_and_not_repeated(tokens, given):
    with pytest.raises(Unauthorized) as failure:
        tokens.verify(given, "192.0.2.1")

    assert failure.value.code == "UNAUTHORIZED"
    assert len(given) < 2 or given not in str(failure.value)


def test_parts_of_the_token_are_refused(tokens):
    token = tokens.show(ADMIN)
    for given in (token[:-1], token + "x", token.upper(), token[4:], token + "\n", " " + token):
        with pytest.raises((Unauthorized, TooManyRequests)):
            tokens.verify(given, "192.0.2.1")


def test_only_digests_are_compared_and_in_constant_time(tokens, monkeypatch):
    """What is compared has nothing to do with how much of a guess was right; hmac.compare_digest looks at every byte."""
    token = tokens.show(ADMIN)
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(
        module.hmac, "compare_digest", lambda one, other: compared.append((one, other)) or real(one, other)
    )

    tokens.verify(token, "192.0.2.1")
    with pytest.raises(Unauthorized):
        tokens.verify("nope", "192.0.2.1")

    right, wrong = hashlib.sha256(token.encode()).digest(), hashlib.sha256(b"nope").digest()
    assert compared == [(right, right), (wrong, right)]


@pytest.mark.skipif(not TIMING_SAMPLES, reason="TIMING_SAMPLES=10000 (make soak) measures it")
@pytest.mark.timeout(0)
def test_time_does_not_tell_how_much_of_a_guess_was_right(tokens, monkeypatch):
    """Two kinds of wrong guesses in a random order: their times must not be told apart (rank sum, as area under the curve)."""
    token = tokens.show(ADMIN)
    monkeypatch.setattr(tokens, "_count_failure", lambda source: None)
    monkeypatch.setattr(tokens._audit, "refuse", lambda *_, **__: None)
    right = {"prefix": 46, "random": 4}
    guesses = [
        (kind, token[:known] + new_secret()[: 47 - known])
        for kind, known in right.items()
        for _ in range(TIMING_SAMPLES)
    ]
    random.Random(1).shuffle(guesses)
    taken: dict[str, list[int]] = {kind: [] for kind in right}
    for kind, given in guesses:
        began = time.perf_counter_ns()
        try:
            tokens.verify(given, "192.0.2.1")
        except Unauthorized:
            ended = time.perf_counter_ns()
            taken[kind].append(ended - began)

    ranked = sorted((value, kind) for kind, values in taken.items() for value in values)
    count, others = len(taken["prefix"]), len(taken["random"])
    ranks = sum(rank for rank, (_, kind) in enumerate(ranked, 1) if kind == "prefix")
    area = (ranks - count * (count + 1) / 2) / (count * others)
    medians = {kind: statistics.median(values) for kind, values in taken.items()}
    print(f"area under the curve {area:.4f}, medians {medians} ns, {count} samples each")
    assert abs(area - 0.5) < 0.03


def test_a_source_is_slowed_down_and_the_right_token_is_never(tokens):
    token = tokens.show(ADMIN)
    for _ in range(MAX_FAILURES):
        with pytest.raises(Unauthorized):
            tokens.verify("wrong", "192.0.2.1")

    for _ in range(50):
        with pytest.raises(TooManyRequests) as failure:
            tokens.verify("wrong", "192.0.2.1")
        assert 0 < failure.value.retry_after_s <= FAILURE_WINDOW_S
        tokens.verify(token, "192.0.2.1")
    with pytest.raises(Unauthorized):
        tokens.verify("wrong", "192.0.2.2")


def test_no_token_at_all_is_no_guess(tokens):
    for _ in range(3 * MAX_FAILURES):
        with pytest.raises(Unauthorized):
            tokens.verify("", "192.0.2.1")


def test_failures_are_forgotten_after_their_minute():
    failures = Failures()
    for _ in range(MAX_FAILURES + 5):
        failures.add("192.0.2.1", 100.0)
    assert failures.add("192.0.2.1", 100.0 + FAILURE_WINDOW_S - 1) == 1

    assert failures.add("192.0.2.1", 100.0 + FAILURE_WINDOW_S) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("unknown", "unknown", True),
    ],
)
def test_a_source_is_an_address_or_an_ipv6_network_of_64_bits(one, other, same):
    failures = Failures()
    for _ in range(MAX_FAILURES):
        failures.add(one, 0.0)

    assert bool(failures.add(other, 0.0)) is same


def test_the_memory_of_failures_is_bounded_and_keeps_the_busiest():
    failures = Failures()
    for _ in range(MAX_FAILURES):
        failures.add("192.0.2.1", 0.0)
    for number in range(MAX_SOURCES - 1):
        failures.add(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0.0)
    assert len(failures._windows) == MAX_SOURCES
    assert failures.add("192.0.2.1", 0.0)  # moves to the end: it is not the one that has been quiet for longest

    failures.add("198.51.100.1", 0.0)

    assert len(failures._windows) == MAX_SOURCES
    assert failures.add("192.0.2.1", 0.0)


def test_a_ticket_is_for_one_request_and_survives_a_restart(make):
    ticket = make().ticket("id-1")

    again = make()

    assert len(ticket) == 22
    assert again.is_ticket(ticket, "id-1", "192.0.2.1")
    assert not again.is_ticket(ticket, "id-2", "192.0.2.1")
    assert not again.is_ticket(ticket[:-1], "id-1", "192.0.2.1")
    assert not again.is_ticket("", "id-1", "192.0.2.1")
    assert not again.is_ticket("é" * 22, "id-1", "192.0.2.1")


def test_guessing_tickets_is_audited_and_slowed_down_and_the_right_one_is_not(tokens, tmp_path, eventually):
    right = tokens.ticket("id-1")
    with pytest.raises(TooManyRequests):
        for _ in range(MAX_FAILURES + 1):
            tokens.is_ticket("x" * 22, "id-1", "192.0.2.1")

    assert tokens.is_ticket(right, "id-1", "192.0.2.1")
    log = tmp_path / "audit.log"
    eventually(lambda: log.exists() and "use_ticket" in log.read_text())
    assert right not in (tmp_path / "audit.log").read_text()


def test_tickets_of_another_installation_do_not_open(make, tmp_path):
    ticket = make().ticket("id-1")
    (tmp_path / "ticket.key").unlink()

    assert make().ticket("id-1") != ticket


def test_logins_and_tokens_shown_are_in_the_audit_log_and_no_token_is(tokens, tmp_path, eventually):
    token = tokens.show(ADMIN)
    new = tokens.rotate(ADMIN)
    with pytest.raises(Unauthorized):
        tokens.verify("guess-of-somebody", "192.0.2.1")

    eventually(lambda: "log_in" in (tmp_path / "audit.log").read_text())
    said = (tmp_path / "audit.log").read_text()
    assert all(action in said for action in ("show_token", "rotate_token", "log_in"))
    assert not any(secret in said for secret in (token, new, "guess-of-somebody"))
