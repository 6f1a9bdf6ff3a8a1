"""The section `models` of the configuration: its nested values, and where the keys of providers come from.

A key is nowhere but in a provider's `api_key`: no message and no print of the configuration has it.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import replace

from agentainerd import config_values as values
from agentainerd.errors import AgentainerError
from agentainerd.model.providers import BASE_URLS, KEY_VARIABLES, MODEL_NAME, NAME, Price, Provider

MAX_KEY_BYTES = 16 * 1024
_FIELDS = ("base_url", "api_key", "api_key_file", "api_key_env", "models", "prices", "ca_file")
_PRICE_FIELDS = ("input", "output", "cached")

Aliases = tuple[tuple[str, tuple[str, ...]], ...]


def providers(value: object) -> tuple[Provider, ...]:
    """Providers by name, each a map."""
    return tuple(_provider(name, entry) for name, entry in _map(value, "a map of providers").items())


def aliases(value: object) -> Aliases:
    """Names, each with a model or a list of models: the first choice first."""
    found = []
    for name, entry in _map(value, "a map of names to models").items():
        _model(name)
        models = values.texts(_model)([entry] if isinstance(entry, str) else entry)
        if not models:
            raise ValueError(f"{name}: names no model")
        found.append((name, models))
    return tuple(found)


def with_keys(
    given: tuple[Provider, ...], environment: Mapping[str, str]
) -> tuple[tuple[Provider, ...], list[str], list[str]]:
    """Return the providers with their keys, and those that the environment has a key of; what is wrong, and what only odd.

    Blocks on the files that have keys.
    """
    complete, problems, warnings = [], [], []
    for provider in given:
        try:
            complete.append(replace(provider, api_key=_key(provider, environment)))
        except AgentainerError as error:
            problems.append(f"models.providers: {provider.name}: {error.message}")
            continue
        if provider.name in KEY_VARIABLES and not complete[-1].api_key:
            variable = KEY_VARIABLES[provider.name]
            warnings.append(f"models.providers: {provider.name} has no key: set api_key_file, or {variable}")
    named = {provider.name for provider in given}
    for name, variable in KEY_VARIABLES.items():
        if name in named or not environment.get(variable):
            continue
        try:
            key = _checked(environment[variable], variable)
        except AgentainerError as error:
            problems.append(error.message)
        else:
            complete.append(Provider(name, BASE_URLS[name], key, key_variable=variable))
    return tuple(complete), problems, warnings


def written(value: tuple[Provider, ...]) -> str:
    """Return providers as YAML on one line, keys masked."""
    return "{" + ", ".join(f"{each.name}: {{{_described(each)}}}" for each in value) + "}"


def written_aliases(value: Aliases) -> str:
    """Return aliases as YAML on one line."""
    return json.dumps(dict(value))


def _described(provider: Provider) -> str:
    parts = [f'base_url: "{provider.base_url}"']
    if provider.key_file:
        parts.append(f'api_key_file: "{provider.key_file}"')
    elif provider.key_variable:
        parts.append(f'api_key_env: "{provider.key_variable}"')
    elif provider.api_key:
        parts.append('api_key: "***"')
    if provider.models:
        parts.append(f"models: {json.dumps(provider.models)}")
    if provider.prices:
        prices = {model: {name: getattr(price, name) for name in _PRICE_FIELDS if getattr(price, name) is not None}
                  for model, price in provider.prices.items()}  # fmt: skip
        parts.append(f"prices: {json.dumps(prices)}")
    if provider.ca_file:
        parts.append(f'ca_file: "{provider.ca_file}"')
    return ", ".join(parts)


def _provider(name: str, entry: object) -> Provider:
    if not NAME.fullmatch(name):
        raise ValueError(f"{values.shown(name)} is not a provider's name: write it with a-z, 0-9, - and _")
    try:
        return _read(name, _map(entry, "a map with base_url, api_key_file and models"))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _read(name: str, entry: Mapping[str, object]) -> Provider:
    for field in entry:
        if field not in _FIELDS:
            raise ValueError(f"{field}: no such key: there are {', '.join(_FIELDS)}")
    if len([field for field in ("api_key", "api_key_file", "api_key_env") if entry.get(field)]) > 1:
        raise ValueError("has its key in more than one place: keep one of api_key, api_key_file and api_key_env")
    base_url = values.url("https", "http")(entry.get("base_url") or BASE_URLS.get(name, ""))
    if not base_url:
        raise ValueError(f"base_url is missing ({', '.join(BASE_URLS)} need none)")
    if "@" in base_url or "?" in base_url or "#" in base_url:
        raise ValueError("base_url has more than scheme, host, port and path")
    models = values.texts(_model)(entry.get("models") or [])
    prices = {model: _price(model, each) for model, each in _map(entry.get("prices") or {}, "a map of prices").items()}
    return Provider(
        name,
        base_url.rstrip("/"),
        values.token(entry.get("api_key") or ""),
        key_file=values.folder(entry.get("api_key_file") or ""),
        key_variable=values.text(entry.get("api_key_env") or ""),
        models=models,
        prices=prices,
        ca_file=values.folder(entry.get("ca_file") or ""),
    )


def _model(value: object) -> str:
    name = values.text(value)
    if not MODEL_NAME.fullmatch(name):
        raise ValueError(f"{values.shown(name)} is not a model's name: visible ASCII without | and spaces")
    return name


def _price(model: str, entry: object) -> Price:
    given = _map(entry, "a map with input and output, in US dollars for a million tokens")
    for field, value in given.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if field not in _PRICE_FIELDS or not is_number or not 0 <= float(str(value)) <= 1e6:
            raise ValueError(f"prices: {model}: write input, output and cached as US dollars for a million tokens")
    if "input" not in given or "output" not in given:
        raise ValueError(f"prices: {model}: needs input and output")
    return Price(**{field: float(str(value)) for field, value in given.items()})


def _key(provider: Provider, environment: Mapping[str, str]) -> str:
    if provider.api_key:
        return provider.api_key
    if provider.key_file:
        try:
            with open(provider.key_file, encoding="utf-8") as stream:
                return _checked(stream.read(MAX_KEY_BYTES).strip(), provider.key_file)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "is not text"
            raise AgentainerError(f"{provider.key_file} cannot be read: {reason}") from error
    if provider.key_variable:
        if not environment.get(provider.key_variable):
            raise AgentainerError(f"the environment has no {provider.key_variable}")
        return _checked(environment[provider.key_variable], provider.key_variable)
    variable = KEY_VARIABLES.get(provider.name, "")
    return _checked(environment.get(variable, ""), variable)


def _checked(key: str, where: str) -> str:
    try:
        return values.token(key)
    except ValueError:
        raise AgentainerError(
            f"what is in {os.path.basename(where)} is no key: letters, digits and signs of ASCII"
        ) from None


def _map(value: object, what: str) -> Mapping[str, object]:
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError(f"is not {what}; in the environment that is JSON") from None
    if not value:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"is not {what}")
    return value


def unpriced(given: tuple[Provider, ...]) -> list[str]:
    """Return the models that nobody knows a price of. OpenRouter says itself what each call cost."""
    listed = [provider for provider in given if provider.name != "openrouter"]
    return [
        f"{provider.name}/{model}"
        for provider in listed
        for model in provider.models or ("*",)
        if model not in provider.prices
    ]
