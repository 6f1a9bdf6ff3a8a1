"""The scripted model server, judged by OpenAI's own client: what it plays, what it refuses, and what it does wrong on demand."""

import json
import socket

import openai
import pytest

from tests.fakes.model_turns import turns_from_json
from tests.fakes.models import KEY, MODEL, Faults, ModelServer, Rules, ToolCall, Turn, When

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "run_command",
            "description": "Run it.",
            "parameters": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
        },
    }
]
CALL = ToolCall("run_command", {"command": "pytest"})
USER = {"role": "user", "content": "fix the test"}


def client_of(server: ModelServer, key: str = KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url, api_key=key, max_retries=0)


def ask(server: ModelServer, messages: list | None = None, **options: object) -> openai.types.chat.ChatCompletion:
    with client_of(server) as client:
        return client.chat.completions.create(model=MODEL, messages=messages or [USER], **options)


def stream(server: ModelServer, messages: list | None = None, **options: object) -> list:
    with client_of(server) as client:
        chunks = client.chat.completions.create(
            model=MODEL, messages=messages or [USER], stream=True, stream_options={"include_usage": True}, **options
        )
        return list(chunks)


def text_of(chunks: list) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_turns_are_chosen_by_what_the_caller_really_sent():
    turns = [Turn(calls=(CALL,), when=When(user="fix")), Turn(text="Fixed.", when=When(tool="1 passed"))]
    with ModelServer(turns) as server:
        first = ask(server, tools=TOOLS).choices[0].message
        history = [USER, first.model_dump(exclude_none=True)]
        with pytest.raises(openai.BadRequestError, match="no turn"):  # it did not look at what the tool said
            ask(
                server,
                [*history, {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "?"}],
                tools=TOOLS,
            )
        last = ask(server, [*history, {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "1 passed"}])

        assert json.loads(first.tool_calls[0].function.arguments) == {"command": "pytest"}
        assert last.choices[0].message.content == "Fixed."
        assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens > 0
        assert server.unplayed == []


def test_a_stream_has_the_same_text_and_its_usage_at_the_end():
    with ModelServer([Turn(text="drei Bäume, 🌳🌳🌳", cost_usd=0.25, cached_tokens=3)]) as server:
        chunks = stream(server)

    assert text_of(chunks) == "drei Bäume, 🌳🌳🌳"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 3
    assert chunks[-1].usage.cost == 0.25


@pytest.mark.parametrize(
    "faults",
    [
        Faults(piece_bytes=1),
        Faults(comments=True),
        Faults(newline="\r\n"),
        Faults(pause_s=0.001),
        Faults(first_token_s=0.01),
    ],
)
def test_what_is_only_odd_is_understood(faults: Faults):
    with ModelServer([Turn(text="🌳 und Bäume", faults=faults)]) as server:
        assert text_of(stream(server)) == "🌳 und Bäume"


def test_two_calls_come_side_by_side_and_their_indices_can_be_missing_or_zero():
    calls = (CALL, ToolCall("run_command", "not json"))
    with ModelServer(
        [Turn(calls=calls, faults=Faults(index=index)) for index in ("given", "missing", "zero")]
    ) as server:
        for expected in ({0, 1}, {None}, {0}):
            deltas = [
                call
                for chunk in stream(server, tools=TOOLS)
                for choice in chunk.choices
                for call in choice.delta.tool_calls or []
            ]
            assert {call.index for call in deltas} == expected
            assert len({call.id for call in deltas if call.id}) == 2


def test_callers_are_refused_as_often_as_was_said_and_told_how_long_to_wait():
    with ModelServer([Turn(text="ok", faults=Faults(refusals=1, retry_after_s=2))]) as server:
        with pytest.raises(openai.RateLimitError) as refused:
            ask(server)

        assert refused.value.response.headers["retry-after"] == "2"
        assert ask(server).choices[0].message.content == "ok"
        assert [each.status for each in server.received] == [429, 200]


def test_a_stream_can_end_early_break_or_have_an_error_in_it():
    turns = [
        Turn(text="one two three", faults=Faults(cut_after=2)),
        Turn(text="one two three", faults=Faults(cut_after=2, reset=True)),
        Turn(text="one two three", faults=Faults(error_after=1)),
        Turn(text="one two", faults=Faults(is_usage_absent=True, is_finish_absent=True, is_done_absent=True)),
    ]
    with ModelServer(turns) as server:
        assert text_of(stream(server)) == "one"  # a client can't see that more was to come
        with pytest.raises(openai.APIConnectionError):
            stream(server)
        with pytest.raises(openai.APIError, match="overloaded"):
            stream(server)
        assert not any(chunk.usage for chunk in stream(server))


def test_a_stall_ends_with_its_time_or_with_the_server():
    with ModelServer([Turn(text="one two", faults=Faults(stall_after=1, stall_s=60))]) as server:
        host, port = server.base_url.removeprefix("http://").removesuffix("/v1").split(":")
        body = json.dumps(
            {"model": MODEL, "messages": [USER], "stream": True, "stream_options": {"include_usage": True}}
        )
        with socket.create_connection((host, int(port)), 5) as sock:
            sock.sendall(
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            sock.settimeout(5)
            begun = b""
            while b"data: " not in begun:
                begun += sock.recv(65536)
            assert b"two" not in begun


ASSISTANT = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "run_command", "arguments": "{}"}}],
}
OUTPUT = {"role": "tool", "tool_call_id": "c1", "content": "done"}


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([USER, ASSISTANT, USER], "did not have response messages"),
        ([USER, ASSISTANT], "did not have response messages"),
        ([USER, OUTPUT], "must be a response"),
        ([USER, ASSISTANT, OUTPUT, OUTPUT], "must be a response"),
        ([USER, USER], "alternate"),
        ([{"role": "robot", "content": "x"}], "not a role"),
        ([{"role": "user", "content": None}], "expected a string"),
        ([{"role": "user", "content": "long " * 500}], "maximum context length"),
        ([], "not empty"),
    ],
)
def test_conversations_that_a_provider_refuses_are_refused(messages: list, reason: str):
    with (
        ModelServer([Turn(text="ok")], rules=Rules(context_tokens=300)) as server,
        client_of(server) as client,
        pytest.raises(openai.BadRequestError, match=reason),
    ):
        client.chat.completions.create(model=MODEL, messages=messages)


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "array"},
        {"type": "object", "properties": {"a": {"type": "text"}}},
        {"type": "object", "required": ["a"]},
    ],
)
def test_schemas_that_are_none_are_refused(parameters: dict):
    with ModelServer([Turn(text="ok")]) as server, pytest.raises(openai.BadRequestError):
        ask(server, tools=[{"type": "function", "function": {"name": "x", "parameters": parameters}}])


def test_who_calls_and_what_for_is_checked():
    with ModelServer([Turn(text="ok")]) as server:
        with client_of(server, key="sk-wrong") as client, pytest.raises(openai.AuthenticationError):
            client.models.list()
        with client_of(server) as client:
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.create(model="other", messages=[USER])
            with pytest.raises(openai.BadRequestError, match="include_usage"):
                client.chat.completions.create(model=MODEL, messages=[USER], stream=True)
            with pytest.raises(openai.BadRequestError, match="nothing that a provider is told"):
                client.models.list(extra_headers={"X-Agentainer-Run-Id": "run-1"})
            assert [model.id for model in client.models.list()] == [MODEL]


def test_responses_and_embeddings_are_served_too():
    with ModelServer([Turn(text="hello there"), Turn(text="hello there")]) as server, client_of(server) as client:
        whole = client.responses.create(model=MODEL, input="hi")
        events = list(client.responses.create(model=MODEL, input="hi", stream=True))
        vectors = client.embeddings.create(model=MODEL, input=["one", "two"], encoding_format="float")

    assert whole.output_text == "hello there"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "hello there"
    assert events[-1].response.usage.output_tokens > 0
    assert len(vectors.data) == 2


def test_a_scenario_is_read_from_a_file():
    turns = turns_from_json(
        [
            {
                "text": "hi",
                "when": {"tools": ["a"]},
                "calls": [{"name": "a"}],
                "faults": {"piece_bytes": 1},
                "deltas": ["h", "i"],
            }
        ]
    )

    assert turns == [
        Turn(
            text="hi", when=When(tools=("a",)), calls=(ToolCall("a"),), faults=Faults(piece_bytes=1), deltas=("h", "i")
        )
    ]
