"""What of a conversation a model is sent: in an order, and with the results, that every provider takes."""

from collections.abc import Sequence

from agentainer_runtime.conversations import Message

_SUMMARY = "What happened before in this conversation, in short:\n\n"


def view(system: str, messages: Sequence[Message], summary: str = "", covers: int = 0) -> list[Message]:
    """Return the messages to send; with a summary, it is in place of the first `covers`.

    Two messages of the user, or two plain ones of the assistant, that follow each other become one. What the assistant said is
    never the first.
    """
    shown: list[Message] = [{"role": "system", "content": system}]
    if summary:
        shown.append({"role": "user", "content": _SUMMARY + summary})
    for message in messages[covers if summary else 0 :]:
        last = shown[-1]
        if message["role"] == "assistant" and last["role"] == "system":
            shown.append({"role": "user", "content": "(The conversation began before this.)"})
        if _can_join(last, message):
            shown[-1] = {**last, "content": f"{last['content']}\n\n{message['content']}"}
        else:
            shown.append(message)
    return shown


def _can_join(one: Message, other: Message) -> bool:
    return (
        one["role"] == other["role"] in ("user", "assistant")
        and not one.get("tool_calls")
        and not other.get("tool_calls")
        and isinstance(one.get("content"), str)
        and isinstance(other.get("content"), str)
    )
