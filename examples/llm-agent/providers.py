"""Which model answers, by the environment, and how it is asked: OpenAI's chat completions, which all of these speak.

LLM_PROVIDER names one: openai, anthropic, gemini, openrouter, or script. Else the first one whose key is there is taken. With
OPENAI_BASE_URL `openai` is whatever is there: agentainerd's gateway, a vLLM, an Ollama. Without any key the answers are a
script's, which says so; no model is asked then.
"""

import http.client
import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass

ADDRESSES = {  # name: (variable with the key, address, model)
    "openai": ("OPENAI_API_KEY", "https://api.openai.com/v1", "gpt-5-mini"),
    "anthropic": ("ANTHROPIC_API_KEY", "https://api.anthropic.com/v1", "claude-haiku-4-5"),
    "gemini": ("GEMINI_API_KEY", "https://generativelanguage.googleapis.com/v1beta/openai", "gemini-2.5-flash"),
    "openrouter": ("OPENROUTER_API_KEY", "https://openrouter.ai/api/v1", "openai/gpt-5-mini"),
}
TIMEOUT_S = 600


class ModelError(Exception):
    """The model did not answer; `code` is that of the run's last event."""

    def __init__(self, message, code="model_error"):
        super().__init__(message)
        self.code = code


@dataclass
class Model:
    """One model of one provider. `is_gateway`: it is reached through agentainerd, which is told of the run."""

    provider: str
    name: str
    address: str = ""
    key: str = ""
    is_gateway: bool = False

    def stream(self, messages, name="", headers=None):
        """Yield the pieces of the answer as they come, and at the end its usage as {"inputTokens", "outputTokens"}."""
        if self.provider == "script":
            yield from _script(messages)
            return
        body = {
            "model": name or self.name, "messages": messages, "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        fields = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {self.key}",
            **((headers or {}) if self.is_gateway else {}),
        }
        request = urllib.request.Request(f"{self.address}/chat/completions", json.dumps(body).encode(), fields)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                yield from _read(answer)
        except urllib.error.HTTPError as error:
            code = "cost_limit" if error.code == 402 else "model_error"
            raise ModelError(f"{self.provider} answered {error.code}: {_reason(error.read(4096))}", code) from error
        except (OSError, http.client.HTTPException) as error:
            raise ModelError(f"{self.provider} could not be asked: {getattr(error, 'reason', error)}") from error


def choose(environment=os.environ):
    """Return the model that the environment asks for. Raises ModelError where it names a provider that can't be asked."""
    wanted = environment.get("LLM_PROVIDER", "")
    if wanted and wanted not in (*ADDRESSES, "script"):
        raise ModelError(f"LLM_PROVIDER is {wanted!r}, and not one of {', '.join((*ADDRESSES, 'script'))}")
    for provider, (variable, address, name) in ADDRESSES.items():
        key = environment.get(variable, "")
        if provider == wanted and not key:
            raise ModelError(f"LLM_PROVIDER is {wanted}, and {variable} is not set")
        if key and wanted in ("", provider):
            if provider == "openai":
                address = environment.get("OPENAI_BASE_URL", "") or address
            daemon = environment.get("AGENTAINER_URL", "")
            is_gateway = bool(daemon) and address.startswith(f"{daemon}/")
            return Model(provider, environment.get("AGENT_MODEL", "") or name, address.rstrip("/"), key, is_gateway)
    return Model("script", "script")


def _read(answer):
    """Yield the text of a stream of chunks, then its usage. A stream that is cut off is an error."""
    has_ended, usage = False, {}
    for line in answer:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            has_ended = True
            break
        try:
            chunk = json.loads(data)
        except ValueError:
            raise ModelError(f"the model streamed what is no JSON: {data[:80]!r}") from None
        if chunk.get("error"):
            raise ModelError(_reason(data))
        usage = chunk.get("usage") or usage
        for choice in (chunk.get("choices") or ())[:1]:
            if text := (choice.get("delta") or {}).get("content"):
                yield text
            has_ended = has_ended or bool(choice.get("finish_reason"))
    if not has_ended:
        raise ModelError("the model's answer broke off")
    yield {"inputTokens": usage.get("prompt_tokens", 0), "outputTokens": usage.get("completion_tokens", 0)}


def _script(messages):
    said = [message["content"] for message in messages if message["role"] == "user"]
    yield "[script, no model] "
    yield f"You said: {said[-1]} "
    yield f"(message {len(said)})"
    yield {"inputTokens": 0, "outputTokens": 0}


def _reason(body):
    try:
        error = json.loads(body).get("error")
        return error.get("message") if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        return body.decode("utf-8", "replace")[:200]
