"""The table of exit codes: by code, status and class, in this order."""

import pytest

from agentainerctl import exits
from agentainerctl.failures import ApiError, StreamBroken
from agentainerd.errors import (
    AgentainerError,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InvalidParameter,
    NotFound,
    TooLarge,
    Unauthorized,
)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "INVALID_PARAMETER", 2),
        (400, "VOLUME_DENIED", 2),
        (401, "UNAUTHORIZED", 6),
        (403, "FORBIDDEN", 6),
        (404, "REQUEST_NOT_FOUND", 3),
        (409, "AGENT_PAUSED", 4),
        (410, "RESPONSE_GONE", 3),
        (413, "TOO_LARGE", 1),
        (422, "BUILD_FAILED", 1),
        (422, "AGENT_EXITED", 1),
        (429, "TOO_MANY_FAILED_LOGINS", 6),
        (429, "IMAGE_JOBS_BUSY", 1),
        (500, "INTERNAL", 1),
        (501, "NOT_SUPPORTED", 1),
        (503, "ENGINE_UNAVAILABLE", 1),
        (504, "AGENT_NOT_READY", 7),
        (504, "WHATEVER", 7),
        (0, "IMAGE_NOT_FOUND", 3),
        (0, "INVALID_PARAMETER", 2),
        (0, "AGENT_NOT_READY", 7),
        (0, "BUILD_FAILED", 1),
    ],
)
def test_answers_of_the_daemon(status, code, expected):
    assert exits.exit_code(ApiError(status, {"message": "no", "code": code})) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidParameter("x", "no"), 2),
        (InvalidParameter("x", "no", code="OTHER"), 2),
        (NotFound("folder", "x"), 3),
        (Conflict("no"), 4),
        (StreamBroken("no"), 5),
        (Forbidden("no"), 6),
        (Unauthorized("no"), 6),
        (DeadlineExceeded("no"), 7),
        (TooLarge("no"), 1),
        (AgentainerError("no"), 1),
    ],
)
def test_errors_of_our_own(error, expected):
    assert exits.exit_code(error) == expected


def test_every_code_has_a_meaning():
    used = {*exits.BY_CODE.values(), *exits.BY_STATUS.values(), *(code for _, code in exits.BY_CLASS)}

    assert used < set(exits.MEANING)
