"""What calls to models used, in Redis: a hash of counters for each day, run and session.

The days have everything that is asked for by day, model and agent; runs and sessions have sums of their own, since a question
about one must not read all days.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentainerd import defaults
from agentainerd.model.model_usage import COUNTERS, Usage
from agentainerd.store import keys, scripts
from agentainerd.store.connection import Argument, RedisClient, pairs

_ADD = scripts.load("add_usage", is_fenced=True)
_SPLIT = "|"


@dataclass(frozen=True, slots=True)
class Spent:
    """What was used, and by whom. `day`: of UTC, 2026-11-21; `model`: provider/model; `run_id`, `session_id`: "" for none."""

    day: str
    agent_id: str
    model: str
    usage: Usage
    run_id: str = ""
    session_id: str = ""


class ModelUsageStore:
    """The counters. Every method blocks its greenlet only, and raises Unavailable where Redis is away or full."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    def add(self, batch: str, spent: Sequence[Spent]) -> None:
        """Add all of it; `batch` names this list, which is added once however often it is sent."""
        sums: dict[str, dict[str, int]] = {}
        kept: dict[str, int] = {}
        for each in spent:
            prefix = f"{each.agent_id}{_SPLIT}{each.model}{_SPLIT}"
            _count(sums, keys.spent(each.day), prefix, each.usage)
            kept[keys.spent(each.day)] = defaults.SPENT_DAYS_S
            for key in _narrow(each):
                _count(sums, key, "", each.usage)
                kept[key] = defaults.SPENT_RUN_S
        arguments: list[Argument] = [batch]
        for key, counters in sums.items():
            arguments += (key, kept[key], len(counters))
            arguments += (part for pair in counters.items() for part in pair)
        self._client.run(_ADD, *arguments)

    def days(self, days: Sequence[str]) -> list[Spent]:
        """Return what was used on these days, by agent and model."""
        found = self._client.calls([("HGETALL", keys.spent(day)) for day in days])
        return [spent for day, flat in zip(days, found, strict=True) for spent in _of_day(day, flat)]

    def run(self, run_id: str) -> Usage:
        """Return what the calls of a run used."""
        return _usage(pairs(self._client.call("HGETALL", keys.spent_run(run_id))))

    def session(self, session_id: str) -> Usage:
        """Return what the calls of a session used."""
        return _usage(pairs(self._client.call("HGETALL", keys.spent_session(session_id))))


def _narrow(each: Spent) -> list[str]:
    found = [keys.spent_run(each.run_id)] if each.run_id else []
    return [*found, keys.spent_session(each.session_id)] if each.session_id else found


def _count(sums: dict[str, dict[str, int]], key: str, prefix: str, usage: Usage) -> None:
    counters = sums.setdefault(key, {})
    for name in COUNTERS:
        if added := getattr(usage, name):
            counters[prefix + name] = counters.get(prefix + name, 0) + added


def _of_day(day: str, flat: Sequence[bytes]) -> list[Spent]:
    found: dict[tuple[str, str], dict[bytes, bytes]] = {}
    for field, value in pairs(flat).items():
        agent_id, _, rest = field.decode().partition(_SPLIT)
        model, _, name = rest.rpartition(_SPLIT)
        found.setdefault((agent_id, model), {})[name.encode()] = value
    return [Spent(day, agent_id, model, _usage(counters)) for (agent_id, model), counters in sorted(found.items())]


def _usage(counters: Mapping[bytes, bytes]) -> Usage:
    return Usage(**{name: int(counters.get(name.encode(), 0)) for name in COUNTERS})
