"""How containers answer that speak chat completions (openai), or the autonomous-agent document's /agent/execute (bridge)."""

import uuid
from collections.abc import Iterator
from typing import Any

from agentainerd.model.agui import Event, EventType
from agentainerd.model.bridge_rules import RULES, Finding, Outcome
from agentainerd.model.openai_events import DONE, ChatCompletionEvents
from agentainerd.services.bridge_invocations import ASK_S, alike, answered, bad_request
from agentainerd.services.bridge_trials import JSON, SSE, UNKNOWN_HEADER, Heard, Trial, decoded, names, shown

CHAT = "/v1/chat/completions"
EXECUTE = "/agent/execute"
TEXTS = (EventType.TEXT_MESSAGE_CONTENT, EventType.TOOL_CALL_START)


def chat_checks(trial: Trial) -> Iterator[Finding]:
    """Check an OpenAI-compatible server."""
    models = trial.ask("GET", "/v1/models", timeout_s=ASK_S)
    listed = decoded(models.body)
    has_models = models.status == 200 and isinstance(listed, dict) and isinstance(listed.get("data"), list)
    yield RULES["models"].found(
        Outcome.PASS if has_models else Outcome.SKIP, models.summary if not has_models else f"{len(listed['data'])} of them"
    )  # fmt: skip
    heard = _complete(trial, _said(trial.task))
    yield from _completion(heard)
    talk = [*_said("Hello."), {"role": "assistant", "content": "Hello. What can I do?"}, *_said(trial.task)]
    yield alike("history", _complete(trial, talk), heard)
    odd = [{**_said(trial.task)[0], "not_yet_known": True}]
    yield alike("unknown_fields", _complete(trial, odd, UNKNOWN_HEADER, not_yet_known={"a": [1]}), heard)
    yield bad_request(trial, CHAT, b'{"messages": [')


def execute_checks(trial: Trial) -> Iterator[Finding]:
    """Check a container of the autonomous-agent document."""
    status = trial.ask("GET", "/agent/status", timeout_s=ASK_S)
    told = decoded(status.body)
    is_told = status.status == 200 and isinstance(told, dict) and isinstance(told.get("initialized"), bool)
    yield RULES["initialized"].found(Outcome.PASS if is_told else Outcome.FAIL, status.summary)
    run_id = str(uuid.uuid4())
    heard = trial.hear("POST", EXECUTE, {"task": trial.task, "conversationHistory": []}, headers=names(run_id))
    yield from _execution(heard)
    body = {"task": trial.task, "conversationHistory": [], "notYetKnown": {"a": [1]}}
    again = trial.hear("POST", EXECUTE, body, headers={**names(run_id), **UNKNOWN_HEADER})
    yield alike("unknown_fields", again, heard)
    yield bad_request(trial, EXECUTE, b'{"task": ')


def _said(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def _complete(
    trial: Trial, messages: list[dict[str, Any]], headers: dict[str, str] | None = None, **more: object
) -> Heard:
    """Ask as the daemon does."""
    run_id = str(uuid.uuid4())
    body = {
        "model": "agent", "messages": messages, "stream": True, "stream_options": {"include_usage": True}, **more,
    }  # fmt: skip
    return trial.hear("POST", CHAT, body, headers={**names(run_id), **(headers or {})})


def _events(heard: Heard) -> list[Event]:
    """Return what the daemon makes of the answer."""
    chat = ChatCompletionEvents("thread", "run")
    if not heard.is_stream:
        return chat.whole(heard.body)
    events = [event for message in heard.messages for event in chat.feed(message.data)]
    return [*events, *chat.end()]


def _completion(heard: Heard) -> Iterator[Finding]:
    yield (answer := answered(heard, SSE, JSON))
    if answer.outcome is Outcome.FAIL:
        for name in ("streamed", "end", "task", "text", "usage"):
            yield RULES[name].found(Outcome.SKIP, "there was no answer")
        return
    streamed = (
        f"{len(heard.messages)} chunks" if heard.is_stream else "one answer: nothing is seen of it before its end"
    )
    yield RULES["streamed"].found(Outcome.PASS if heard.is_stream else Outcome.SKIP, streamed)
    yield _end(heard)
    events = _events(heard)
    ending = events[-1]
    is_done = ending["type"] == EventType.RUN_FINISHED
    yield RULES["task"].found(
        Outcome.PASS if is_done else Outcome.FAIL, "it was answered" if is_done else f"{ending['message']:.200}"
    )
    text = "".join(event["delta"] for event in events if event["type"] == EventType.TEXT_MESSAGE_CONTENT)
    has_text = any(event["type"] in TEXTS for event in events)
    yield RULES["text"].found(Outcome.PASS if has_text else Outcome.FAIL, text.strip()[:80] or "no text")
    usage = (ending.get("result") or {}).get("usage") if is_done else None
    seen = (
        shown({name: count for name, count in usage.items() if count})
        if usage
        else "none: the run's tokens will not be known"
    )
    yield RULES["usage"].found(Outcome.PASS if usage else Outcome.SKIP, seen)


def _end(heard: Heard) -> Finding:
    rule = RULES["end"]
    if not heard.is_stream:
        return rule.found(Outcome.SKIP, "it was no stream")
    if heard.problem:
        return rule.found(Outcome.FAIL, heard.problem)
    has_done = any(message.data.strip() == DONE for message in heard.messages)
    reasons = [reason for message in heard.messages if (reason := _finish_reason(decoded(message.data)))]
    seen = " and ".join([*(["[DONE]"] if has_done else []), *[f"finish_reason {reason}" for reason in reasons[-1:]]])
    return rule.found(Outcome.PASS if seen else Outcome.FAIL, seen or "neither [DONE] nor a finish_reason")


def _finish_reason(chunk: object) -> str:
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    return str(choice.get("finish_reason") or "") if isinstance(choice, dict) else ""


def _execution(heard: Heard) -> Iterator[Finding]:
    yield (answer := answered(heard, SSE))
    if answer.outcome is Outcome.FAIL:
        for name in ("frames", "done", "task", "text"):
            yield RULES[name].found(Outcome.SKIP, "there was no stream of frames")
        return
    frames = [decoded(message.data) for message in heard.messages]
    kinds = [frame.get("type") if isinstance(frame, dict) else None for frame in frames]
    wrong = [place for place, kind in enumerate(kinds, 1) if not isinstance(kind, str)]
    seen = f"frame {wrong[0]} is {heard.messages[wrong[0] - 1].data!r:.60}" if wrong else f"{len(frames)} frames"
    yield RULES["frames"].found(Outcome.FAIL if wrong else Outcome.PASS, seen)
    ends = [place for place, kind in enumerate(kinds, 1) if kind in ("done", "error")]
    is_last = ends == [len(frames)]
    yield RULES["done"].found(
        Outcome.PASS if is_last else Outcome.FAIL,
        f"{kinds[-1]}"
        if is_last
        else f"done or error is frame {ends or 'none'} of {len(frames)}; {heard.problem}".strip("; "),
    )
    error = next(
        (frame.get("error") for frame in frames if isinstance(frame, dict) and frame.get("type") == "error"), None
    )
    is_done = "done" in kinds and error is None
    yield RULES["task"].found(
        Outcome.PASS if is_done else Outcome.FAIL, "done" if is_done else f"{error or 'it was not done'!s:.200}"
    )
    text = "".join(
        str(frame.get("content") or "") for frame in frames if isinstance(frame, dict) and frame.get("type") == "text"
    )
    yield RULES["text"].found(Outcome.PASS if text.strip() else Outcome.FAIL, text.strip()[:80] or "no text")
