"""How often agents may ask models: so many calls and tokens a minute, refilled evenly. Memory only."""

import time
from collections.abc import Callable

MINUTE_S = 60.0


class Allowance:
    """What one agent has left of `per_minute`; it begins full. Taking may make it negative: then it takes longer to come back."""

    def __init__(self, per_minute: int, now: float) -> None:
        self._per_minute = per_minute
        self._left = float(per_minute)
        self._at = now

    def wait_s(self, now: float) -> float:
        """Return how many seconds are to pass until there is one whole left; 0.0: there is."""
        self._refill(now)
        return max(1 - self._left, 0.0) * MINUTE_S / self._per_minute

    def take(self, amount: int, now: float) -> None:
        """Use so much of it."""
        self._refill(now)
        self._left -= amount

    def _refill(self, now: float) -> None:
        self._left = min(self._left + (now - self._at) * self._per_minute / MINUTE_S, float(self._per_minute))
        self._at = now


class RateLimits:
    """The allowances of all agents. `requests` and `tokens`: a minute; 0: no limit."""

    def __init__(self, requests: int, tokens: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.requests = requests
        self.tokens = tokens
        self._clock = clock
        self._allowances: dict[tuple[str, str], Allowance] = {}

    def take_request(self, agent_id: str) -> float:
        """Count a call that is about to be made and return 0.0; or return for how many seconds it may not be."""
        now = self._clock()
        for kind, per_minute in (("requests", self.requests), ("tokens", self.tokens)):
            if per_minute and (wait_s := self._allowance(agent_id, kind, per_minute, now).wait_s(now)):
                return wait_s
        if self.requests:
            self._allowance(agent_id, "requests", self.requests, now).take(1, now)
        return 0.0

    def add_tokens(self, agent_id: str, tokens: int) -> None:
        """Count what a call used."""
        if self.tokens:
            now = self._clock()
            self._allowance(agent_id, "tokens", self.tokens, now).take(tokens, now)

    def forget(self, agent_id: str) -> None:
        """An agent is gone."""
        for kind in ("requests", "tokens"):
            self._allowances.pop((agent_id, kind), None)

    def _allowance(self, agent_id: str, kind: str, per_minute: int, now: float) -> Allowance:
        found = self._allowances.get((agent_id, kind))
        if found is None:
            found = self._allowances[agent_id, kind] = Allowance(per_minute, now)
        return found
