"""On whose behalf a greenlet works: fields that every record which it logs gets, such as request_id and actor.

Set where a request comes in, and handed on to what the supervisor spawns for it. Never secrets.
"""

from collections.abc import Mapping
from contextvars import ContextVar

_EMPTY: Mapping[str, str] = {}
_fields: ContextVar[Mapping[str, str]] = ContextVar("log_fields", default=_EMPTY)


def begin(**fields: str) -> None:
    """Forget what was set, and set these."""
    _fields.set(fields)


def add(**fields: str) -> None:
    """Set these too."""
    _fields.set({**_fields.get(), **fields})


def current() -> Mapping[str, str]:
    """Return what is set."""
    return _fields.get()
