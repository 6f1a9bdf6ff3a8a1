"""`/api/v1/jobs`: a prompt in, files out. The events of a job are those of its run."""

from collections import deque
from collections.abc import Generator
from contextlib import closing

from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd import defaults
from agentainerd.api import downloads, runs
from agentainerd.api.exchange import NDJSON, SSE, ApiRequest, Query, answer, stream_bytes, stream_lines
from agentainerd.errors import InvalidParameter
from agentainerd.model.containers import LogPiece
from agentainerd.model.jobs import DeliveryState, JobFilter, JobRequest
from agentainerd.services.job_views import artifacts_json, job_json, listed_job_json, submitted_job_json
from agentainerd.services.services import Services

MAX_TAIL = 1_000_000
ZIP, BYTES = "application/zip", "application/octet-stream"


def submit(request: ApiRequest, services: Services) -> Response:
    """POST /api/v1/jobs; `wait`: answer when it is over, but after so long at the latest."""
    wait_s = Query(request, ("wait",)).seconds("wait", runs.MAX_WAIT_S)
    wanted = request.read_json(JobRequest)
    is_stream = SSE in request.headers.get("Accept", "")
    if is_stream and wanted.webhook and not wanted.webhook.secret:
        raise InvalidParameter("webhook.secret", "is missing: a stream of events can't tell the one that would be made")
    view = services.jobs.submit(wanted, request.actor, key=request.headers.get("Idempotency-Key", ""))
    if is_stream:
        response = runs.stream(services, view.run)
    else:
        if wait_s is not None:
            services.runs.wait(view.job.id, wait_s)
            view = services.jobs.get(view.job.id)
        response = answer("Job accepted", submitted_job_json(view), status=200 if view.run.status.is_final else 202)
    response.headers["Location"] = f"/api/v1/jobs/{view.job.id}"
    return response


def page(request: ApiRequest, services: Services) -> Response:
    """GET /api/v1/jobs."""
    query = Query(request, ("status", "submitter", "webhook", "limit", "cursor"))
    wanted = JobFilter(
        runs.status_of(query.text("status")), query.text("submitter"), _delivery_of(query.text("webhook"))
    )
    jobs, following = services.jobs.page(wanted, limit=query.limit(), cursor=query.text("cursor"))
    return answer(
        "Jobs retrieved successfully", [listed_job_json(view) for view in jobs], next_cursor=following or None
    )


def get(request: ApiRequest, services: Services, ref: str) -> Response:
    """GET /api/v1/jobs/{id}; `wait` as of a run."""
    wait_s = Query(request, ("wait",)).seconds("wait", runs.MAX_WAIT_S)
    view = services.jobs.get(ref)
    if wait_s:
        services.runs.wait(view.job.id, wait_s)
        view = services.jobs.get(view.job.id)
    return answer("Job retrieved successfully", job_json(view))


def remove(request: ApiRequest, services: Services, ref: str) -> Response:
    """DELETE /api/v1/jobs/{id}."""
    Query(request, ())
    return answer("Job removed successfully", job_json(services.jobs.remove(ref, request.actor)))


def cancel(request: ApiRequest, services: Services, ref: str) -> Response:
    """POST /api/v1/jobs/{id}/cancel."""
    Query(request, ())
    body = request.read_json(runs.CancelBody)
    view, is_cancelled = services.jobs.cancel(ref, request.actor, body.mode)
    said = "Job is being cancelled" if is_cancelled else f"Job is {view.run.status.value}"
    return answer(said, job_json(view), cancelled=is_cancelled)


def retry_webhook(request: ApiRequest, services: Services, ref: str) -> Response:
    """POST /api/v1/jobs/{id}/webhook/retry."""
    Query(request, ())
    return answer("The end of the job is told again", job_json(services.webhooks.retry(ref, request.actor)), status=202)


def events(request: ApiRequest, services: Services, ref: str) -> Response:
    """GET /api/v1/jobs/{id}/events."""
    return runs.events(request, services, services.jobs.get(ref).job.id)


def logs(request: ApiRequest, services: Services, ref: str) -> Response:
    """GET /api/v1/jobs/{id}/logs: one stream as text, both as lines of JSON, or both as one JSON object."""
    query = Query(request, ("stream", "follow", "tail"))
    stream, follow = query.text("stream"), query.flag("follow")
    if stream not in ("", "stdout", "stderr"):
        raise InvalidParameter("stream", f"{stream[:64]!r} is neither stdout nor stderr")
    pieces = services.jobs.logs(ref, stream, follow=follow)
    if query.text("tail"):
        pieces = _last(pieces, query.integer("tail", 0, 0, MAX_TAIL))
    if NDJSON in request.headers.get("Accept", ""):
        return stream_lines(pieces, (_line(piece) for piece in pieces))
    if stream:
        return stream_bytes(pieces, (piece.data for piece in pieces))
    if follow:
        raise InvalidParameter(
            "follow", "needs a stream", hint="stream=stdout, stream=stderr, or Accept: application/x-ndjson"
        )
    found = {"stdout": bytearray(), "stderr": bytearray()}
    with closing(pieces):
        for piece in pieces:
            found[piece.stream] += piece.data
    return answer(
        "Logs retrieved successfully", {name: data.decode("utf-8", "replace") for name, data in found.items()}
    )


def artifacts(request: ApiRequest, services: Services, ref: str) -> Response:
    """GET /api/v1/jobs/{id}/artifacts."""
    query = Query(request, ("limit", "cursor", "sha256"))
    start, limit = query.integer("cursor", 0, 0, 2**31), query.limit(defaults.MAX_PAGE_LIMIT)
    page = services.jobs.artifacts(ref, start=start, limit=limit, digests=query.flag("sha256"))
    following = None if page.following is None else str(page.following)
    return answer("Artifacts retrieved successfully", artifacts_json(page), next_cursor=following)


def artifact(request: ApiRequest, services: Services, ref: str, name: str) -> Response:
    """GET /api/v1/jobs/{id}/artifacts/{name}."""
    Query(request, ())
    return downloads.send(request, services.jobs.artifact(ref, name), BYTES, name.rpartition("/")[2])


def download(request: ApiRequest, services: Services, ref: str) -> Response:
    """GET /api/v1/jobs/{id}/download."""
    Query(request, ())
    view, archive = services.jobs.archive(ref)
    return downloads.send(request, archive, ZIP, f"job-{view.job.id[:8]}.zip")


ROUTES = (
    Rule("/api/v1/jobs", methods=["POST"], endpoint=submit),
    Rule("/api/v1/jobs", methods=["GET"], endpoint=page),
    Rule("/api/v1/jobs/<ref>", methods=["GET"], endpoint=get),
    Rule("/api/v1/jobs/<ref>", methods=["DELETE"], endpoint=remove),
    Rule("/api/v1/jobs/<ref>/cancel", methods=["POST"], endpoint=cancel),
    Rule("/api/v1/jobs/<ref>/webhook/retry", methods=["POST"], endpoint=retry_webhook),
    Rule("/api/v1/jobs/<ref>/events", methods=["GET"], endpoint=events),
    Rule("/api/v1/jobs/<ref>/logs", methods=["GET"], endpoint=logs),
    Rule("/api/v1/jobs/<ref>/artifacts", methods=["GET"], endpoint=artifacts),
    Rule("/api/v1/jobs/<ref>/artifacts/<path:name>", methods=["GET"], endpoint=artifact),
    Rule("/api/v1/jobs/<ref>/download", methods=["GET"], endpoint=download),
)


def _delivery_of(text: str) -> DeliveryState | None:
    if text and text not in tuple(DeliveryState):
        raise InvalidParameter("webhook", f"{text[:64]!r} is none of {', '.join(DeliveryState)}")
    return DeliveryState(text) if text else None


def _line(piece: LogPiece) -> dict[str, object]:
    """Bytes that are no UTF-8 are kept as lone surrogates, so that nothing is lost."""
    return {"stream": piece.stream, "data": piece.data.decode("utf-8", "surrogateescape")}


def _last(pieces: Generator[LogPiece], count: int) -> Generator[LogPiece]:
    """Return the last lines of each stream, when there is nothing more to come."""
    lines: dict[str, deque[bytes]] = {}
    rest: dict[str, bytes] = {}
    for piece in pieces:
        *whole, rest[piece.stream] = (rest.get(piece.stream, b"") + piece.data).split(b"\n")
        lines.setdefault(piece.stream, deque(maxlen=count)).extend(line + b"\n" for line in whole)
    for stream, kept in lines.items():
        if rest[stream]:
            kept.append(rest[stream])
        yield LogPiece(stream, b"".join(kept))
