"""Providers of models: where they are, what they serve and charge, and what a name of a model means. Pure.

A model is called `provider/model`, or by its bare name where a provider lists it or only one lists none, or by an alias, which
stands for a list: the first of them that answers is the one that is used.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from agentainerd.defaults import MODEL_KEY_VARIABLES
from agentainerd.errors import NotFound

NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?")
MODEL_NAME = re.compile(r"[!-{}~]{1,256}")
"""What a model may be called: visible ASCII. It stands in a header line, and beside `|` in the store."""
BASE_URLS = {
    "openai": "https://api.openai.com/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "anthropic": "https://api.anthropic.com/v1",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/openai",
}
"""Providers that need no address: all of them speak OpenAI's API there."""
KEY_VARIABLES = dict(zip(BASE_URLS, MODEL_KEY_VARIABLES, strict=True))
"""Where their keys are in the daemon's environment, and in that of an agent that brings its own."""
MAX_ALIAS_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens. `cached`: of input that the provider had cached; None: as all input."""

    input: float
    output: float
    cached: float | None = None

    def cost_usd(self, input_tokens: int, cached_tokens: int, output_tokens: int) -> float:
        """Return what a call costs; `cached_tokens` are among the input's."""
        cached = self.input if self.cached is None else self.cached
        fresh_tokens = max(input_tokens - cached_tokens, 0)
        return (fresh_tokens * self.input + cached_tokens * cached + output_tokens * self.output) / 1e6


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider. `models`: what it serves; empty: whatever it is asked for. `ca_file`: who signed its certificate, if it is
    nobody that this host knows. The key is never shown; `key_file` and `key_variable` say where it is, if not here.
    """

    name: str
    base_url: str
    api_key: str = field(default="", repr=False)
    key_file: str = ""
    key_variable: str = ""
    models: tuple[str, ...] = ()
    prices: Mapping[str, Price] = field(default_factory=dict)
    ca_file: str = ""

    @property
    def place(self) -> tuple[str, int, bool]:
        """Its host, port, and whether it is encrypted."""
        parts = urlsplit(self.base_url)
        is_secure = parts.scheme == "https"
        return parts.hostname or "", parts.port or (443 if is_secure else 80), is_secure

    @property
    def path(self) -> str:
        """What stands before /chat/completions."""
        return urlsplit(self.base_url).path.rstrip("/")

    @property
    def host_field(self) -> str:
        """What is in the Host of a request to it."""
        host, port, is_secure = self.place
        name = f"[{host}]" if ":" in host else host
        return name if port == (443 if is_secure else 80) else f"{name}:{port}"


@dataclass(frozen=True, slots=True)
class Model:
    """One model of one provider."""

    provider: Provider
    name: str

    @property
    def ref(self) -> str:
        """Its full name: provider/model."""
        return f"{self.provider.name}/{self.name}"

    @property
    def price(self) -> Price | None:
        """What it costs, where that is known."""
        return self.provider.prices.get(self.name)


class Catalogue:
    """All providers and aliases. Immutable."""

    def __init__(self, providers: Iterable[Provider], aliases: Mapping[str, tuple[str, ...]]) -> None:
        self.providers = {provider.name: provider for provider in providers}
        self.aliases = dict(aliases)

    def names(self) -> list[str]:
        """Return what can be asked for, the aliases first; of a provider that lists none, nothing."""
        listed = [f"{each.name}/{model}" for each in self.providers.values() for model in each.models]
        return [*self.aliases, *listed]

    def resolve(self, name: str) -> list[Model]:
        """Return what a name means, the first choice first.

        Raises:
            NotFound: nothing (code MODEL_NOT_FOUND).
        """
        if not MODEL_NAME.fullmatch(name):
            raise NotFound("model", name[:64], message=f"{name[:64]!r} is not a model's name")
        found: dict[str, Model] = {}
        for model in self._resolve(name, 0):
            found.setdefault(model.ref, model)
        if not found:
            known = ", ".join(self.names()[:20])
            hint = f"there are: {known}" if known else "write it as provider/model, or list it in models.providers"
            raise NotFound("model", name, message=f"no provider serves the model '{name}'", hint=hint)
        return list(found.values())

    def _resolve(self, name: str, depth: int) -> list[Model]:
        if name in self.aliases:
            if depth >= MAX_ALIAS_DEPTH:
                return []
            return [model for each in self.aliases[name] for model in self._resolve(each, depth + 1)]
        prefix, slash, rest = name.partition("/")
        provider = self.providers.get(prefix) if slash else None
        if provider and rest and (not provider.models or rest in provider.models):
            return [Model(provider, rest)]
        listed = [provider for provider in self.providers.values() if name in provider.models]
        open_ones = [provider for provider in self.providers.values() if not provider.models]
        if not listed and len(open_ones) == 1:
            listed = open_ones
        return [Model(provider, name) for provider in listed[:1]]
