"""The journal that is none. The contract of both is tests/contract/test_journal.py."""

import pytest

from agentainerd.errors import Unavailable
from agentainerd.model.requests import Record
from agentainerd.proxy.journal import KeyVerdict, NullJournal


def test_it_records_nothing_and_promises_nothing():
    journal = NullJournal()
    record = Record("id", "agent-1", head=b"", method=b"GET", target=b"/", received_at=0, expires_at=1)

    assert journal.begin(record).done
    journal.begin(record).wait()
    assert journal.reserve(record).verdict is KeyVerdict.NEW
    for promise in (lambda: journal.accept(record), lambda: journal.spool("id")):
        with pytest.raises(Unavailable) as refused:
            promise()
        assert refused.value.code == "PERSISTENCE_OFF"
