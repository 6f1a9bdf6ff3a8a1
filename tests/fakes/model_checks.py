"""What a provider refuses: the rules of OpenAI's API that agents break, each answered with OpenAI's error body."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fakes.models import Rules

_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SCHEMA_TYPES = {"object", "array", "string", "number", "integer", "boolean", "null"}
_ROLES = {"system", "developer", "user", "assistant", "tool"}
_PART_TYPES = {"text", "image_url", "input_audio", "file", "refusal"}
MAX_TOOLS = 128


class Refusal(Exception):
    """Why a provider answers with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.fields = dict(fields or {})
        self._error = {"message": message, "type": kind, "param": param, "code": code}

    def content(self) -> dict[str, Any]:
        """Return the body."""
        return {"error": self._error}


@dataclass(frozen=True, slots=True)
class Said:
    """What a request has, for choosing a turn."""

    system: str = ""
    user: str = ""
    tool: str = ""
    model: str = ""
    tools: list[str] = field(default_factory=list)


def check_headers(headers: Mapping[str, str], keys: tuple[str, ...]) -> None:
    """Check who calls, and what nobody outside has any business to see."""
    scheme, _, key = (headers.get("Authorization") or "").partition(" ")
    if scheme != "Bearer" or not key:
        raise Refusal(401, "You didn't provide an API key.", code="missing_api_key")
    if key not in keys:
        raise Refusal(401, f"Incorrect API key provided: {key[:3]}***.", code="invalid_api_key")
    for name in headers:
        if name.lower().startswith(("x-agentainer-", "x-forwarded-")):
            raise Refusal(400, f"{name} is nothing that a provider is told")


def check_chat(body: dict[str, Any], rules: "Rules") -> None:
    """Check a request to /v1/chat/completions."""
    _check_model(body, rules)
    _check_stream(body, rules)
    tools = body.get("tools")
    if tools is not None:
        _check_tools([tool.get("function") if isinstance(tool, dict) else None for tool in _list(body, "tools")])
    elif "tool_choice" in body:
        raise Refusal(400, "'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refusal(400, "'messages' must be a list that is not empty.", param="messages")
    _check_messages(messages, rules)
    _check_size(body, rules)


def check_responses(body: dict[str, Any], rules: "Rules") -> None:
    """Check a request to /v1/responses."""
    _check_model(body, rules)
    if "stream_options" in body and "include_usage" in (body["stream_options"] or {}):
        raise Refusal(400, "Unknown parameter: 'stream_options.include_usage'.", param="stream_options")
    if not body.get("input"):
        raise Refusal(400, "Missing required parameter: 'input'.", param="input")
    if body.get("tools") is not None:
        _check_tools(_list(body, "tools"))
    if isinstance(body["input"], list):
        calls = {item.get("call_id") for item in body["input"] if item.get("type") == "function_call"}
        outputs = [item.get("call_id") for item in body["input"] if item.get("type") == "function_call_output"]
        if sorted(map(str, calls)) != sorted(map(str, outputs)):
            raise Refusal(400, "No tool output found for function call, or no call for an output.", param="input")
    _check_size(body, rules)


def check_embeddings(body: dict[str, Any], rules: "Rules") -> None:
    """Check a request to /v1/embeddings."""
    _check_model(body, rules)
    if not body.get("input"):
        raise Refusal(400, "'input' must not be empty.", param="input")


def count_tokens(value: Any) -> int:
    """Return about how many tokens a text, or all texts in a value, are."""
    if isinstance(value, str):
        return len(value) // 4 + 1
    if isinstance(value, Mapping):
        return sum(count_tokens(each) for each in value.values())
    if isinstance(value, list | tuple):
        return sum(count_tokens(each) for each in value)
    return 0


def said(body: dict[str, Any]) -> Said:
    """Return what a request has, whichever API it is for."""
    tools = [tool.get("function", tool).get("name", "") for tool in body.get("tools") or []]
    if "messages" not in body:
        return _said_to_responses(body, tools)
    messages = body["messages"]
    system = "\n".join(_text(each) for each in messages if each["role"] in ("system", "developer"))
    users = [_text(each) for each in messages if each["role"] == "user"]
    outputs = []
    for message in reversed(messages):
        if message["role"] != "tool":
            break
        outputs.insert(0, _text(message))
    return Said(system, users[-1] if users else "", "\n".join(outputs), body["model"], tools)


def _said_to_responses(body: dict[str, Any], tools: list[str]) -> Said:
    given = body.get("input")
    if not isinstance(given, list):
        return Said(body.get("instructions") or "", str(given or ""), "", body["model"], tools)
    users = [_text(item) for item in given if item.get("role") == "user"]
    outputs = [str(item.get("output")) for item in given if item.get("type") == "function_call_output"]
    return Said(body.get("instructions") or "", users[-1] if users else "", "\n".join(outputs), body["model"], tools)


def _check_model(body: dict[str, Any], rules: "Rules") -> None:
    if not isinstance(body.get("model"), str):
        raise Refusal(400, "you must provide a model parameter", param="model")
    if body["model"] not in rules.models:
        raise Refusal(404, f"The model `{body['model']}` does not exist.", param="model", code="model_not_found")


def _check_stream(body: dict[str, Any], rules: "Rules") -> None:
    options = body.get("stream_options")
    if options is not None and not body.get("stream"):
        raise Refusal(400, "'stream_options' is only allowed when 'stream' is true.", param="stream_options")
    if rules.needs_usage and body.get("stream") and not (options or {}).get("include_usage"):
        raise Refusal(400, "a stream has to ask for its usage (stream_options.include_usage)", param="stream_options")


def _check_tools(tools: list[Any]) -> None:
    if not tools or len(tools) > MAX_TOOLS:
        raise Refusal(400, f"'tools' must be a list of 1 to {MAX_TOOLS}.", param="tools")
    for tool in tools:
        if not isinstance(tool, dict) or not _TOOL_NAME.fullmatch(str(tool.get("name", ""))):
            raise Refusal(400, "a tool has no 'name' of letters, digits, '_' and '-'.", param="tools")
        parameters = tool.get("parameters", {"type": "object"})
        if not isinstance(parameters, dict) or parameters.get("type") != "object":
            raise Refusal(400, f"schema of '{tool['name']}' is not of type object.", param="tools")
        _check_schema(parameters, tool["name"])
    names = [tool["name"] for tool in tools]
    if len(set(names)) != len(names):
        raise Refusal(400, "two tools have one name.", param="tools")


def _check_schema(schema: Any, tool: str) -> None:
    def wrong(reason: str) -> Refusal:
        return Refusal(
            400, f"Invalid schema for function '{tool}': {reason}.", param="tools", code="invalid_function_parameters"
        )

    if not isinstance(schema, dict):
        raise wrong("a schema is not an object")
    kinds = schema.get("type", [])
    if not set(kinds if isinstance(kinds, list) else [kinds]) <= _SCHEMA_TYPES:
        raise wrong(f"{kinds!r} is not a type")
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        raise wrong("'properties' is not an object")
    required = schema.get("required", [])
    if not isinstance(required, list) or not set(map(str, required)) <= set(properties):
        raise wrong("'required' names what is no property")
    if "array" in (kinds if isinstance(kinds, list) else [kinds]) and "items" not in schema:
        raise wrong("array schema missing items")
    for inner in [*properties.values(), *([schema["items"]] if "items" in schema else []), *schema.get("anyOf", [])]:
        _check_schema(inner, tool)


def _check_messages(messages: list[Any], rules: "Rules") -> None:
    waiting: list[str] = []
    before = ""
    for number, message in enumerate(messages):
        at = f"messages.[{number}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _ROLES:
            raise Refusal(400, f"Invalid value: {role!r} is not a role.", param=f"{at}.role")
        _check_content(message, role, at)
        if role == "tool":
            if message.get("tool_call_id") not in waiting:
                raise Refusal(
                    400,
                    "messages with role 'tool' must be a response to a preceding message with 'tool_calls'.",
                    param=at,
                )
            waiting.remove(message["tool_call_id"])
            before = role
            continue
        if waiting:
            raise Refusal(
                400,
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
                f"The following tool_call_ids did not have response messages: {', '.join(waiting)}",
                param="messages",
            )
        if rules.alternates and role == before and role in ("user", "assistant"):
            raise Refusal(400, f"roles must alternate: {at} is a second {role} in a row", param=f"{at}.role")
        waiting = _calls_of(message, at) if role == "assistant" else []
        before = role
    if waiting:
        raise Refusal(400, f"tool_call_ids did not have response messages: {', '.join(waiting)}", param="messages")


def _check_content(message: dict[str, Any], role: str, at: str) -> None:
    content = message.get("content")
    if content is None and role == "assistant" and message.get("tool_calls"):
        return
    if isinstance(content, str):
        return
    if not isinstance(content, list) or not content:
        raise Refusal(400, f"Invalid type for '{at}.content': expected a string or a list.", param=f"{at}.content")
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in _PART_TYPES:
            raise Refusal(400, f"Invalid value in '{at}.content': no such part.", param=f"{at}.content")


def _calls_of(message: dict[str, Any], at: str) -> list[str]:
    calls = message.get("tool_calls")
    if calls is None:
        return []
    if not isinstance(calls, list) or not calls:
        raise Refusal(400, f"'{at}.tool_calls' must be a list that is not empty.", param=f"{at}.tool_calls")
    ids = []
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or call.get("type") != "function" or not isinstance(call.get("id"), str):
            raise Refusal(400, f"'{at}.tool_calls' has what is no call of a function.", param=f"{at}.tool_calls")
        if not isinstance(function.get("name"), str) or not isinstance(function.get("arguments"), str):
            raise Refusal(400, f"'{at}.tool_calls' needs name and arguments, both text.", param=f"{at}.tool_calls")
        ids.append(call["id"])
    if len(set(ids)) != len(ids):
        raise Refusal(400, f"Duplicate value for 'tool_call_id' in '{at}'.", param=f"{at}.tool_calls")
    return ids


def _check_size(body: dict[str, Any], rules: "Rules") -> None:
    size = count_tokens(body.get("messages") or body.get("input"))
    if size > rules.context_tokens:
        raise Refusal(
            400,
            f"This model's maximum context length is {rules.context_tokens} tokens. However, your messages resulted in {size} tokens.",
            param="messages",
            code="context_length_exceeded",
        )


def _list(body: dict[str, Any], name: str) -> list[Any]:
    value = body[name]
    if not isinstance(value, list):
        raise Refusal(400, f"'{name}' must be a list.", param=name)
    return value


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return str(content or "")
