"""What of a conversation a model is sent: in an order, and with the results, that every provider takes."""

from collections.abc import Sequence

from agentainer_runtime.conversations import Message

_SUMMARY = "What happened before in this conversation, in short:\n\n"


def view(system: str, messages: Sequence[Message], summary: str = "", covers: int = 0) -> list[Message]:
    """Return the messages to send; with a summary, it is in place of the first `covers`, but for the first (`opening`).

    Two messages of the user, or of the assistant where the first calls no tool, that follow each other become one. What the
    assistant said is never the first.
    """
    shown: list[Message] = [{"role": "system", "content": system}]
    before = [*messages[: opening(messages)], {"role": "user", "content": _SUMMARY + summary}] if summary else []
    for message in [*before, *messages[covers if summary else 0 :]]:
        last = shown[-1]
        if message["role"] == "assistant" and last["role"] == "system":
            shown.append({"role": "user", "content": "(The conversation began before this.)"})
        if _can_join(last, message):
            shown[-1] = {**last, **message, "content": _joined(last, message)}
        else:
            shown.append(message)
    return shown


def shortened(text: str, room: int) -> str:
    """Return `text`, or its first and last part with a note between them where it has more than `room` characters."""
    if len(text) <= room:
        return text
    return f"{text[: room // 2]}\n[... {len(text) - room} characters ...]\n{text[-room // 2 :]}"


def opening(messages: Sequence[Message]) -> int:
    """Return how many messages begin a conversation: the first two, and the results of what the second one calls."""
    count = min(2, len(messages))
    while count < len(messages) and messages[count]["role"] == "tool":
        count += 1
    return count


def _can_join(one: Message, other: Message) -> bool:
    if one["role"] != other["role"] or one["role"] not in ("user", "assistant") or one.get("tool_calls"):
        return False
    return all(isinstance(each.get("content") or "", str) for each in (one, other))


def _joined(one: Message, other: Message) -> str:
    return "\n\n".join(filter(None, [one.get("content"), other.get("content")]))
