"""Exit codes: the one table from what went wrong to what the shell sees. docs/cli.md lists them.

Looked up in this order: the error's code (the API's, or this program's own), the HTTP status, the class.
"""

from agentainerd.errors import (
    AgentainerError,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InvalidParameter,
    NotFound,
    Unauthorized,
)

OK = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
CONFLICT = 4
UNREACHABLE = 5
DENIED = 6
TIMED_OUT = 7
PARTLY_DONE = 8
RUN_FAILED = 9
RUN_CANCELLED = 10
RUN_WAITING = 11
INTERRUPTED = 130

MEANING = {
    OK: "done",
    FAILED: "it was tried and failed",
    USAGE: "wrong usage, or a value that can never be right",
    NOT_FOUND: "there is no such agent, run, job, session, request, image or file",
    CONFLICT: "not in this state, or the name is taken",
    UNREACHABLE: "agentainerd is not there, or went away",
    DENIED: "no permission on the socket, or the token is wrong",
    TIMED_OUT: "not done in time; it may still be going on",
    PARTLY_DONE: "done for some of several, not for all",
    RUN_FAILED: "the run failed, or reached one of its limits",
    RUN_CANCELLED: "the run or job was cancelled",
    RUN_WAITING: "the run waits for an answer",
    INTERRUPTED: "interrupted with Ctrl-C; a run or job goes on, unless the question was answered with yes",
}

BY_CODE = {
    "INVALID_PARAMETER": USAGE,
    "CONFIRMATION_NEEDED": USAGE,
    "DAEMON_UNREACHABLE": UNREACHABLE,
    "CONNECTION_LOST": UNREACHABLE,
    "NOT_AGENTAINERD": UNREACHABLE,
    "SOCKET_DENIED": DENIED,
    "TOO_MANY_FAILED_LOGINS": DENIED,
    "RUN_FAILED": RUN_FAILED,
    "RUN_CANCELLED": RUN_CANCELLED,
    "RUN_WAITING": RUN_WAITING,
    "RUN_NOT_WAITING": CONFLICT,
    "JOB_WAITING": RUN_WAITING,
    "JOB_CANCELLED": RUN_CANCELLED,
    "AGENT_RUNNING": CONFLICT,
    "AGENT_NOT_IN_BACKUP": NOT_FOUND,
    "VOLUME_OCCUPIED": CONFLICT,
    "BACKUP_EXISTS": CONFLICT,
    "BACKUP_PASSPHRASE": DENIED,
    "AGENT_NOT_READY": TIMED_OUT,
    "DEADLINE_EXCEEDED": TIMED_OUT,
}
BY_STATUS = {
    400: USAGE,
    401: DENIED,
    403: DENIED,
    404: NOT_FOUND,
    409: CONFLICT,
    410: NOT_FOUND,
    504: TIMED_OUT,
}
BY_CLASS: tuple[tuple[type[AgentainerError], int], ...] = (
    (InvalidParameter, USAGE),
    (Unauthorized, DENIED),
    (Forbidden, DENIED),
    (NotFound, NOT_FOUND),
    (Conflict, CONFLICT),
    (DeadlineExceeded, TIMED_OUT),
)


def exit_code(error: AgentainerError) -> int:
    """Return the exit code that tells of `error`; FAILED where the table has nothing better."""
    if error.code in BY_CODE:
        return BY_CODE[error.code]
    status = getattr(error, "status", 0)
    if status in BY_STATUS:
        return BY_STATUS[status]
    if error.code.endswith("_NOT_FOUND"):  # inside a stream there is no status
        return NOT_FOUND
    return next((code for kind, code in BY_CLASS if isinstance(error, kind)), FAILED)
