"""Conversations that get too long: what the model is sent gets shorter, in a form that every provider takes."""

import asyncio
import json

import pytest
from agentainer_runtime.compression import MUST_SHRINK, Context, estimate
from agentainer_runtime.conversations import Conversation
from agentainer_runtime.provider import End, ModelFailed, Text, Usage
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.model_checks import check_chat
from tests.fakes.models import Rules

LIMIT = 2000


class Summarizer:
    """Says the same to everyone, and keeps what it was asked."""

    def __init__(self, text="in short"):
        self.text = text
        self.asked = []

    async def answer(self, request):
        self.asked.append(request)
        yield Text(self.text)
        yield End("stop", Usage(10, 5))

    async def close(self):
        pass


def conversation_of(kinds, sizes=(300,)):
    """Return a conversation: u the user, a the assistant, t a call with its result, p two calls at once."""
    conversation = Conversation(None)
    for number, kind in enumerate(kinds):
        text = f"{kind}{number} " + "x" * sizes[number % len(sizes)]
        if kind in "ua":
            conversation.add({"role": "user" if kind == "u" else "assistant", "content": text})
            continue
        ids = [f"c{number}-{n}" for n in range(2 if kind == "p" else 1)]
        calls = [{"id": each, "type": "function", "function": {"name": "ls", "arguments": "{}"}} for each in ids]
        conversation.add({"role": "assistant", "content": None, "tool_calls": calls})
        for each in ids:
            conversation.add({"role": "tool", "tool_call_id": each, "content": json.dumps({"out": text})})
    return conversation


def context_of(conversation, limit=LIMIT, *, is_compressing=True):
    return Context("be good", conversation, [], limit=limit, is_compressing=is_compressing)


def check(messages):
    """Hold messages against the rules of a provider."""
    body = {"model": "m", "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
    check_chat(body, Rules(models=("m",), context_tokens=10**9))


def summarize(context, provider):
    return asyncio.run(context.summarize(provider, "m", {}))


@given(st.text(alphabet="atp", min_size=1, max_size=30), st.lists(st.integers(10, 3000), min_size=1, max_size=5))
def test_whatever_it_is_made_of_a_provider_takes_what_is_left(kinds, sizes):
    kinds = "u" + kinds.replace("aa", "au")
    conversation = conversation_of(kinds if kinds[-1] != "a" else kinds + "u", sizes)
    context = context_of(conversation)
    before = estimate(context.messages())

    context.leave_out()
    check(context.messages())
    try:
        summarize(context, Summarizer())
    except ModelFailed:
        return
    check(context.messages())
    assert estimate(context.messages()) <= MUST_SHRINK * before
    assert context.messages()[1]["content"].startswith("u0")


def test_old_output_is_left_out_where_that_makes_much_room_and_what_is_latest_stays():
    conversation = conversation_of("uttttttu", [1500])
    context = context_of(conversation)

    assert context.is_full
    assert context.leave_out()

    outputs = [message["content"] for message in context.messages() if message["role"] == "tool"]
    assert "left out" in outputs[0]
    assert "xxx" in outputs[-1]
    assert "xxx" in conversation.messages[2]["content"]
    assert not context.leave_out()


def test_little_output_is_not_worth_it():
    assert not context_of(conversation_of("utua" * 3, [250])).leave_out()


def test_the_summary_stands_for_all_but_the_first_and_the_latest_and_is_made_of_them():
    conversation = conversation_of("utatau", [900])
    context, provider = context_of(conversation), Summarizer()

    usage = summarize(context, provider)

    shown = context.messages()
    assert usage == Usage(10, 5)
    assert shown[1]["content"].startswith("u0")
    assert "in short" in shown[4]["content"]
    assert shown[-1]["content"].endswith("x" * 900)
    assert "t1" in provider.asked[0].messages[1]["content"]
    assert provider.asked[0].tools == []
    assert len(conversation.messages) == 8


@pytest.mark.parametrize(
    ("kinds", "first"), [("uatatau", ["u0", "a1"]), ("uuatau", ["u0", "u1"]), ("auatau", ["a0", "u1"])]
)
def test_the_first_two_messages_stay_as_they_are(kinds, first):
    conversation = conversation_of(kinds, [600])
    context = context_of(conversation)

    summarize(context, Summarizer())

    check(context.messages())
    shown = "\n\n".join(str(message["content"]) for message in context.messages()[1:])
    places = [shown.index(each + " " + "x" * 600) for each in first]
    assert places == sorted(places)
    assert places[-1] < shown.index("in short") < shown.index(f"{kinds[-1]}{len(kinds) - 1} ")


def test_a_first_answer_that_is_very_long_leaves_room_for_the_rest():
    conversation = conversation_of("uauau", [300, 9000, 300, 300, 300])
    context = context_of(conversation)

    summarize(context, Summarizer())

    assert context.size() < LIMIT
    assert "characters ..." in context.messages()[2]["content"]
    assert len(conversation.messages[1]["content"]) > 9000


def test_the_first_call_stays_with_its_result_and_what_it_gave_is_in_the_summary_only():
    conversation = conversation_of("uptatau", [3000])
    context, provider = context_of(conversation, limit=8000), Summarizer()

    summarize(context, provider)

    check(context.messages())
    assert [message["role"] for message in context.messages()[1:6]] == ["user", "assistant", "tool", "tool", "user"]
    assert [message["tool_call_id"] for message in context.messages()[3:5]] == ["c1-0", "c1-1"]
    assert all("left out" in message["content"] for message in context.messages()[3:5])
    assert "p1 xxx" in provider.asked[0].messages[1]["content"]
    assert "p1 xxx" in conversation.messages[2]["content"]


def test_a_later_summary_is_made_of_the_earlier_one_and_what_the_user_wants_last_is_kept():
    conversation = conversation_of("utatau", [900])
    context = context_of(conversation)
    summarize(context, Summarizer("the first summary"))
    conversation.add({"role": "user", "content": "now the real task"})
    for message in conversation_of("tttt", [900]).messages:
        conversation.add(message)
    provider = Summarizer("the second")

    summarize(context, provider)

    assert "the first summary" in provider.asked[0].messages[1]["content"]
    assert "now the real task" in next(
        each["content"] for each in context.messages() if "the second" in str(each["content"])
    )


@pytest.mark.parametrize("text", ["x" * 20_000, "  "])
def test_a_summary_that_is_no_shorter_is_none(text):
    conversation = conversation_of("utatau", [900])

    with pytest.raises(ModelFailed, match="longer than the model takes"):
        summarize(context_of(conversation), Summarizer(text))

    assert conversation.summary == ""


def test_one_message_that_is_too_long_can_not_be_made_shorter_and_off_is_off():
    with pytest.raises(ModelFailed, match="can't be made shorter"):
        summarize(context_of(conversation_of("u", [20_000])), Summarizer())
    context = context_of(conversation_of("utatau", [9000]), is_compressing=False)
    assert not context.is_full
    with pytest.raises(ModelFailed):
        summarize(context, Summarizer())


def test_what_the_provider_says_counts_and_what_came_since():
    conversation = conversation_of("ua", [100])
    context = context_of(conversation)

    context.told(Usage(input_tokens=1500))
    assert context.size() == 1500
    conversation.add({"role": "tool", "tool_call_id": "x", "content": "x" * 1000})

    assert 1700 < context.size() < 1900
    assert context.is_full
