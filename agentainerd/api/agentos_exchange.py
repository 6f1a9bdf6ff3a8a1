"""Requests and errors as the AgentOS document has them: lenient in what is taken, flat in what is told.

A body is JSON whatever its media type says, what is unknown in it is passed over, and null is as good as absent. An error is
`{"status": "error", "error": short, "message": detail, "code": ...}`; the codes are those of the document where it has one.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import msgspec
from werkzeug.wrappers import Response

from agentainerd.api.errors import INTERNAL, error_fields, status_of
from agentainerd.api.exchange import ApiRequest, answer_flat
from agentainerd.errors import AgentainerError, InvalidParameter, NotFound, Unavailable
from agentainerd.model import media

Handler = Callable[..., Response]
Body = TypeVar("Body", bound=msgspec.Struct)
INVALID_REQUEST = "INVALID_REQUEST"
NO_INPUT = "input or media payload is required"
NO_TARGET = "at least one target identifier is required"
SHORT = {
    INVALID_REQUEST: "invalid request",
    media.CODE: "invalid media payload",
    "AGENT_NOT_FOUND": "agent not found",
    "SESSION_NOT_FOUND": "session not found",
    "SUMMARY_NOT_FOUND": "summary not available",
    "SUMMARY_DISABLED": "summaries are disabled",
    "STORAGE_ERROR": "the store does not answer",
    "EXECUTION_ERROR": "agent execution failed",
    "RUN_CANCELLED": "agent execution failed",
    "BODY_TOO_LARGE": "request too large",
}
_TRUE = ("1", "t", "true")


def speaks_agentos(handler: Handler) -> Handler:
    """Have a handler's errors told as the document has them."""

    @wraps(handler)
    def answering(*arguments: Any, **values: Any) -> Response:
        try:
            return handler(*arguments, **values)
        except AgentainerError as error:
            return _refusal(error, short=None)

    return answering


def speaks_events(handler: Handler) -> Handler:
    """The same for a stream, where the short text of an error is its code in lower case."""

    @wraps(handler)
    def answering(*arguments: Any, **values: Any) -> Response:
        try:
            return handler(*arguments, **values)
        except AgentainerError as error:
            return _refusal(error, short=_code(error).lower())

    return answering


def read(request: ApiRequest, kind: type[Body]) -> Body:
    """Return the body as a `kind`, without what is null in it.

    Raises:
        InvalidParameter: it is empty, not JSON, no object, or a field has another type. TooLarge.
    """
    body = request.read_body()
    try:
        found = msgspec.json.decode(body)
        if not isinstance(found, dict):
            raise InvalidParameter("body", "is not a JSON object", code=INVALID_REQUEST)
        return msgspec.convert({name: value for name, value in found.items() if value is not None}, kind)
    except msgspec.ValidationError as exc:
        raise InvalidParameter("body", str(exc)[:1].lower() + str(exc)[1:], code=INVALID_REQUEST) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        reason = f"is not JSON: {exc}" if body else "is empty"
        raise InvalidParameter("body", reason, code=INVALID_REQUEST) from exc


def number(request: ApiRequest, name: str, default: int, highest: int) -> int:
    """Return a whole number of the query, at most `highest`; what is none is as good as absent."""
    text = request.args.get(name, "")
    return min(int(text[:18]), highest) if text.isascii() and text.isdigit() else default


def flag(request: ApiRequest, name: str) -> bool:
    """Return whether the query says yes; what is neither yes nor no is as good as absent."""
    return request.args.get(name, "").lower() in _TRUE


def _refusal(error: AgentainerError, short: str | None) -> Response:
    code = _code(error)
    status = INTERNAL if code == "STORAGE_ERROR" else status_of(error)
    message = error.message
    if isinstance(error, NotFound) and error.noun in ("agent", "session"):
        message = f"{error.noun} with ID '{error.ref}' not found"
    if short is None:
        own = isinstance(error, InvalidParameter) and error.reason in (NO_INPUT, NO_TARGET)
        short = error.reason if isinstance(error, InvalidParameter) and own else SHORT.get(code, error.message)
    body = {"status": "error", "error": short, **error_fields(error), "message": message, "code": code}
    response = answer_flat(body, status=status)
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def _code(error: AgentainerError) -> str:
    if isinstance(error, InvalidParameter):
        return error.code if error.code == media.CODE else INVALID_REQUEST
    return "STORAGE_ERROR" if isinstance(error, Unavailable) else error.code
