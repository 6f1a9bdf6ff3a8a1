"""The configuration as it is printed: every value, where it comes from, and no secret."""

from agentainerd import config_models as models
from agentainerd import config_values as values
from agentainerd.config import Key, keys
from agentainerd.config_load import Loaded


def describe(loaded: Loaded) -> str:
    """Return the configuration as YAML, each value with where it came from; secrets are masked."""
    lines = []
    section = ""
    for key in keys():
        group, name = key.name.split(".")
        if group != section:
            lines.append(f"{group}:")
            section = group
        value = getattr(getattr(loaded.config, group), name)
        line = f"  {name}: {_written(key, value)}"
        lines.append(f"{line:<50} # {loaded.origin(key.name)}")
    return "\n".join(lines)


def _written(key: Key, value: object) -> str:
    if key.secret and value:
        return '"***"' if key.name != "redis.url" else values.without_password(str(value))
    if isinstance(value, bool):
        return str(value).lower()
    if key.name == "models.providers":
        return models.written(value)  # type: ignore[arg-type]  # that is the type of this key
    if key.name == "models.aliases":
        return models.written_aliases(value)  # type: ignore[arg-type]
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{part}"' for part in value) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    return f'"{value}"' if isinstance(value, str) else str(value)
