"""`/agents/{ref}/requests` for administrators, and `/requests/{id}` for those who hold the ticket of a 202."""

import re

from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.exchange import ApiRequest, Query, answer
from agentainerd.errors import InvalidParameter, NotFound
from agentainerd.model.requests import RequestState
from agentainerd.model.tokens import Scope
from agentainerd.services.services import Services
from agentainerd.services.views import raw_headers

REPLAY_WAIT_S = 10.0
MAX_REPLAY_WAIT_S = 600.0
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NOT_OURS = frozenset(
    (
        "alt-svc", "clear-site-data", "connection", "content-length", "keep-alive", "service-worker-allowed", "set-cookie",
        "strict-transport-security", "transfer-encoding",
    )
)  # fmt: skip
"""What an agent may not say in the name of the address that all agents and the API share."""


class Verbatim(Response):
    """An answer without a media type of our own."""

    default_mimetype = None


def page(request: ApiRequest, services: Services, ref: str) -> Response:
    """GET /agents/{ref}/requests."""
    query = Query(request, ("state", "limit", "cursor"))
    data = services.requests.page(
        ref, state=_state(query.text("state")), limit=query.limit(), cursor=query.text("cursor")
    )
    return answer("Requests retrieved successfully", data)


def detail(request: ApiRequest, services: Services, ref: str, request_id: str) -> Response:
    """GET /agents/{ref}/requests/{id}."""
    Query(request, ())
    return answer("Request retrieved successfully", services.requests.detail(ref, _known(request_id)))


def replay(request: ApiRequest, services: Services, ref: str, request_id: str) -> Response:
    """POST /agents/{ref}/requests/{id}/replay."""
    wait_s = Query(request, ("wait",)).seconds("wait", MAX_REPLAY_WAIT_S)
    done = services.requests.replay(
        ref, _known(request_id), request.actor, wait_s=REPLAY_WAIT_S if wait_s is None else wait_s
    )
    data = {"request_id": request_id, "status_code": done.status, "status": done.state.value}
    if done.state is RequestState.COMPLETED:
        return answer("Request replayed successfully", data)
    if done.state is RequestState.FAILED:
        return answer("Request was replayed and failed", data)
    why = (
        "it is delivered in its turn"
        if done.is_ready
        else "Agent is not running; it is delivered when the agent starts"
    )
    return answer(f"Request queued for replay: {why}", data, status=202)


def cancel(request: ApiRequest, services: Services, ref: str, request_id: str) -> Response:
    """DELETE /agents/{ref}/requests/{id}."""
    Query(request, ())
    services.requests.cancel(ref, _known(request_id), request.actor)
    return answer("Request cancelled successfully", {"request_id": request_id})


def purge(request: ApiRequest, services: Services, ref: str) -> Response:
    """DELETE /agents/{ref}/requests."""
    state = _state(Query(request, ("state",)).text("state"))
    if state is None:
        raise InvalidParameter("state", "is required", hint="state=pending or state=failed")
    removed = services.requests.purge(ref, state, request.actor)
    return answer("Requests removed successfully", {"removed": removed})


def state(request: ApiRequest, services: Services, request_id: str) -> Response:
    """GET /requests/{id}."""
    _check_ticket(request, services, request_id)
    data = services.requests.public(request_id)
    response = answer("Request retrieved successfully", data)
    if data["status"] in (RequestState.PENDING.value, RequestState.PROCESSING.value):
        response.headers["Retry-After"] = "2"
    return response


def response(request: ApiRequest, services: Services, request_id: str) -> Response:
    """GET /requests/{id}/response."""
    _check_ticket(request, services, request_id)
    stored = services.requests.response(request_id)
    headers = [(name, value) for name, value in raw_headers(stored.head) if name.lower() not in _NOT_OURS]
    return Verbatim(stored.body, stored.status, headers)


def cancel_own(request: ApiRequest, services: Services, request_id: str) -> Response:
    """DELETE /requests/{id}."""
    _check_ticket(request, services, request_id)
    services.requests.cancel_public(request_id, request.actor)
    return answer("Request cancelled successfully", {"request_id": request_id})


ROUTES = (
    Rule("/agents/<ref>/requests", methods=["GET"], endpoint=page),
    Rule("/agents/<ref>/requests", methods=["DELETE"], endpoint=purge),
    Rule("/agents/<ref>/requests/<request_id>", methods=["GET"], endpoint=detail),
    Rule("/agents/<ref>/requests/<request_id>", methods=["DELETE"], endpoint=cancel),
    Rule("/agents/<ref>/requests/<request_id>/replay", methods=["POST"], endpoint=replay),
    Rule("/requests/<request_id>", methods=["GET"], endpoint=state),
    Rule("/requests/<request_id>", methods=["DELETE"], endpoint=cancel_own),
    Rule("/requests/<request_id>/response", methods=["GET"], endpoint=response),
)


def _check_ticket(request: ApiRequest, services: Services, request_id: str) -> None:
    """Let who operates agents and the ticket's holder pass; to everybody else no request exists."""
    ticket = Query(request, ("t",)).text("t")
    _known(request_id)
    if request.may(Scope.OPERATE) or services.tokens.is_ticket(ticket, request_id, request.actor.source):
        return
    raise NotFound("request", request_id, message="Request not found")


def _known(request_id: str) -> str:
    if not _ID.fullmatch(request_id):
        raise NotFound("request", request_id[:64], message="Request not found")
    return request_id


def _state(text: str) -> RequestState | None:
    try:
        return RequestState(text) if text else None
    except ValueError:
        raise InvalidParameter("state", f"{text[:64]!r} is none of {', '.join(RequestState)}") from None
