"""Where a model is asked for: the daemon's gateway, another server with OpenAI's API, or the provider that a key belongs to."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

SCRIPT_PREFIX = "script/"
_PROVIDERS = (
    ("OPENROUTER_API_KEY", "https://openrouter.ai/api/v1", r"[^/]+/.+"),
    ("OPENAI_API_KEY", "https://api.openai.com/v1", r"gpt|o\d|chatgpt"),
    ("ANTHROPIC_API_KEY", "https://api.anthropic.com/v1", r"claude"),
    ("GEMINI_API_KEY", "https://generativelanguage.googleapis.com/v1beta/openai", r"gemini|gemma"),
)
"""Variable, address with OpenAI's API, how the names of its models begin."""


class NoEndpoint(ValueError):
    """There is nobody to ask; the text says which variables would help."""


@dataclass(frozen=True)
class Endpoint:
    """An address that ends where `/chat/completions` begins, and what proves who asks ("" where nothing is asked for)."""

    base_url: str
    key: str = field(default="", repr=False)

    @classmethod
    def of(cls, environment: Mapping[str, str], model: str, key: str = "") -> "Endpoint":
        """Choose: OPENAI_BASE_URL wins; else the provider whose models are called so, else the first with a key.

        Raises:
            NoEndpoint: neither an address nor a key is there.
        """
        base_url = environment.get("OPENAI_BASE_URL")
        if base_url:
            return cls(base_url.rstrip("/"), key or environment.get("OPENAI_API_KEY", ""))
        if key:
            return cls(_PROVIDERS[0][1], key)
        found = [(name, url, names) for name, url, names in _PROVIDERS if environment.get(name)]
        if not found:
            names = ", ".join(name for name, _, _ in _PROVIDERS)
            raise NoEndpoint(
                f"no model can be reached: set OPENAI_BASE_URL, or one of {names}, or AGENT_MODEL=script/FILE"
            )
        fitting = [each for each in found if re.match(each[2], model)]
        name, url, _ = (fitting or found)[0]
        return cls(url, environment[name])
