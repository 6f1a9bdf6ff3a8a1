"""Reading the audit log: pages backwards over its files, and the check of all of it."""

import os
import time

import gevent
import pytest

from agentainerd.errors import InvalidParameter
from agentainerd.model.audit import AuditFilter
from tests.unit.store.test_audit import EVERYTHING, actions, check, draft, file, opened

__all__ = ["file", "opened"]


def test_pages_go_backwards_over_files_and_end(opened):
    file = opened(3000)
    for number in range(60):
        file.append([draft(f"a{number}", resource="even" if number % 2 == 0 else "odd")])

    cursor, pages = "", []
    while True:
        with file.view() as view:
            found, cursor = view.page(AuditFilter(resource="even"), 7, cursor)
        pages.append([entry.action for entry in found])
        if not cursor:
            break

    assert [action for page in pages for action in page] == [f"a{number}" for number in range(58, -1, -2)]
    assert all(len(page) == 7 for page in pages[:-1])


def test_pages_stay_in_place_while_entries_are_added_and_files_turn(opened):
    file = opened(3000)
    for number in range(20):
        file.append([draft(f"a{number}")])
    with file.view() as view:
        first, cursor = view.page(EVERYTHING, 5, "")
    for number in range(20, 40):
        file.append([draft(f"a{number}")])

    with file.view() as view:
        second, _ = view.page(EVERYTHING, 5, cursor)

    assert [entry.seq for entry in [*first, *second]] == list(range(20, 10, -1))


def test_many_entries_in_one_file_are_all_found(file):
    file.append([draft(f"a{number}", resource="x" * (number % 250)) for number in range(3000)])

    assert actions(file, 5000) == [f"a{number}" for number in range(3000)]


def test_what_is_too_old_is_not_read(opened, monkeypatch):
    file = opened()
    file.append([draft("old", time="2026-01-01T00:00:00.000Z") for _ in range(3000)])
    file.append([draft("new", time="2026-02-01T00:00:00.000Z") for _ in range(10)])
    read = []
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda *given: read.append(given) or real(*given))

    with file.view() as view:
        found, cursor = view.page(AuditFilter(since="2026-01-15T00:00:00.000Z"), 100, "")

    assert (len(found), cursor) == (10, "")
    assert len(read) <= 3


@pytest.mark.parametrize("cursor", ["x", "1", "99.1", "-1.2", "1.2.3", "999999999999.0"])
def test_a_cursor_that_is_none_is_refused(file, cursor):
    file.append([draft()])

    with file.view() as view, pytest.raises(InvalidParameter):
        view.page(EVERYTHING, 10, cursor)


def test_a_cursor_from_elsewhere_gives_entries_or_none(file):
    file.append([draft() for _ in range(5)])

    for offset in (0, 1, 100, 10**9):
        with file.view() as view:
            assert len(view.page(EVERYTHING, 10, f"1.{offset}")[0]) <= 5


def test_a_view_leaves_no_file_open(opened):
    file = opened(1000)
    for _ in range(20):
        file.append([draft()])
    check(file)
    before = len(os.listdir("/proc/self/fd"))

    check(file)
    actions(file)

    assert len(os.listdir("/proc/self/fd")) == before


def test_a_check_of_a_large_log_lets_greenlets_run(file):
    file.append([draft(resource="x" * 200) for _ in range(20_000)])
    turns = []

    def turn():
        while True:
            turns.append(1)
            gevent.sleep(0.001)  # a loop that never waits would leave the pool's threads nearly nothing of the GIL

    other = gevent.spawn(turn)
    try:
        assert check(file).entries == 20_000
    finally:
        other.kill()

    assert len(turns) > 20


def test_a_line_without_an_end_is_one_fault_and_takes_no_time_that_grows_with_its_square(file, tmp_path):
    file.append([draft("one")])
    with (tmp_path / "audit.log").open("ab") as log:
        log.write(b"x" * 20_000_000 + b"\n")
    began = time.monotonic()

    found = check(file)

    assert [(fault.line, fault.reason) for fault in found.faults] == [(2, "this line is no entry")]
    assert time.monotonic() - began < 5
