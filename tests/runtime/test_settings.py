from pathlib import Path

import pytest
from agentainer_runtime.endpoints import Endpoint, NoEndpoint
from agentainer_runtime.settings import InvalidSetting, Settings


def test_nothing_set_is_fine():
    settings = Settings.from_environment({})

    assert (settings.port, settings.max_steps, settings.model, settings.is_compressing) == (8080, 15, "", True)
    assert settings.workspace == Path("/workspace")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"PORT": "70000"}, "PORT: '70000'"),
        ({"AGENT_MAX_STEPS": "0"}, "from 1 to"),
        ({"AGENT_COMPRESSION": "yes"}, "neither on nor off"),
        ({"AGENT_INSTRUCTIONS_FILE": "/nope"}, "cannot read /nope"),
    ],
)
def test_what_cannot_be_understood_is_said_with_its_name(variables, words):
    with pytest.raises(InvalidSetting, match=words):
        Settings.from_environment(variables)


def test_instructions_are_a_text_or_a_file(tmp_path):
    (tmp_path / "rules").write_text("Be brief.")

    assert Settings.from_environment({"AGENT_INSTRUCTIONS": "Be kind."}).instructions == "Be kind."
    assert Settings.from_environment({"AGENT_INSTRUCTIONS_FILE": str(tmp_path / "rules")}).instructions == "Be brief."


@pytest.mark.parametrize(
    ("variables", "model", "host"),
    [
        ({"OPENAI_BASE_URL": "http://x:1/v1/", "OPENROUTER_API_KEY": "k"}, "any", "http://x:1/v1"),
        ({"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}, "claude-9", "https://api.anthropic.com/v1"),
        ({"OPENAI_API_KEY": "k", "GEMINI_API_KEY": "k"}, "gemini-9", "https://generativelanguage.googleapis.com/v1beta/openai"),
        ({"OPENAI_API_KEY": "k", "OPENROUTER_API_KEY": "k"}, "anthropic/claude-9", "https://openrouter.ai/api/v1"),
        ({"ANTHROPIC_API_KEY": "k"}, "whatever", "https://api.anthropic.com/v1"),
    ],
)  # fmt: skip
def test_a_key_leads_to_its_provider(variables, model, host):
    assert Endpoint.of(variables, model).base_url == host


def test_without_a_key_it_is_said_which_would_help_and_keys_are_not_shown():
    with pytest.raises(NoEndpoint, match="OPENROUTER_API_KEY"):
        Endpoint.of({}, "gpt-9")
    assert Endpoint.of({}, "x", "sk-secret").key == "sk-secret"
    assert "sk-secret" not in repr(Endpoint.of({"OPENAI_API_KEY": "sk-secret"}, "x"))
    assert "sk-secret" not in repr(Settings.from_environment({"OPENAI_API_KEY": "sk-secret"}))
