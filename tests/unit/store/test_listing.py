"""Pages while the list changes under them."""

import time

import pytest

from agentainerd.errors import InvalidParameter
from agentainerd.model.requests import RequestState
from agentainerd.store.listing import Listing
from tests.fakes.stores import AGENT, ANSWERED, INTERRUPTED

pytestmark = pytest.mark.redis


@pytest.fixture
def listing(store):
    return Listing(store.client)


def ids(page):
    return [summary.id for summary in page]


def test_what_is_removed_between_two_pages_hides_nothing_else(store, listing):
    records = [store.accept() for _ in range(10)]
    page, cursor = listing.page(AGENT, RequestState.PENDING, 4, "")
    for record in records[2:5]:
        store.requests.cancel(AGENT, record.id)

    rest, end = listing.page(AGENT, RequestState.PENDING, 100, cursor)

    assert ids(page) == [record.id for record in records[:4]]
    assert ids(rest) == [record.id for record in records[5:]]
    assert end is None


def test_what_is_added_between_two_pages_is_shown_once(store, listing):
    records = [store.accept() for _ in range(4)]
    page, cursor = listing.page(AGENT, RequestState.PENDING, 2, "")
    records.append(store.accept())

    rest, _ = listing.page(AGENT, RequestState.PENDING, 100, cursor)

    assert ids(page) + ids(rest) == [record.id for record in records]


def test_those_of_the_same_time_are_all_shown(store, listing):
    for _ in range(30):
        store.accept()
    store.requests.purge(AGENT, state=RequestState.PENDING)

    shown, cursor = [], ""
    while cursor is not None:
        page, cursor = listing.page(AGENT, RequestState.FAILED, 7, cursor)
        shown += ids(page)

    assert len(shown) == len(set(shown)) == 30


def test_whole_list_goes_through_all_states_in_their_order(store, listing):
    done, dead, waiting = (store.accept() for _ in range(3))
    claimed = {record.id: record for record in store.claim()}
    store.journal.settle(claimed[done.id], ANSWERED)
    store.journal.settle(claimed[dead.id], INTERRUPTED)
    store.journal.retry(claimed[waiting.id], due_at=time.time() + 60, error="busy")
    live, queued = store.begin(), store.accept()
    store.flush()
    expected = [live.id, queued.id, waiting.id, dead.id, done.id]

    assert ids(listing.page(AGENT, None, 100, "")[0]) == expected
    shown, cursor = [], ""
    while cursor is not None:
        page, cursor = listing.page(AGENT, None, 1, cursor)
        shown += ids(page)
    assert shown == expected


@pytest.mark.parametrize("cursor", ["q", "q:", "zz:1", "q:inf,x"])
def test_cursor_that_is_none_of_ours_is_refused(listing, cursor):
    with pytest.raises(InvalidParameter):
        listing.page(AGENT, RequestState.PENDING, 10, cursor)
