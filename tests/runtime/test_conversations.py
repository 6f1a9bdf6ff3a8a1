import json

from agentainer_runtime.conversations import Conversation, Conversations, file_name
from agentainer_runtime.views import view

CALL = {"id": "c1", "type": "function", "function": {"name": "ls", "arguments": "{}"}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [CALL]}


def user(text, message_id=""):
    return {"id": message_id, "role": "user", "content": text}


def test_it_is_there_again_after_a_restart(tmp_path):
    conversation = Conversations(tmp_path).open("t")
    conversation.take([user("hello", "u1")])
    conversation.add({"role": "assistant", "content": "hi"})
    conversation.summarize("they greeted", 2)

    again = Conversations(tmp_path).open("t")

    assert again.messages == [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    assert (again.summary, again.covers, "u1" in again.ids) == ("they greeted", 2, True)


def test_a_history_that_is_new_is_taken_whole(tmp_path):
    conversation = Conversation(tmp_path / "t")
    calls = [{"id": "c", "type": "function", "function": {"name": "ls", "arguments": "{}"}}]

    conversation.take(
        [
            user("one"),
            {"role": "assistant", "content": "", "toolCalls": calls},
            {"role": "tool", "toolCallId": "c", "content": [{"type": "text", "text": "a.txt"}]},
            {"role": "assistant", "content": "two"},
            {"role": "reasoning", "content": "hm"},
            user("three"),
        ]
    )

    assert [message["role"] for message in conversation.messages] == ["user", "assistant", "tool", "assistant", "user"]
    assert conversation.messages[1] == {"role": "assistant", "content": None, "tool_calls": calls}
    assert conversation.messages[2] == {"role": "tool", "tool_call_id": "c", "content": "a.txt"}


def test_of_a_history_that_is_known_only_what_the_user_said_last_is_taken(tmp_path):
    conversation = Conversation(tmp_path / "t")
    conversation.take([user("one", "u1")])
    conversation.add(ASKED)
    conversation.add({"role": "tool", "tool_call_id": "c1", "content": "{}"})
    conversation.add({"role": "assistant", "content": "two"})

    conversation.take([user("one", "u1"), {"id": "a1", "role": "assistant", "content": "two"}, user("three", "u2")])
    conversation.take([user("one", "u1"), {"id": "a1", "role": "assistant", "content": "two"}, user("three", "u2")])

    assert [message["content"] for message in conversation.messages] == ["one", None, "{}", "two", "three"]


def test_calls_without_a_result_get_one_and_only_one(tmp_path):
    path = tmp_path / "t"
    conversation = Conversation(path)
    conversation.take([user("go")])
    other = {**CALL, "id": "c2"}
    conversation.add({"role": "assistant", "content": None, "tool_calls": [CALL, other]})
    conversation.add({"role": "tool", "tool_call_id": "c1", "content": "{}"})

    assert len(Conversation(path).messages) == 3
    Conversation(path).repair()
    again = Conversation(path)
    again.repair()

    assert [message["tool_call_id"] for message in again.messages[2:]] == ["c1", "c2"]
    assert "not known" in json.loads(again.messages[-1]["content"])["error"]


def test_the_piece_of_a_line_that_a_crash_left_is_cut_off(tmp_path):
    conversation = Conversation(tmp_path / "t")
    conversation.take([user("one")])
    with open(tmp_path / "t", "ab") as file:
        file.write(b'{"message": {"role": "us')

    again = Conversation(tmp_path / "t")
    again.add({"role": "assistant", "content": "two"})

    assert len(Conversation(tmp_path / "t").messages) == 2


def test_names_of_threads_are_no_paths():
    assert file_name("0f8fad5b-d9cb-469f-a165-70867728950e") == "0f8fad5b-d9cb-469f-a165-70867728950e"
    for name in ("../../etc/passwd", ".hidden", "a/b", "", "x" * 300, "a\nb"):
        assert file_name(name).startswith("h-")
    assert file_name("a/b") != file_name("a/c")


def test_images_are_shown_and_what_cannot_be_is_said(tmp_path):
    conversation = Conversation(tmp_path / "t")
    parts = [
        {"type": "text", "text": "look"},
        {"type": "image", "source": {"type": "url", "value": "https://x/y.png"}},
        {"type": "image", "source": {"type": "data", "value": "QUJD", "mimeType": "image/jpeg"}},
        {"type": "audio", "source": {"type": "url", "value": "https://x/y.mp3"}},
    ]

    conversation.take([{"role": "user", "content": parts}])

    content = conversation.messages[0]["content"]
    assert content[1] == {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    assert content[2]["image_url"]["url"] == "data:image/jpeg;base64,QUJD"
    assert "audio" in content[3]["text"]


def test_a_view_alternates_and_never_begins_with_the_assistant():
    messages = [
        {"role": "assistant", "content": "welcome"},
        {"role": "user", "content": "one"},
        {"role": "user", "content": "two"},
        ASKED,
        {"role": "tool", "tool_call_id": "c1", "content": "{}"},
        {"role": "user", "content": "three"},
    ]

    shown = view("be good", messages)

    assert [message["role"] for message in shown] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "tool",
        "user",
    ]
    assert shown[3]["content"] == "one\n\ntwo"
    assert [message["content"] for message in view("s", messages, "in short", 5)[2:]] == [
        "welcome",
        "one\n\nWhat happened before in this conversation, in short:\n\nin short\n\nthree",
    ]


def test_what_was_never_answered_is_not_asked_for_again_with_the_next_question(tmp_path):
    conversation = Conversation(tmp_path / "t")
    conversation.take([user("delete it all", "u1")])

    Conversation(tmp_path / "t").take([user("delete it all", "u1"), user("hello", "u2")])

    shown = view("s", Conversation(tmp_path / "t").messages)
    assert [message["role"] for message in shown] == ["system", "user", "assistant", "user"]
    assert "ended before" in shown[2]["content"]
    assert shown[3]["content"] == "hello"
