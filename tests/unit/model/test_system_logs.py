import pytest

from agentainerd.model.system_logs import Entry, Level, LogFilter, stamp

ENTRY = Entry("2026-11-20T10:00:00.000001Z", "warning", "store.journal")


@pytest.mark.parametrize(
    ("wanted", "is_wanted"),
    [
        (LogFilter(), True),
        (LogFilter(Level.WARNING), True),
        (LogFilter(Level.ERROR), False),
        (LogFilter(components=("store",)), True),
        (LogFilter(components=("proxy", "store.journal")), True),
        (LogFilter(components=("sto", "store.journal.x", "journal")), False),
        (LogFilter(since="2026-11-20T10:00:00.000001Z"), True),
        (LogFilter(since="2026-11-20T10:00:00.000002Z"), False),
    ],
)
def test_a_filter(wanted, is_wanted):
    assert wanted.matches(ENTRY) is is_wanted


def test_a_level_that_nobody_knows_is_the_least():
    assert not LogFilter(Level.INFO).matches(Entry(ENTRY.time, "level 5", "x"))
    assert LogFilter(Level.DEBUG).matches(Entry(ENTRY.time, "level 5", "x"))


def test_a_stamp_has_microseconds():
    assert stamp(0.5) == "1970-01-01T00:00:00.500000Z"
