"""Text to numbers and back."""

import pytest

from agentainerd.errors import InvalidParameter
from agentainerd.units import format_duration, format_size, parse_cpu, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512),
        ("512b", 512),
        ("512M", 512_000_000),
        ("512MB", 512_000_000),
        ("512mi", 536_870_912),
        ("512MiB", 536_870_912),
        ("1.5G", 1_500_000_000),
        ("2 k", 2000),
        ("1Ti", 2**40),
        (" 7g ", 7_000_000_000),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1M", "1e3", "512 X", "1.5b", "0x10", "1,5G", "512M512M", "NaN"])
def test_what_is_no_size_names_the_field(text):
    with pytest.raises(InvalidParameter) as refused:
        parse_size(text, "memory")
    assert refused.value.field == "memory"


@pytest.mark.parametrize(("text", "cores"), [("0.5", 0.5), ("2", 2.0), ("500m", 0.5), ("1500m", 1.5)])
def test_cores(text, cores):
    assert parse_cpu(text) == cores


@pytest.mark.parametrize("text", ["", "2cores", "-1", "m", "1e2"])
def test_what_is_no_number_of_cores(text):
    with pytest.raises(InvalidParameter):
        parse_cpu(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("1.5", 1.5),
        ("1m30s", 90.0),
        ("500ms", 0.5),
        ("24h", 86400.0),
        ("7d", 604800.0),
        ("1h1m1s", 3661.0),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "1x", "-5s", "1m 30s", "1:30", "five"])
def test_what_is_no_duration(text):
    with pytest.raises(InvalidParameter):
        parse_duration(text)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (512_000_000, "512 MB"), (2 * 10**12, "2 TB")]
)
def test_sizes_for_people(size, text):
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "1 minute"),
        (3599, "59 minutes"),
        (7200, "2 hours"),
        (172800, "2 days"),
    ],
)
def test_durations_for_people(seconds, text):
    assert format_duration(seconds) == text
