"""What a request asks for, as a `RunInput`: AG-UI's RunAgentInput, or a prompt alone."""

import math
import uuid
from collections.abc import Mapping
from typing import Any

from agentainer_runtime.runs import JobOrder, RunInput

_MAX_ID_CHARS = 256
_ROLES = ("user", "assistant", "system", "developer", "tool", "reasoning", "activity")


class InvalidInput(ValueError):
    """The request can't be understood; the text names the field and says what it may be."""


def run_input(body: object, headers: Mapping[str, str]) -> RunInput:
    """Return what is asked for. Ids that are in neither body nor headers are new.

    Raises:
        InvalidInput: it is neither a RunAgentInput nor has it a `prompt` or `input`.
    """
    if not isinstance(body, dict):
        raise InvalidInput("the body is not a JSON object")
    run_id = _id(body, headers, "runId", "x-agentainer-run-id", "x-run-id")
    thread_id = _id(
        body,
        headers,
        "threadId",
        "x-agentainer-session-id",
        "x-amzn-bedrock-agentcore-runtime-session-id",
        otherwise=run_id,
    )
    messages = _messages(body)
    props = body.get("forwardedProps")
    props = props if isinstance(props, dict) else {}
    limits = props.get("limits")
    limits = limits if isinstance(limits, dict) else {}
    steps = _limit(limits, "steps")
    model = props.get("model")
    if model is not None and not isinstance(model, str):
        raise InvalidInput("forwardedProps.model is not a text")
    return RunInput(
        run_id,
        thread_id,
        _with_media(messages, props.get("media")),
        steps=None if steps is None else max(1, math.floor(steps)),
        wall_s=_limit(limits, "wall_s"),
        cost_usd=_limit(limits, "cost_usd"),
        model=model or "",
        job=_job(props.get("job")),
        resume=_resume(body.get("resume")),
        work_id=headers.get("x-agentainer-run-id", ""),
    )


def user_message(text: str) -> dict[str, Any]:
    """Return AG-UI's message of a user."""
    return {"id": f"msg_{uuid.uuid4().hex}", "role": "user", "content": text}


def _messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    messages = body.get("messages")
    if messages is None:
        prompt = next((body[name] for name in ("prompt", "input") if isinstance(body.get(name), str)), "")
        if not prompt.strip():
            raise InvalidInput("the body has neither `messages` (RunAgentInput) nor a `prompt`")
        return [user_message(prompt)]
    if not isinstance(messages, list) or not (messages or body.get("resume")):
        raise InvalidInput("messages is not a list with at least one message")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise InvalidInput(f"messages[{number}] is not an object with a role of {', '.join(_ROLES)}")
        if not isinstance(message.get("content"), str | list | dict | None):
            raise InvalidInput(f"messages[{number}].content is neither text nor a list of parts")
        _check_calls(message, number)
    return messages


def _check_calls(message: dict[str, Any], number: int) -> None:
    calls = message.get("toolCalls") or []
    if not isinstance(calls, list) or not all(_is_call(call) for call in calls):
        raise InvalidInput(f"messages[{number}].toolCalls is not a list of calls with id and function")


def _is_call(call: object) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    return (
        isinstance(call, dict)
        and isinstance(call.get("id"), str)
        and isinstance(function, dict)
        and isinstance(function.get("name"), str)
    )


def _with_media(messages: list[dict[str, Any]], media: object) -> list[dict[str, Any]]:
    """Say in the user's last message what was attached to it; images go as images."""
    entries = [each for each in media if isinstance(each, dict)] if isinstance(media, list) else []
    if not entries or not messages or messages[-1]["role"] != "user":
        return messages
    last = messages[-1]
    content = last.get("content") or ""
    parts: list[dict[str, Any]] = content if isinstance(content, list) else [{"type": "text", "text": str(content)}]
    for entry in entries:
        url = entry.get("url")
        if entry.get("type") == "image" and isinstance(url, str):
            parts = [*parts, {"type": "image", "source": {"type": "url", "value": url}}]
        else:
            named = " ".join(str(entry[name]) for name in ("type", "name", "url", "path") if entry.get(name))
            parts = [*parts, {"type": "text", "text": f"[attached: {named}]"}]
    return [*messages[:-1], {**last, "content": parts}]


def _job(job: object) -> JobOrder | None:
    if job is None:
        return None
    if not isinstance(job, dict):
        raise InvalidInput("forwardedProps.job is not an object")
    job_id, attempt, output_dir = job.get("id"), job.get("attempt", 1), job.get("output_dir", "")
    if not isinstance(job_id, str) or not 0 < len(job_id) <= _MAX_ID_CHARS or not job_id.isprintable():
        raise InvalidInput(f"forwardedProps.job.id is not a text of 1 to {_MAX_ID_CHARS} characters")
    if isinstance(attempt, bool) or not isinstance(attempt, int) or attempt < 1:
        raise InvalidInput("forwardedProps.job.attempt is not a whole number over 0")
    if not isinstance(output_dir, str):
        raise InvalidInput("forwardedProps.job.output_dir is not a text")
    return JobOrder(job_id, attempt, output_dir)


def _id(body: dict[str, Any], headers: Mapping[str, str], field: str, *names: str, otherwise: str = "") -> str:
    value = body.get(field)
    if value is None:
        value = next((headers[name] for name in names if headers.get(name)), None) or otherwise or str(uuid.uuid4())
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_ID_CHARS:
        raise InvalidInput(f"{field} is not a text of 1 to {_MAX_ID_CHARS} characters")
    return value


def _resume(entries: object) -> tuple[dict[str, Any], ...]:
    if not isinstance(entries, list | None) or not all(_is_answer(each) for each in entries or ()):
        raise InvalidInput("resume is not a list of objects with interruptId and status (resolved, cancelled)")
    return tuple(entries or ())


def _is_answer(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("interruptId"), str)
        and entry.get("status") in ("resolved", "cancelled")
    )


def _limit(limits: dict[str, Any], name: str) -> float | None:
    value = limits.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidInput(f"forwardedProps.limits.{name} is not a number over 0")
    return float(value)
