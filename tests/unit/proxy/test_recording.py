"""A record is ended once, however its exchange ends."""

import pytest

from agentainerd.errors import Unavailable
from agentainerd.model.requests import Reason, Record
from agentainerd.proxy.recording import Recording
from agentainerd.proxy.request import Request
from tests.fakes.journals import MemoryJournal


@pytest.fixture
def journal():
    return MemoryJournal()


@pytest.fixture
def request_():
    request = Request()
    request.done = True
    return request


@pytest.fixture
def recording(journal, request_):
    record = Record("id", "agent-1", head=b"", method=b"GET", target=b"/", received_at=0, expires_at=1)
    return Recording(journal, record, request_, lambda: None)


def test_what_was_never_begun_leaves_no_record(recording, journal):
    recording.fail(Reason.INTERRUPTED, "left")

    assert not journal.settled


def test_what_was_begun_is_settled_once(recording, journal, request_):
    recording.begin()
    assert recording.is_durable
    recording.complete(200)
    journal.settled.clear()

    recording.fail(Reason.INTERRUPTED, "left")

    assert not journal.settled


def test_what_was_accepted_is_not_failed_afterwards(recording, journal, request_):
    recording.begin()
    recording.accept()

    recording.fail(Reason.INTERRUPTED, "left")

    assert list(journal.pending) == ["id"]
    assert not journal.settled


def test_an_absent_journal_is_told(recording, journal, request_):
    journal.available = False

    recording.begin()

    assert not recording.is_durable
    with pytest.raises(Unavailable):
        recording.accept()
