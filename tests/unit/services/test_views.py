"""How agents and requests look in the API."""

import base64

import pytest

from agentainerd.model.agents import MASK
from agentainerd.model.requests import Detail, Reason, RequestState, StoredResponse, Summary
from agentainerd.services import views
from agentainerd.store.requests import Counts

HEAD = (
    b"POST /x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sesame\r\nX-Twice: a\r\nX-Twice:  b \r\ncookie: c=1\r\n"
    b"X-Api-Key: k\r\nIdempotency-Key: i\r\nX-Empty:\r\nno colon\r\n"
)


def summary(**fields) -> Summary:
    given = {
        "id": "id-1", "agent_id": "agent-1", "state": RequestState.PENDING, "reason": Reason.QUEUED, "method": "POST",
        "target": "/agent/web/x?y=1", "received_at": 1.0, "request_bytes": 3, "attempts": 0,
    }  # fmt: skip
    return Summary(**{**given, **fields})


@pytest.mark.parametrize(
    ("at", "text"),
    [(0.0, None), (1795213420.2976, "2026-11-20T22:23:40.297Z"), (1795213420, "2026-11-20T22:23:40.000Z")],
)
def test_times_are_rfc_3339_in_utc_and_never_is_none(at, text):
    assert views.rfc3339(at) == text


def test_headers_keep_their_order_and_spelling_and_secrets_are_masked():
    assert views.header_list(HEAD) == [
        ("Host", "localhost"), ("Authorization", MASK), ("X-Twice", "a"), ("X-Twice", "b"), ("cookie", MASK),
        ("X-Api-Key", MASK), ("Idempotency-Key", MASK), ("X-Empty", ""),
    ]  # fmt: skip
    assert ("Authorization", "Bearer sesame") in views.raw_headers(HEAD)
    assert views.joined(views.header_list(HEAD))["X-Twice"] == "a, b"


@pytest.mark.parametrize(("attempts", "retries"), [(0, 0), (1, 0), (2, 1), (8, 7)])
def test_retries_are_the_attempts_after_the_first_as_in_the_original(attempts, retries):
    shown = views.summary_json(summary(attempts=attempts), 8)

    assert (shown["retry_count"], shown["attempt"], shown["max_retries"]) == (retries, attempts, 7)


@pytest.mark.parametrize(
    ("body", "state", "replayable"),
    [
        (b"x", RequestState.FAILED, True),
        (b"", RequestState.PENDING, True),
        (None, RequestState.FAILED, False),
        (b"x", RequestState.COMPLETED, False),
    ],
)
def test_a_request_whole_has_its_body_and_says_whether_it_can_be_sent_again(body, state, replayable):
    shown = views.detail_json(Detail(summary(state=state), HEAD, b"", "", None), body, 8)

    assert base64.b64decode(shown["body"]) == (body or b"")
    assert shown["replayable"] is replayable
    assert shown["response"] is None
    assert "sesame" not in str(shown)


def test_a_stored_answer_has_its_cookies_masked():
    stored = StoredResponse(200, b"HTTP/1.1 200 OK\r\nSet-Cookie: s=1\r\nContent-Type: text/plain\r\n", b"\xff\x00")

    shown = views.response_json(stored, 1.0)

    assert shown["headers"] == {"Set-Cookie": MASK, "Content-Type": "text/plain"}
    assert base64.b64decode(shown["body"]) == b"\xff\x00"
    assert shown["truncated"] is False


def test_the_holder_of_a_ticket_learns_neither_path_nor_agent():
    shown = views.public_json(summary())

    assert not {"path", "agent_id", "method", "headers", "body"} & set(shown)
    assert shown["request_id"] == "id-1"


def test_an_agents_token_and_secret_variables_are_masked(world):
    agent = world.deploy(
        token="agents-own", env_vars={"OPENAI_API_KEY": "sk-1", "MODEL": "small", "PLAIN": "p"}, secrets=("PLAIN",)
    )

    shown = views.agent_json(agent, None, Counts())

    assert shown["token"] == MASK
    assert shown["env_vars"] == {"OPENAI_API_KEY": MASK, "MODEL": "small", "PLAIN": MASK}
    assert shown["ready"] is False
    assert shown["last_exit"] is None
