"""What providers say of tokens and cost, in all their spellings, and what is made of it."""

import json

import pytest

from agentainerd.model.model_usage import NANO, CostSource, Usage, usage_of
from agentainerd.model.providers import Price

PRICE = Price(input=1.0, output=10.0, cached=0.5)


def used(
    said: object, price: Price | None = PRICE, *, is_whole: bool = True, events: int = 0
) -> tuple[Usage, CostSource]:
    raw = said if isinstance(said, bytes) else json.dumps(said).encode() + b', "model": "x"}\n\ndata: [DONE]'
    return usage_of(raw, price, is_whole=is_whole, request_bytes=400, events=events)


@pytest.mark.parametrize(
    "said",
    [
        {"prompt_tokens": 100, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 40}, "completion_tokens_details": {"reasoning_tokens": 5}},
        {"input_tokens": 100, "output_tokens": 20, "input_tokens_details": {"cached_tokens": 40}, "output_tokens_details": {"reasoning_tokens": 5}},
    ],
    ids=["chat", "responses"],
)  # fmt: skip
def test_tokens_in_both_spellings_are_priced_by_the_table(said):
    usage, source = used(said)

    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens) == (100, 20, 40, 5)
    assert usage.cost_nano == 60 * 1000 + 40 * 500 + 20 * 10000
    assert source is CostSource.PRICES


def test_the_providers_figure_beats_the_table_and_zero_is_a_figure():
    assert used({"prompt_tokens": 5, "cost": 0.25})[0].cost_nano == NANO // 4
    assert used({"prompt_tokens": 5, "cost": 0}) == (Usage(1, 0, 5), CostSource.PROVIDER)


def test_without_a_price_the_cost_is_unknown_and_not_nothing():
    usage, source = used({"prompt_tokens": 5}, None)

    assert (usage.unpriced, usage.cost_usd, source) == (1, None, CostSource.UNKNOWN)
    assert usage.plus(Usage(calls=1, cost_nano=NANO)).cost_usd == 1.0
    assert Usage().cost_usd == 0.0


@pytest.mark.parametrize("said", [b"", b"{", b"[1]", b"{]", "\u00e4".encode("latin-1")])
def test_what_can_not_be_read_is_estimated_by_what_came(said):
    usage, _ = used(said, is_whole=False, events=7)

    assert usage == Usage(1, 1, 100, 7, estimated=1, cost_nano=100 * 1000 + 7 * 10000)


def test_nothing_that_came_costs_nothing():
    assert used(b"", is_whole=False) == (Usage(1, 1), CostSource.UNKNOWN)


@pytest.mark.parametrize("value", [-5, "7", None, 1e300, True, {"a": 1}])
def test_counts_that_can_not_be_are_not_believed(value):
    usage, _ = used({"prompt_tokens": value, "completion_tokens": 3, "cost": value if value != 1e300 else float("nan")})

    assert (usage.input_tokens, usage.output_tokens) == (0, 3)
