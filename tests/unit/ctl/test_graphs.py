"""Graphs of one line."""

import time

from agentainerctl import graphs


def test_points_fall_into_equal_spans_and_gaps_stay():
    points = [(0.0, 2.0), (4.9, 4.0), (10.0, 7.0), (19.9, 1.0), (25.0, 9.0), (-1.0, 9.0)]

    assert graphs.columns(points, 0.0, 20.0, 4) == [3.0, None, 7.0, 1.0]


def test_the_highest_value_is_a_full_block_and_0_the_lowest():
    assert graphs.line([0.0, 50.0, 100.0, None]) == "▁▅█ "
    assert graphs.line([0.0, 50.0, 100.0, None], graphs.PLAIN_BLOCKS) == "_+# "
    assert graphs.line([0.0, None]) == "▁ "
    assert graphs.line([]) == ""


def test_the_axis_is_as_wide_as_the_graph(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()

    wide = graphs.axis(0.0, 7200.0, 40)

    assert wide.split() == ["00:00", "01:00", "02:00"]
    assert len(wide) == 40
    assert graphs.axis(0.0, 7200.0, 12).split() == ["00:00", "02:00"]


def test_a_terminal_without_blocks_gets_plain_ones(monkeypatch):
    class Stream:
        encoding = "ascii"

    monkeypatch.setattr("sys.stdout", Stream())

    assert graphs.blocks() == graphs.PLAIN_BLOCKS
