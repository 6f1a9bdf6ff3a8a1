"""`/token`: shown and replaced over the control socket only."""

from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.exchange import ApiRequest, Query, answer
from agentainerd.services.services import Services


def show(request: ApiRequest, services: Services) -> Response:
    """GET /token."""
    Query(request, ())
    return answer("Token retrieved successfully", {"token": services.tokens.show(request.actor)})


def rotate(request: ApiRequest, services: Services) -> Response:
    """POST /token/rotate."""
    Query(request, ())
    return answer("Token rotated successfully", {"token": services.tokens.rotate(request.actor)})


ROUTES = (
    Rule("/token", methods=["GET"], endpoint=show),
    Rule("/token/rotate", methods=["POST"], endpoint=rotate),
)
