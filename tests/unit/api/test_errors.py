"""Errors to HTTP."""

import json

import pytest

from agentainerd import errors
from agentainerd.api.errors import BY_CLASS, INTERNAL, encode_error, error_fields, status_of
from agentainerd.errors import AgentainerError, Conflict, NotFound, Unavailable


def kinds() -> list[type[AgentainerError]]:
    found = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AgentainerError)]
    return [kind for kind in found if kind is not AgentainerError]


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_meaning_has_a_status(kind):
    assert 400 <= BY_CLASS[kind] < 600


def test_a_code_may_have_a_status_of_its_own():
    assert status_of(NotFound("response", "x", code="RESPONSE_GONE")) == 410
    assert status_of(NotFound("agent", "x")) == 404
    assert status_of(AgentainerError("bug")) == INTERNAL == 500


def test_the_body_is_the_envelope_with_hint_and_details_where_there_are_any():
    error = Conflict("it is paused", code="AGENT_PAUSED", hint="resume it", details={"log": ["a"]})

    assert json.loads(encode_error(error)) == {
        "success": False, "error": "it is paused", "message": "it is paused", "code": "AGENT_PAUSED", "hint": "resume it",
        "details": {"log": ["a"]},
    }  # fmt: skip
    assert set(error_fields(Unavailable("away"))) == {"code", "message"}
