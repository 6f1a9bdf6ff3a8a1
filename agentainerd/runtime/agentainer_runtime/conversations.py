"""Conversations as models take them: messages in the form of chat completions, one file a thread, appended.

A record of the file is `{"message": {...}, "id": "..."}`, or `{"summary": text, "covers": N}`: the first N messages may be
replaced by that text in what a model is sent. Nothing is ever taken out. `{"pending": {...}}` is a call that waits for a person,
and `{"pending": null, "allowed": action}` says that it was answered.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentainer_runtime.approvals import Pending
from agentainer_runtime.event_log import decode, encode

Message = dict[str, Any]
INTERRUPTED = (
    "The end of the run, or a restart, came while this tool was at work. Whether it had an effect is not known: "
    "look before you repeat it."
)
NOT_ANSWERED = "(The run ended before I answered.)"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


class Conversation:
    """One thread. Messages are on disk when `add` returns, but for a loss of power.

    `pending`: the call that waits for a person, None for none. `allowed`: the actions that they allowed here.
    """

    def __init__(self, path: Path | None) -> None:
        """Read what is there; None is a conversation that is not kept."""
        self._path = path
        self.messages: list[Message] = []
        self.ids: set[str] = set()
        self.summary = ""
        self.covers = 0
        self.pending: Pending | None = None
        self.allowed: set[str] = set()
        if path is not None and path.exists():
            self._load(path)

    def add(self, message: Message, message_id: str = "") -> None:
        """Append a message; `message_id` is its name at the client, by which it is not taken twice.

        Raises:
            OSError: it could not be written.
        """
        self._write({"message": message, **({"id": message_id} if message_id else {})})
        self.messages.append(message)
        self.ids.add(message_id)

    def summarize(self, text: str, covers: int) -> None:
        """Have the first `covers` messages represented by a text.

        Raises:
            OSError: it could not be written.
        """
        self._write({"summary": text, "covers": covers})
        self.summary, self.covers = text, covers

    def wait_for(self, pending: Pending) -> None:
        """Have a call wait for a person.

        Raises:
            OSError: it could not be written.
        """
        self._write({"pending": asdict(pending)})
        self.pending = pending

    def settle(self, allowed: str = "") -> None:
        """Have no call wait any more; `allowed` is the action that may be done from now on, "" for none.

        Raises:
            OSError: it could not be written.
        """
        self._write({"pending": None, **({"allowed": allowed} if allowed else {})})
        self.pending = None
        if allowed:
            self.allowed.add(allowed)

    def take(self, given: Iterable[dict[str, Any]]) -> None:
        """Add what a client sent and this conversation has not: all of it to an empty one, else what its user said last.

        A client's history has less than ours (no calls of tools), so ours counts where there is one. What the user asked for in
        a run that ended without an answer is marked as that: nobody who cancels something wants it done with the next question.

        Raises:
            OSError: it could not be written.
        """
        self.repair()
        messages = [each for each in given if each.get("role") in ("user", "assistant", "system", "developer", "tool")]
        if self.messages:
            answered = max((n for n, each in enumerate(messages) if each["role"] in ("assistant", "tool")), default=-1)
            messages = [each for each in messages[answered + 1 :] if each["role"] == "user"]
        new = [each for each in messages if not each.get("id") or str(each["id"]) not in self.ids]
        if new and self.messages and self.messages[-1]["role"] == "user":
            self.add({"role": "assistant", "content": NOT_ANSWERED})
        for each in new:
            self.add(from_agui(each), str(each.get("id") or ""))
        self.repair()

    def repair(self) -> None:
        """Give the calls of the last answer that have no result one that says so, but for the one that waits for a person. For
        whoever goes on with the conversation, not for who only looks at it: the tools may be at work.

        Raises:
            OSError: it could not be written.
        """
        for result in missing_results(self.messages):
            if self.pending is None or result["tool_call_id"] != self.pending.call_id:
                self.add(result)

    def _write(self, record: dict[str, Any]) -> None:
        if self._path is None:
            return
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            line = encode(record) + b"\n"
            if os.write(file, line) < len(line):
                raise OSError(f"{self._path}: no space left")
        finally:
            os.close(file)

    def _load(self, path: Path) -> None:
        end = 0
        with open(path, "rb") as lines:
            for line in lines:
                record = decode(line)
                if record is None:
                    break
                end += len(line)
                if "summary" in record:
                    self.summary, self.covers = record["summary"], record["covers"]
                elif "pending" in record:
                    self.pending = Pending(**record["pending"]) if record["pending"] else None
                    self.allowed |= {record["allowed"]} if "allowed" in record else set()
                else:
                    self.messages.append(record["message"])
                    self.ids.add(record.get("id", ""))
        os.truncate(path, end)


class Conversations:
    """All threads of a workspace, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, thread_id: str) -> bool:
        """Whether something was said in a thread."""
        return (self._folder / f"{file_name(thread_id)}.jsonl").exists()

    def open(self, thread_id: str, *, is_fresh: bool = False) -> Conversation:
        """Return a thread's conversation, as it is on disk; with `is_fresh` what is there is set aside.

        Raises:
            OSError: it can't be read or written.
        """
        path = self._folder / f"{file_name(thread_id)}.jsonl"
        if is_fresh and path.exists():
            path.rename(path.with_suffix(".old"))
        return Conversation(path)

    def forget(self, name: str) -> None:
        """Remove the conversation of this file name, and what was set aside of it."""
        for suffix in ("jsonl", "old"):
            (self._folder / f"{name}.{suffix}").unlink(missing_ok=True)


def file_name(name: str) -> str:
    """Return a name that is safe for a file: the same one where it is, else a hash of it."""
    return (
        name if _PLAIN_NAME.fullmatch(name) else "h-" + hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:40]
    )


def from_agui(message: dict[str, Any]) -> Message:
    """Return a message of AG-UI in the form of chat completions; parts that are not text or images become text."""
    role, content = message["role"], message.get("content")
    if role == "assistant":
        calls = [
            {"id": call["id"], "type": "function", "function": dict(call["function"])}
            for call in message.get("toolCalls") or ()
        ]
        return {
            "role": role,
            "content": content or None if calls else content or "",
            **({"tool_calls": calls} if calls else {}),
        }
    if role == "tool":
        return {"role": role, "tool_call_id": str(message.get("toolCallId", "")), "content": _text(content)}
    if isinstance(content, list):
        return {"role": role, "content": [_part(part) for part in content if isinstance(part, dict)]}
    return {"role": "system" if role == "developer" else role, "content": str(content or "")}


def missing_results(messages: list[Message]) -> list[Message]:
    """Return what is said in place of results that the last answer's calls never got; a model refuses calls without."""
    for number in range(len(messages) - 1, -1, -1):
        if messages[number]["role"] == "assistant":
            had = {each.get("tool_call_id") for each in messages[number + 1 :]}
            calls = [call["id"] for call in messages[number].get("tool_calls", ())]
            content = json.dumps({"error": INTERRUPTED})
            return [{"role": "tool", "tool_call_id": call, "content": content} for call in calls if call not in had]
    return []


def _text(content: object) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


def _part(part: dict[str, Any]) -> dict[str, Any]:
    source = part.get("source")
    if part.get("type") == "image" and isinstance(source, dict):
        value = str(source.get("value", ""))
        kind = source.get("mimeType") or "image/png"
        return {
            "type": "image_url",
            "image_url": {"url": value if source.get("type") == "url" else f"data:{kind};base64,{value}"},
        }
    if part.get("type") == "text":
        return {"type": "text", "text": str(part.get("text", ""))}
    return {"type": "text", "text": f"[{part.get('type')} that can't be shown here]"}
