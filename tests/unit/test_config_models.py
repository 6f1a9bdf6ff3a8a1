"""The section `models`: where keys come from, what is wrong with it, and that no print of it has a key."""

import re
import textwrap
from pathlib import Path

import pytest

from agentainerd.config_load import ConfigError, load
from agentainerd.config_print import describe
from agentainerd.model.providers import Price

FULL = """
models:
  providers:
    openai:
      api_key_file: {key_file}
      models: [gpt-a, gpt-b]
      prices: {{gpt-a: {{input: 1.25, cached: 0.125, output: 10}}}}
    local: {{base_url: "http://127.0.0.1:11434/v1", models: [qwen3]}}
  aliases: {{small: [openai/gpt-a, local/qwen3], one: local/qwen3}}
  default: small
  budget_day_usd: 12.5
"""


@pytest.fixture
def written(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_providers_are_read_with_the_key_that_a_file_has(written, tmp_path):
    key = tmp_path / "openai.key"
    key.write_text("sk-secret\n")

    models = load(written(FULL.format(key_file=key)), {}, {}).config.models

    openai, local = models.providers
    assert (openai.name, openai.base_url, openai.api_key) == ("openai", "https://api.openai.com/v1", "sk-secret")
    assert openai.prices == {"gpt-a": Price(1.25, 10.0, 0.125)}
    assert (local.place, local.path, local.api_key) == (("127.0.0.1", 11434, False), "/v1", "")
    assert models.aliases == (("small", ("openai/gpt-a", "local/qwen3")), ("one", ("local/qwen3",)))
    assert models.budget_day_usd == 12.5


def test_what_is_printed_has_no_key_and_can_be_loaded_again(written, tmp_path):
    key = tmp_path / "openai.key"
    key.write_text("sk-secret")
    inline = 'models: {providers: {openai: {api_key: "sk-inline"}}}'

    for text in (FULL.format(key_file=key), inline):
        loaded = load(written(text), {"GEMINI_API_KEY": "sk-gemini"}, {})
        printed = describe(loaded)

        assert "sk-" not in printed + repr(loaded)
        assert load(written(printed), {"GEMINI_API_KEY": "x"}, {}).config.models.aliases == loaded.config.models.aliases


def test_a_key_in_the_daemons_environment_is_enough(written):
    environment = {"OPENROUTER_API_KEY": "sk-or", "ANTHROPIC_API_KEY": "sk-ant", "OTHER": "sk-other"}
    text = "models: {providers: {openrouter: {models: [x]}, own: {base_url: 'http://h/v1', api_key_env: OTHER}}}"

    found = {each.name: each for each in load(written(text), environment, {}).config.models.providers}

    assert {name: each.api_key for name, each in found.items()} == {
        "openrouter": "sk-or", "own": "sk-other", "anthropic": "sk-ant",
    }  # fmt: skip
    assert found["openrouter"].models == ("x",)


def test_a_budget_that_does_not_hold_a_model_is_warned_of(written):
    prices = "prices: {a: {input: 1, output: 2}}"
    text = "models: {{providers: {{openai: {{api_key: x, models: [a, b], {prices}}}, openrouter: {{api_key: y}}}}, {budget}}}"

    loaded = load(written(text.format(prices=prices, budget="budget_run_usd: 1")), {}, {})

    assert loaded.warnings == ("models: no budget holds openai/b: models.providers has no prices of them",)
    assert load(written(text.format(prices=prices, budget="default: a")), {}, {}).warnings == ()


def test_a_provider_without_its_key_is_warned_of(written):
    loaded = load(written("models: {providers: {openai: {models: [x]}}}"), {}, {})

    assert "openai has no key" in loaded.warnings[-1]


@pytest.mark.parametrize(
    ("providers", "reason"),
    [
        ("[openai]", "is not a map of providers"),
        ("{Open AI: {}}", "is not a provider's name"),
        ("{mine: {models: [x]}}", "base_url is missing"),
        ("{openai: {api_key: sk-1, api_key_env: X}}", "more than one place"),
        ("{openai: {api_kee: sk-1}}", "no such key"),
        ("{openai: {base_url: 'ftp://x'}}", "not a URL"),
        ("{openai: {base_url: 'https://user:sk-1@x'}}", "more than scheme"),
        ("{openai: {prices: {a: {input: free, output: 1}}}}", "US dollars"),
        ("{openai: {prices: {a: {input: 1}}}}", "needs input and output"),
        ("{openai: {api_key: 'sk 1'}}", "is not a token"),
        ("{openai: {api_key_env: NOT_SET}}", "no NOT_SET"),
        ("{openai: {api_key_file: /nonexistent}}", "cannot be read"),
        ("{openai: {models: x}, openai: {}}", "is there twice"),
        ("{openai: {models: ['a|b']}}", "is not a model's name"),
        ("{openai: {models: ['a b']}}", "is not a model's name"),
    ],
)
def test_what_is_wrong_is_told_without_the_key(written, providers, reason):
    with pytest.raises(ConfigError) as refused:
        load(written(f"models:\n  providers: {providers}\n"), {}, {})

    assert reason in str(refused.value)
    assert "sk-1" not in str(refused.value)
    assert "sk 1" not in str(refused.value)


def test_the_configuration_that_the_page_shows_is_one(written, tmp_path):
    page = (
        (Path(__file__).parents[2] / "docs/models.md")
        .read_text()
        .replace("/etc/agentainer/openai.key", str(tmp_path / "key"))
    )
    (tmp_path / "key").write_text("sk-1")
    shown = re.findall(r"^    models:\n(?:      .*\n)+", page, re.MULTILINE)

    assert len(shown) == 2
    for text in shown:
        loaded = load(written(textwrap.dedent(text)), {"OPENROUTER_API_KEY": "sk-2"}, {})
        assert loaded.config.models != load(None, {"OPENROUTER_API_KEY": "sk-2"}, {}).config.models


def test_exchanges_are_recorded_or_played_not_both(written):
    with pytest.raises(ConfigError, match="models.record"):
        load(written("models: {record: /a, replay: /b}"), {}, {})
