"""`/schedule`, `/status/{id}` and the other routes of the containerized-agent document, on jobs.

Errors have `error` and `detail`, as the document's two versions call it, with our code and hint beside them.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import msgspec
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api import downloads
from agentainerd.api.errors import error_fields, status_of
from agentainerd.api.exchange import ApiRequest, answer_flat, stream_bytes
from agentainerd.errors import AgentainerError, InvalidParameter, NotFound
from agentainerd.services.scheduler import NOT_FOUND, identify
from agentainerd.services.services import Services

Handler = Callable[..., Response]
STREAMS = ("stdout", "stderr")
ZIP = "application/zip"
_SCHEMES = ("http", "https")


class Problem(NamedTuple):
    """What is wrong with a part of a request, in the words of the document's program (FastAPI)."""

    type: str
    loc: tuple[str, ...]
    msg: str


def speaks_scheduler(handler: Handler) -> Handler:
    """Have a handler's errors told as the document has them."""

    @wraps(handler)
    def answering(*arguments: Any, **values: Any) -> Response:
        try:
            return handler(*arguments, **values)
        except AgentainerError as error:
            return _refusal(error)

    return answering


def root(request: ApiRequest, services: Services) -> Response:
    """GET /: says that somebody is there, and nothing else."""
    return answer_flat({"message": "orchestration server is running."})


@speaks_scheduler
def schedule(request: ApiRequest, services: Services) -> Response:
    """POST /schedule."""
    prompt = _prompt(request)
    if isinstance(prompt, Problem):
        return _unprocessable(prompt)
    try:
        key = request.headers.get("Idempotency-Key", "")
        return answer_flat(services.scheduler.schedule(prompt, request.actor, key=key))
    except InvalidParameter as error:
        if error.field != "prompt":
            raise
        return _unprocessable(Problem("value_error", ("body", "prompt"), f"{error.field} {error.reason}"))


@speaks_scheduler
def status(request: ApiRequest, services: Services, job_id: str) -> Response:
    """GET /status/{id}."""
    found = services.scheduler.status(job_id, _base_url(request))
    if found["status"] == "not_found":
        return answer_flat({**found, "error": NOT_FOUND, "detail": NOT_FOUND}, status=404)
    return answer_flat(found)


@speaks_scheduler
def page(request: ApiRequest, services: Services) -> Response:
    """GET /jobs."""
    return answer_flat({"jobs": services.scheduler.all()})


@speaks_scheduler
def cancel(request: ApiRequest, services: Services, job_id: str) -> Response:
    """POST /cancel/{id}."""
    return answer_flat(services.scheduler.cancel(job_id, request.actor))


@speaks_scheduler
def job(request: ApiRequest, services: Services, job_id: str) -> Response:
    """GET /job/{id}."""
    return answer_flat(services.scheduler.job(job_id))


@speaks_scheduler
def logs(request: ApiRequest, services: Services, job_id: str) -> Response:
    """GET /logs/{id}."""
    stream = request.args.get("log_type", STREAMS[0])
    if stream not in STREAMS:
        identify(job_id)
        return _unprocessable(Problem("literal_error", ("query", "log_type"), "Input should be 'stdout' or 'stderr'"))
    lines = services.scheduler.last_lines(job_id, stream)
    full = f"{_base_url(request)}/logs/{identify(job_id)}/{stream}"
    last = lines if stream == STREAMS[0] else None  # as the document has it
    return answer_flat({"job_id": identify(job_id), "log_type": stream, "last_1000_lines": last, "full_log": full})


@speaks_scheduler
def log(request: ApiRequest, services: Services, job_id: str, stream: str) -> Response:
    """GET /logs/{id}/stdout and /logs/{id}/stderr."""
    if stream not in STREAMS:
        identify(job_id)
        raise NotFound("log", stream[:64], message="Log file not found: there are stdout and stderr")
    pieces = services.scheduler.log(job_id, stream)
    return stream_bytes(pieces, (piece.data for piece in pieces))


@speaks_scheduler
def download(request: ApiRequest, services: Services, job_id: str) -> Response:
    """GET /download/{id}."""
    return downloads.send(request, services.scheduler.archive(job_id), ZIP, "output.zip")


ROUTES = (
    Rule("/", methods=["GET"], endpoint=root),
    Rule("/schedule", methods=["POST"], endpoint=schedule),
    Rule("/status/<job_id>", methods=["GET"], endpoint=status),
    Rule("/jobs", methods=["GET"], endpoint=page),
    Rule("/cancel/<job_id>", methods=["POST"], endpoint=cancel),
    Rule("/job/<job_id>", methods=["GET"], endpoint=job),
    Rule("/logs/<job_id>", methods=["GET"], endpoint=logs),
    Rule("/logs/<job_id>/<stream>", methods=["GET"], endpoint=log),
    Rule("/download/<job_id>", methods=["GET"], endpoint=download),
)


def _prompt(request: ApiRequest) -> str | Problem:
    """Return the prompt in the body, which is JSON whatever its media type says."""
    body = request.read_body()
    if not body:
        return Problem("missing", ("body",), "Field required")
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        return Problem("json_invalid", ("body",), f"JSON decode error: {exc}")
    if not isinstance(found, dict):
        return Problem("model_attributes_type", ("body",), "Input should be a valid dictionary")
    if "prompt" not in found:
        return Problem("missing", ("body", "prompt"), "Field required")
    prompt = found["prompt"]
    return (
        prompt
        if isinstance(prompt, str)
        else Problem("string_type", ("body", "prompt"), "Input should be a valid string")
    )


def _base_url(request: ApiRequest) -> str:
    """Return what the client wrote before the path, as far as whoever is between tells."""
    scheme = request.headers.get("X-Forwarded-Proto", "http")
    return f"{scheme if scheme in _SCHEMES else 'http'}://{request.host}"


def _unprocessable(problem: Problem) -> Response:
    text = f"{'.'.join(problem.loc)}: {problem.msg}"
    return answer_flat({"detail": [problem._asdict()], "error": text, "code": "VALIDATION_ERROR"}, status=422)


def _refusal(error: AgentainerError) -> Response:
    message = error.message
    if isinstance(error, InvalidParameter) and error.field == "job_id":
        message = error.reason
    elif isinstance(error, NotFound) and error.noun == "job":
        message = NOT_FOUND
    response = answer_flat({**error_fields(error), "error": message, "detail": message}, status=status_of(error))
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response
