"""The bytes of a scripted answer: whole, and as the frames of a stream, in the forms of chat completions and of Responses."""

import dataclasses
import itertools
import json
import re
from dataclasses import dataclass
from typing import Any

from tests.fakes.model_checks import count_tokens
from tests.fakes.model_turns import Faults, ToolCall, Turn

_numbers = itertools.count(1)
CREATED = 1_700_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, both ways."""

    whole: dict[str, Any]
    frames: list[bytes]
    faults: Faults


def chat(body: dict[str, Any], turn: Turn) -> Answer:
    """Return an answer of /v1/chat/completions."""
    turn = _named(turn)
    head = {"id": f"chatcmpl-{next(_numbers)}", "created": CREATED, "model": body["model"]}
    usage = _usage(body, turn, ("prompt_tokens", "completion_tokens"))
    reason = "length" if turn.is_cut_off else "tool_calls" if turn.calls else "stop"
    message: dict[str, Any] = {"role": "assistant", "content": turn.text or None}
    if turn.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _arguments(call)}}
            for call in turn.calls
        ]
    choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
    whole = {**head, "object": "chat.completion", "choices": [choice]}
    if not turn.faults.is_usage_absent:
        whole["usage"] = usage
    head["object"] = "chat.completion.chunk"
    deltas = [{"role": "assistant", "content": ""}, *_deltas(turn)]
    events = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    if not turn.faults.is_finish_absent:
        events.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    if (body.get("stream_options") or {}).get("include_usage") and not turn.faults.is_usage_absent:
        events.append({**head, "choices": [], "usage": usage})
    return Answer(whole, _frames([("", event) for event in events], turn.faults, is_chat=True), turn.faults)


def responses(body: dict[str, Any], turn: Turn) -> Answer:
    """Return an answer of /v1/responses."""
    turn = _named(turn)
    number = next(_numbers)
    output: list[dict[str, Any]] = []
    if turn.text:
        part = {"type": "output_text", "text": turn.text, "annotations": []}
        output.append(
            {"type": "message", "id": f"msg-{number}", "role": "assistant", "status": "completed", "content": [part]}
        )
    output += [
        {
            "type": "function_call", "id": f"fc-{number}-{place}", "call_id": call.id, "name": call.name,
            "arguments": _arguments(call), "status": "completed",
        }
        for place, call in enumerate(turn.calls)
    ]  # fmt: skip
    whole = {
        "id": f"resp-{number}", "object": "response", "created_at": CREATED, "status": "completed", "model": body["model"],
        "output": output, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    }  # fmt: skip
    begun = {**whole, "status": "in_progress", "output": []}
    if not turn.faults.is_usage_absent:
        whole["usage"] = _usage(body, turn, ("input_tokens", "output_tokens"))
    events = [
        ("response.created", {"response": begun}),
        *(
            (
                "response.output_text.delta",
                {"item_id": f"msg-{number}", "output_index": 0, "content_index": 0, "delta": word, "logprobs": []},
            )
            for word in _words(turn)
        ),
        ("response.completed", {"response": whole}),
    ]
    numbered = [(kind, {"type": kind, "sequence_number": place, **event}) for place, (kind, event) in enumerate(events)]
    return Answer(whole, _frames(numbered, turn.faults, is_chat=False), turn.faults)


def embeddings(body: dict[str, Any]) -> dict[str, Any]:
    """Return vectors of /v1/embeddings: of four numbers, the same for the same text."""
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    vectors = [[len(text) / 100, text.count("e") / 10, 0.5, -0.5] for text in map(str, texts)]
    tokens = count_tokens(texts)
    return {
        "object": "list",
        "model": body["model"],
        "data": [{"object": "embedding", "index": place, "embedding": vector} for place, vector in enumerate(vectors)],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _words(turn: Turn) -> list[str]:
    return list(turn.deltas) or re.findall(r"\s*\S+|\s+", turn.text)


def _deltas(turn: Turn) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = [{"reasoning_content": word} for word in re.findall(r"\s*\S+", turn.thinking)]
    deltas += [{"content": word} for word in _words(turn)]
    for place, call in enumerate(turn.calls):
        deltas += [{"tool_calls": [piece]} for piece in _call_pieces(call, place, turn.faults)]
    return deltas


def _call_pieces(call: ToolCall, place: int, faults: Faults) -> list[dict[str, Any]]:
    """Return one call as it comes: id and name first, then its arguments in pieces."""
    index = {} if faults.index == "missing" else {"index": 0 if faults.index == "zero" else place}
    arguments = _arguments(call)
    step = max(16, len(arguments) // 64)
    pieces = [arguments[start : start + step] for start in range(0, len(arguments), step)]
    first: dict[str, Any] = {"arguments": None if faults.null_arguments else ""}
    names: list[dict[str, Any]] = [
        {**index, "id": call.id, "type": "function", "function": {"name": call.name, **first}}
    ]
    if faults.late_name:
        names = [
            {**index, "id": call.id, "type": "function", "function": first},
            {**index, "function": {"name": call.name}},
        ]
    rest = index if faults.index != "zero" else {**index, "id": call.id}
    return [*names, *({**rest, "function": {"arguments": piece}} for piece in pieces)]


def _frames(events: list[tuple[str, dict[str, Any]]], faults: Faults, *, is_chat: bool) -> list[bytes]:
    end = faults.newline
    frames = []
    for place, (kind, event) in enumerate(events):
        name = f"event: {kind}{end}" if kind else ""
        comment = f": PROCESSING{end}{end}" if faults.comments else ""
        frames.append(f"{comment}{name}data: {json.dumps(event, ensure_ascii=False)}{end}{end}".encode())
        if place == faults.error_after:
            error = {
                "error": {
                    "message": "the model is overloaded",
                    "type": "server_error",
                    "param": None,
                    "code": "overloaded",
                }
            }
            return [*frames, f"data: {json.dumps(error)}{end}{end}".encode()]
    if is_chat and not faults.is_done_absent:
        frames.append(f"data: [DONE]{end}{end}".encode())
    return frames


def _usage(body: dict[str, Any], turn: Turn, names: tuple[str, str]) -> dict[str, Any]:
    given, made = names
    came = count_tokens(body.get("messages") or body.get("input")) if turn.input_tokens is None else turn.input_tokens
    went = (
        count_tokens([turn.text, *(_arguments(call) for call in turn.calls)])
        if turn.output_tokens is None
        else turn.output_tokens
    )
    usage: dict[str, Any] = {
        given: came, made: went, "total_tokens": came + went,
        f"{given}_details": {"cached_tokens": turn.cached_tokens}, f"{made}_details": {"reasoning_tokens": turn.reasoning_tokens},
    }  # fmt: skip
    if turn.cost_usd is not None:
        usage["cost"] = turn.cost_usd
    return usage


def _arguments(call: ToolCall) -> str:
    return call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)


def _named(turn: Turn) -> Turn:
    """Give every call an id that no other answer has."""
    number = next(_numbers)
    calls = (dataclasses.replace(call, id=call.id or f"call_{number}_{place}") for place, call in enumerate(turn.calls))
    return dataclasses.replace(turn, calls=tuple(calls))
