"""Errors to HTTP: the only table of statuses of the control API, and the shape of an error's body."""

import msgspec

from agentainerd.errors import (
    AgentainerError,
    BadGateway,
    Conflict,
    DeadlineExceeded,
    Failed,
    Forbidden,
    InvalidParameter,
    NotFound,
    NotSupported,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)

BY_CODE = {
    "IDEMPOTENCY_MISMATCH": 422,
    "METHOD_NOT_ALLOWED": 405,
    "RESPONSE_GONE": 410,
    "RUN_CANCELLED": 408,
    "UNSUPPORTED_MEDIA_TYPE": 415,
}
"""Where one meaning has a status of its own."""

BY_CLASS: dict[type[AgentainerError], int] = {
    InvalidParameter: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    Failed: 422,
    TooManyRequests: 429,
    NotSupported: 501,
    BadGateway: 502,
    Unavailable: 503,
    DeadlineExceeded: 504,
}
"""Failed is 422: the request was understood, and what it asked for (this image, this build) could not be made to work."""

INTERNAL = 500


def status_of(error: AgentainerError) -> int:
    """Return the HTTP status that tells of `error`."""
    return BY_CODE.get(error.code) or BY_CLASS.get(type(error), INTERNAL)


def error_fields(error: AgentainerError) -> dict[str, object]:
    """Return code, message, and where there are any, hint and details: what is the same in bodies and in streams."""
    fields: dict[str, object] = {"code": error.code, "message": error.message}
    if error.hint:
        fields["hint"] = error.hint
    if error.details:
        fields["details"] = error.details
    return fields


def encode_error(error: AgentainerError) -> bytes:
    """Return the body of an error answer."""
    return msgspec.json.encode({"success": False, "error": error.message, **error_fields(error)}) + b"\n"
