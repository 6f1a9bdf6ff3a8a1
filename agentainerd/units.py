"""Sizes, CPU shares, durations and times: text to numbers and back, exactly.

Used by the daemon and by the CLI, so it imports nothing but `re`.
"""

import re

from agentainerd.errors import InvalidParameter

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(b|k|kb|kib|ki|m|mb|mib|mi|g|gb|gib|gi|t|tb|tib|ti)?", re.IGNORECASE)
_SIZE_POWERS = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_CPU = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m)?")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(text: str, field: str = "size") -> int:
    """Return the bytes that `text` means: "512M" and "512MB" are decimal, "512Mi" and "512MiB" binary, "512" is bytes.

    Raises:
        InvalidParameter: not a size, or not a whole number of bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise InvalidParameter(field, f"{text!r} is not a size", hint="write it as 512M, 1.5G, 512Mi or in bytes")
    number, unit = match.group(1), (match.group(2) or "").lower()
    factor = (1024 if "i" in unit else 1000) ** _SIZE_POWERS[unit[:1]]
    value = float(number) * factor if "." in number else int(number) * factor
    if value != int(value):
        raise InvalidParameter(field, f"{text!r} is not a whole number of bytes")
    return int(value)


def format_size(size: int) -> str:
    """Return `size` bytes for people: "1.5 GB" (decimal units)."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def parse_cpu(text: str, field: str = "cpu") -> float:
    """Return the number of cores that `text` means: "0.5", "2", "500m".

    Raises:
        InvalidParameter: not a number of cores.
    """
    match = _CPU.fullmatch(text.strip())
    if not match:
        raise InvalidParameter(field, f"{text!r} is not a number of cores", hint="write it as 0.5, 2 or 500m")
    return float(match.group(1)) / (1000 if match.group(2) else 1)


def parse_duration(text: str, field: str = "duration") -> float:
    """Return the seconds that `text` means: "90", "1.5s", "1m30s", "500ms", "24h", "7d".

    Raises:
        InvalidParameter: not a duration.
    """
    stripped = text.strip()
    try:
        seconds = float(stripped) if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", stripped) else None
    except ValueError:
        seconds = None
    if seconds is not None:
        return seconds
    if not _DURATION.fullmatch(stripped):
        raise InvalidParameter(field, f"{text!r} is not a duration", hint="write it as 30s, 1m30s, 500ms, 24h or 7d")
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(stripped))


def format_duration(seconds: float) -> str:
    """Return `seconds` for people, in its largest unit: "45 seconds", "3 minutes", "2 hours", "5 days"."""
    if seconds < 1:
        return "less than a second"
    for limit, length, unit in ((60, 1, "second"), (3600, 60, "minute"), (172800, 3600, "hour")):
        if seconds < limit:
            count = int(seconds // length)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{int(seconds // 86400)} days"
