"""What a model's name means, and what a call costs."""

import pytest

from agentainerd.errors import NotFound
from agentainerd.model.providers import Catalogue, Price, Provider

LISTED = Provider("openai", "https://api.openai.com/v1", models=("a", "b"))
OPEN = Provider("openrouter", "https://openrouter.ai/api/v1")
ALIASES = {
    "small": ("openai/a", "openrouter/x/y", "openai/a"),
    "both": ("small", "b"),
    "loop": ("loop",),
    "gone": ("openai/z",),
}


def meant(name: str, *providers: Provider) -> list[str]:
    return [model.ref for model in Catalogue(providers or (LISTED, OPEN), ALIASES).resolve(name)]


def test_names_mean_what_they_say():
    assert meant("openai/a") == ["openai/a"]
    assert meant("b") == ["openai/b"]
    assert meant("openrouter/anthropic/claude") == ["openrouter/anthropic/claude"]
    assert meant("anthropic/claude") == ["openrouter/anthropic/claude"]  # of the only one that lists none
    assert meant("small") == ["openai/a", "openrouter/x/y"]
    assert meant("both") == ["openai/a", "openrouter/x/y", "openai/b"]


@pytest.mark.parametrize("name", ["c", "openai/c", "openai/", "loop", "nobody/x"])
def test_what_means_nothing_is_not_found(name):
    with pytest.raises(NotFound, match="no provider serves") as failure:
        meant(name, LISTED)

    assert "openai/a" in str(failure.value.hint)


@pytest.mark.parametrize("name", ["a b", "a|b", "openrouter/x\r\nSet-Cookie: a=b", "", "x" * 257, "modèle"])
def test_what_can_be_no_name_is_asked_of_nobody(name):
    with pytest.raises(NotFound, match="is not a model's name") as failure:
        meant(name)

    assert len(failure.value.message) < 200


def test_an_address_stands_in_brackets():
    assert Provider("p", "http://[::1]:8080/v1").host_field == "[::1]:8080"
    assert Provider("p", "https://host/v1").host_field == "host"
    assert Provider("p", "http://host:443/v1").host_field == "host:443"


def test_cached_tokens_have_a_price_of_their_own_where_there_is_one():
    assert Price(2.0, 8.0, 1.0).cost_usd(1000, 400, 100) == pytest.approx((600 * 2 + 400 * 1 + 100 * 8) / 1e6)
    assert Price(2.0, 8.0).cost_usd(1000, 400, 100) == pytest.approx((1000 * 2 + 100 * 8) / 1e6)
