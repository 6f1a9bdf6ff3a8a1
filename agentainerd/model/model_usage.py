"""What calls to models use: tokens and money, as providers say it, and sums of it. Pure.

Money is counted in nanodollars, whole ones: sums of many small costs are exact.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from agentainerd.model.providers import Price

NANO = 1_000_000_000
MAX_COUNT = 10**12
"""More tokens than any call has: what a provider says beyond that is not believed."""
BYTES_PER_TOKEN = 4


class CostSource(StrEnum):
    """Who says what a call cost."""

    PROVIDER = "provider"
    PRICES = "prices"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Usage:
    """One call, or the sum of many. `cached_tokens` are among the input's, `reasoning_tokens` among the output's.

    `failed`: calls without a whole answer. `estimated`: calls whose tokens the provider did not say. `unpriced`: calls that used
    tokens of which nobody knows the price: `cost_nano` is too low by them.
    """

    calls: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nano: int = 0
    estimated: int = 0
    unpriced: int = 0

    def plus(self, other: "Usage") -> "Usage":
        """Return the sum."""
        return Usage(*(getattr(self, each) + getattr(other, each) for each in COUNTERS))

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.input_tokens + self.output_tokens

    @property
    def cost_usd(self) -> float | None:
        """What is known of the cost; None where nothing is."""
        if self.unpriced and self.unpriced >= self.calls - self.failed and not self.cost_nano:
            return None
        return self.cost_nano / NANO

    def public(self) -> dict[str, object]:
        """Return it as the API gives it."""
        counts = {name: getattr(self, name) for name in COUNTERS if name != "cost_nano"}
        return {**counts, "total_tokens": self.tokens, "cost_usd": self.cost_usd}


COUNTERS = tuple(each.name for each in fields(Usage))


def usage_of(
    said: bytes, price: Price | None, *, is_whole: bool, request_bytes: int, events: int
) -> tuple[Usage, CostSource]:
    """Return what one call used, from what the provider said of it (`said`, see proxy/metering.py), and who says what it cost.

    Of an answer that began and was never summed up, `request_bytes` and the `events` of its stream say how much it was, about.
    """
    counts = _read(said)
    failed = 0 if is_whole else 1
    if counts is None:
        if not events:
            return Usage(calls=1, failed=failed), CostSource.UNKNOWN
        usage = Usage(1, failed, request_bytes // BYTES_PER_TOKEN, events, estimated=1)
    else:
        details_in = _details(counts, "prompt_tokens_details", "input_tokens_details")
        details_out = _details(counts, "completion_tokens_details", "output_tokens_details")
        usage = Usage(
            1,
            failed,
            _count(counts, "prompt_tokens", "input_tokens"),
            _count(counts, "completion_tokens", "output_tokens"),
            _count(details_in, "cached_tokens") or _count(counts, "prompt_cache_hit_tokens", "cache_read_input_tokens"),
            _count(details_out, "reasoning_tokens"),
        )
    return _priced(usage, counts or {}, price)


def _priced(usage: Usage, counts: Mapping[str, Any], price: Price | None) -> tuple[Usage, CostSource]:
    cost = counts.get("cost")
    if isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost < 1e6:
        return replace(usage, cost_nano=round(cost * NANO)), CostSource.PROVIDER
    if price is not None:
        cost_usd = price.cost_usd(usage.input_tokens, usage.cached_tokens, usage.output_tokens)
        return replace(usage, cost_nano=round(cost_usd * NANO)), CostSource.PRICES
    return replace(usage, unpriced=1 if usage.tokens else 0), CostSource.UNKNOWN


def _read(said: bytes) -> Mapping[str, Any] | None:
    if not said:
        return None
    try:
        counts, _ = json.JSONDecoder().raw_decode(said.decode("utf-8", "replace"))
    except ValueError:
        return None
    return counts if isinstance(counts, dict) else None


def _details(counts: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    return next((counts[name] for name in names if isinstance(counts.get(name), dict)), {})


def _count(counts: Mapping[str, Any], *names: str) -> int:
    for name in names:
        value = counts.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MAX_COUNT:
            return int(value)
    return 0
