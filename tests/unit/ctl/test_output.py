"""Ages, widths, escapes: the small things of which the output is made."""

import pytest

from agentainerctl.output import age, display_width, epoch, plain, strip_ansi
from agentainerctl.progress import bar

NOW = 1_795_168_802.0  # 2026-11-20T10:00:02Z


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-11-20T10:00:02Z", "just now"),
        ("2026-11-20T10:00:01.000Z", "1 second ago"),
        ("2026-11-20T09:56:59.123456789Z", "3 minutes ago"),
        ("2026-11-20T10:00:00+02:00", "2 hours ago"),
        ("2026-11-15T10:00:00Z", "5 days ago"),
        ("2026-11-20T10:10:02Z", "in 10 minutes"),
        ("2026-11-20T10:00:02.5Z", "just now"),
        (NOW - 90, "1 minute ago"),
        (None, ""),
        ("", ""),
        ("garbage", ""),
        (0, ""),
    ],
)
def test_age(moment, expected):
    assert age(moment, NOW) == expected


def test_epoch_knows_nothing_of_what_is_no_time():
    assert epoch("2026-13-45") == 0.0
    assert epoch({}) == 0.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ünï 東京", "plain ünï 東京"),
        ("\x1b[31m\x00\x7f", r"\x1b[31m\x00\x7f"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\u202e\u2066", r"\u202e\u2066"),
        ("\udcff", r"\udcff"),
        (5, "5"),
    ],
)
def test_plain(text, expected):
    assert plain(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("10%\r100%\r\n", "100%"),
        ("a\tb", "a   b"),
        ("broken \x1b[", r"broken \x1b["),
        ("bell\x07", r"bell\x07"),
    ],
)
def test_strip_ansi(text, expected):
    assert strip_ansi(text) == expected


@pytest.mark.parametrize(("text", "width"), [("", 0), ("abc", 3), ("東京", 4), ("e\u0301", 1), ("ünï", 3)])
def test_display_width(text, width):
    assert display_width(text) == width


@pytest.mark.parametrize(
    ("current", "total", "expected"),
    [(0, 10, "[    ]"), (5, 10, "[==  ]"), (10, 10, "[====]"), (20, 10, "[====]"), (5, 0, "")],
)
def test_bar(current, total, expected):
    assert bar(current, total, width=4) == expected
