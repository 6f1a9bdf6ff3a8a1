"""A call to a model as JSON: what is read of it, and what a provider gets of it. All other fields stay as they were written."""

import msgspec

from agentainerd import offload
from agentainerd.model.providers import Model
from agentainerd.proxy.model_gate import ModelWay
from agentainerd.proxy.target import Target
from agentainerd.version import VERSION

CHAT = "/chat/completions"
EMBEDDINGS = "/embeddings"
PATHS = (CHAT, "/responses", EMBEDDINGS)
OFFLOAD_BYTES = 256 * 1024
_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Head(msgspec.Struct):
    """What is read."""

    model: str = ""
    stream: bool | None = None
    stream_options: dict[str, object] | None = None
    max_tokens: object = None
    max_completion_tokens: object = None
    max_output_tokens: object = None
    n: object = None


_heads = msgspec.json.Decoder(_Head)


class ModelRequest:
    """One call.

    Attributes:
        model: as it was asked for, "" for none. size: of the body, in bytes.
        hides_usage: it is a stream whose usage nobody asked for but us.
        max_output_tokens: the most that it lets a model answer; None: it does not say.
    """

    def __init__(self, path: str, body: bytes) -> None:
        """Read a body. Raises ValueError: it is no request."""
        self.size = len(body)
        try:
            head, self._fields = offload.run(_read, body) if self.size > OFFLOAD_BYTES else _read(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(str(error)) from error
        self.path = path
        self.model = head.model
        self.max_output_tokens = 0 if path == EMBEDDINGS else _output_bound(head)
        options = head.stream_options or {}
        self.hides_usage = path == CHAT and bool(head.stream) and not options.get("include_usage")
        if self.hides_usage:
            self._fields["stream_options"] = msgspec.Raw(msgspec.json.encode({**options, "include_usage": True}))

    def way(self, model: Model, target: Target) -> ModelWay:
        """Return how a model is asked this, at a provider that `target` leads to."""
        provider = model.provider
        key = f"Authorization: Bearer {provider.api_key}\r\n" if provider.api_key else ""
        head = (
            f"POST {provider.path}{self.path} HTTP/1.1\r\nHost: {provider.host_field}\r\n{key}Content-Type: application/json\r\n"
            f"Accept: */*\r\nAccept-Encoding: identity\r\nUser-Agent: agentainer/{VERSION}\r\n"
        )
        self._fields["model"] = msgspec.Raw(msgspec.json.encode(model.name))
        encode, fields = msgspec.json.encode, self._fields
        body = offload.run(encode, fields) if self.size > OFFLOAD_BYTES else encode(fields)
        return ModelWay(model.ref, target, head.encode(), body, hides_usage=self.hides_usage)


def _read(body: bytes) -> tuple[_Head, dict[str, msgspec.Raw]]:
    return _heads.decode(body), _decoder.decode(body)


def _output_bound(head: _Head) -> int | None:
    said = [head.max_completion_tokens, head.max_output_tokens, head.max_tokens]
    bounds = [each for each in said if isinstance(each, int) and each > 0]
    answers = head.n if isinstance(head.n, int) and head.n > 0 else 1
    return bounds[0] * answers if bounds else None
