"""What an examination of the daemon and its surroundings finds."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How much a finding matters. WARNING: it works, and less is kept or less is possible than one would think."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what it is, how it is, and what to do where that is not right."""

    check: str
    level: Level
    message: str
    hint: str = ""
