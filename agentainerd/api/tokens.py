"""`/token`: the control token, over the control socket only. `/tokens`: the named ones."""

import msgspec
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd import defaults
from agentainerd.api.exchange import ApiRequest, Query, answer
from agentainerd.errors import InvalidParameter
from agentainerd.services.services import Services
from agentainerd.services.views import token_json


class CreateBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /tokens; `expires_in_s`: 0 for never."""

    name: str
    scopes: list[str]
    expires_in_s: float = defaults.TOKEN_LIFETIME_S


class RotateBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /tokens/{ref}/rotate."""

    grace_s: float = 0.0


def show(request: ApiRequest, services: Services) -> Response:
    """GET /token."""
    Query(request, ())
    return answer("Token retrieved successfully", {"token": services.tokens.show(request.actor)})


def rotate(request: ApiRequest, services: Services) -> Response:
    """POST /token/rotate."""
    Query(request, ())
    return answer("Token rotated successfully", {"token": services.tokens.rotate(request.actor)})


def page(request: ApiRequest, services: Services) -> Response:
    """GET /tokens."""
    Query(request, ())
    return answer("Tokens retrieved successfully", [token_json(token) for token in services.named_tokens.all()])


def get(request: ApiRequest, services: Services, ref: str) -> Response:
    """GET /tokens/{ref}."""
    Query(request, ())
    return answer("Token retrieved successfully", token_json(services.named_tokens.get(ref)))


def create(request: ApiRequest, services: Services) -> Response:
    """POST /tokens."""
    Query(request, ())
    body = request.read_json(CreateBody)
    _check_seconds("expires_in_s", body.expires_in_s, defaults.MAX_TOKEN_LIFETIME_S)
    made, text = services.named_tokens.create(request.actor, body.name, body.scopes, body.expires_in_s)
    return answer("Token created successfully", {**token_json(made), "token": text}, status=201)


def rotate_named(request: ApiRequest, services: Services, ref: str) -> Response:
    """POST /tokens/{ref}/rotate."""
    Query(request, ())
    body = request.read_json(RotateBody)
    _check_seconds("grace_s", body.grace_s, defaults.MAX_TOKEN_GRACE_S)
    made, text = services.named_tokens.rotate(request.actor, ref, body.grace_s)
    return answer("Token rotated successfully", {**token_json(made), "token": text})


def revoke(request: ApiRequest, services: Services, ref: str) -> Response:
    """DELETE /tokens/{ref}."""
    Query(request, ())
    gone = services.named_tokens.revoke(request.actor, ref)
    return answer("Token revoked successfully", {"id": gone.id, "name": gone.name})


ROUTES = (
    Rule("/token", methods=["GET"], endpoint=show),
    Rule("/token/rotate", methods=["POST"], endpoint=rotate),
    Rule("/tokens", methods=["GET"], endpoint=page),
    Rule("/tokens", methods=["POST"], endpoint=create),
    Rule("/tokens/<ref>", methods=["GET"], endpoint=get),
    Rule("/tokens/<ref>", methods=["DELETE"], endpoint=revoke),
    Rule("/tokens/<ref>/rotate", methods=["POST"], endpoint=rotate_named),
)


def _check_seconds(name: str, value: float, high: float) -> None:
    if not 0 <= value <= high:
        raise InvalidParameter(name, f"{value:g} is not between 0 and {high:g} seconds")
