"""The daemon's own log as it is read again: its levels, what of an entry is known, and what a reader asks for."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import msgspec


class Level(StrEnum):
    """How much an entry matters, the least first."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


_RANKS = {level.value: rank for rank, level in enumerate(Level)}


class Entry(msgspec.Struct, frozen=True):
    """What every entry has; it has more.

    time: RFC 3339 in UTC with microseconds, so that text compares as time.
    component: the part of the daemon, such as "store.journal"; of a library its own name.
    """

    time: str
    level: str
    component: str


@dataclass(frozen=True, slots=True)
class LogFilter:
    """What a reader asks for: entries of this level or worse, of one of these components (none: of all), from this time on.

    A component stands for its parts too: "store" for "store.journal". `since`: as Entry.time, "" for all.
    """

    level: Level = Level.DEBUG
    components: tuple[str, ...] = ()
    since: str = ""

    def matches(self, entry: Entry) -> bool:
        """Say whether an entry is asked for."""
        if entry.time < self.since or _RANKS.get(entry.level, 0) < _RANKS[self.level]:
            return False
        return not self.components or any(_is_part(entry.component, whole) for whole in self.components)


def stamp(moment: float) -> str:
    """Return epoch seconds as entries have them: RFC 3339, UTC, microseconds."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _is_part(component: str, whole: str) -> bool:
    return component == whole or component.startswith(whole + ".")
