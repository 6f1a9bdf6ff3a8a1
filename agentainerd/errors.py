"""Errors by meaning. Services raise them; the numbers live elsewhere: HTTP statuses in api/errors.py,
gateway answers in proxy/exchange.py, exit codes in agentainerctl/exits.py.

Every error carries a `code` (stable, upper case, for programs), a message (what happened, to what) and, where
there is one, a `hint` (what to do next, ideally one command).
"""

from collections.abc import Mapping


class AgentainerError(Exception):
    """Base of all errors that are meant for a user.

    Attributes:
        code: stable name for programs, such as `AGENT_NOT_FOUND`.
        message: one sentence: what failed, on what, with the value seen.
        hint: what to do next, or None.
        details: further JSON-ready fields, such as `{"log": [...], "exit_code": 1}`.
        retry_after_s: seconds after which a retry can succeed, or None where unknown.
    """

    default_code = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        details: Mapping[str, object] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint
        self.details: dict[str, object] = dict(details or {})
        self.retry_after_s = retry_after_s


class InvalidParameter(AgentainerError):
    """A value that can never be right: the field, the reason, and the value seen."""

    default_code = "INVALID_PARAMETER"

    def __init__(self, field: str, reason: str, *, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(f"{field}: {reason}", code=code, hint=hint, details={"field": field})
        self.field = field
        self.reason = reason


class Unauthorized(AgentainerError):
    """No token, or a wrong one."""

    default_code = "UNAUTHORIZED"


class Forbidden(AgentainerError):
    """The caller is known, or the operation is closed to everybody, by a rule."""

    default_code = "FORBIDDEN"


class NotFound(AgentainerError):
    """There is no such thing: `NotFound("agent", "web")` has the code `AGENT_NOT_FOUND`."""

    def __init__(
        self, noun: str, ref: str, *, message: str | None = None, code: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(
            message or f"{noun.capitalize()} not found: {ref}",
            code=code or f"{noun.upper().replace(' ', '_')}_NOT_FOUND",
            hint=hint,
            details={"ref": ref},
        )
        self.noun = noun
        self.ref = ref


class Conflict(AgentainerError):
    """Not in this state: a change of state would clear it."""

    default_code = "CONFLICT"


class TooLarge(AgentainerError):
    """The body or the context is over a limit, which the message names."""

    default_code = "TOO_LARGE"


class TooManyRequests(AgentainerError):
    """A queue or a limit is full; `retry_after_s` says when to come back."""

    default_code = "TOO_MANY_REQUESTS"


class NotSupported(AgentainerError):
    """Understood, and not built."""

    default_code = "NOT_SUPPORTED"


class BadGateway(AgentainerError):
    """An agent or a registry answered wrongly."""

    default_code = "BAD_GATEWAY"


class Unavailable(AgentainerError):
    """A dependency does not answer (engine, Redis, disk): the stored state is unchanged."""

    default_code = "UNAVAILABLE"


class DeadlineExceeded(AgentainerError):
    """It was not done in time; it may still be going on."""

    default_code = "DEADLINE_EXCEEDED"


class Failed(AgentainerError):
    """The operation itself went wrong (a build step, a container that exits at once); `details` has the evidence."""

    default_code = "FAILED"
