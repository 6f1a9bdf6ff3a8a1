"""What the data plane relies on, held against every journal: Redis, Valkey, and none."""

import time
import uuid

import pytest

from agentainerd.errors import TooManyRequests, Unavailable
from agentainerd.model.requests import Outcome, Reason, Record, RequestState
from agentainerd.proxy.journal import Journal, KeyVerdict, NullJournal
from tests.fakes.redis import RedisProcess
from tests.fakes.stores import Store

pytestmark = pytest.mark.redis
COMPLETED = Outcome(RequestState.COMPLETED, Reason.ANSWERED, status=200)
FAILED = Outcome(RequestState.FAILED, Reason.INTERRUPTED, error="the client left")


@pytest.fixture(params=["null", "redis", "valkey"])
def journal(request, redis_folder):
    if request.param == "null":
        yield NullJournal()
        return
    server = RedisProcess(redis_folder / "redis", kind=request.param).start()
    store = Store(server, redis_folder)
    yield store.journal
    store.close()
    server.stop()


def record(**options):
    now = time.time()
    return Record(
        str(uuid.uuid4()),
        "agent-1",
        head=b"POST / HTTP/1.1\r\n",
        method=b"POST",
        target=b"/agent/x/",
        received_at=now,
        expires_at=now + 60,
        **options,
    )


def test_it_keeps_the_protocol(journal):
    typed: Journal = journal
    assert typed.available is True


def test_begun_record_is_durable_after_the_wait(journal):
    write = journal.begin(record())

    write.wait()

    assert write.done
    write.wait()


def test_settling_never_raises_whatever_was_recorded(journal):
    begun, unknown, reserved = record(), record(), record()
    journal.begin(begun)
    journal.reserve(reserved)

    for one in (begun, unknown, reserved):
        journal.settle(one, COMPLETED)
        journal.settle(one, FAILED)


def test_request_without_a_key_is_always_new(journal):
    one = record()

    known = journal.reserve(one)

    assert (known.verdict, known.request_id, known.response) == (KeyVerdict.NEW, one.id, None)


def test_accept_returns_or_raises_and_never_both(journal):
    accepted = []
    for one in (record(), record(max_pending=1)):
        try:
            journal.accept(one)
            accepted.append(one)
        except TooManyRequests as error:
            assert error.code == "QUEUE_FULL"
            assert error.retry_after_s
        except Unavailable as error:
            assert error.code == "PERSISTENCE_OFF"

    assert len(accepted) in (0, 1)


def test_spool_takes_a_body_or_says_why_not(journal):
    try:
        writer = journal.spool(str(uuid.uuid4()))
    except Unavailable as error:
        assert error.code == "PERSISTENCE_OFF"
        return
    writer.write(b"abc")
    assert b"".join(writer.pieces()) == b"abc"
    assert writer.seal() == writer.seal()
    writer.discard()
    writer.discard()
