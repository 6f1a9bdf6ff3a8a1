"""`/agents/{ref}/scale`: how many containers an agent has."""

import msgspec
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.agents import MAX_WAIT_S
from agentainerd.api.exchange import ApiRequest, Query, answer
from agentainerd.services.services import Services


class ScaleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What POST /agents/{ref}/scale takes."""

    replicas: int


def scale(request: ApiRequest, services: Services, ref: str) -> Response:
    """POST /agents/{ref}/scale."""
    wait_s = Query(request, ("wait",)).seconds("wait", MAX_WAIT_S)
    agent = services.replicas.scale(ref, request.read_json(ScaleBody).replicas, request.actor, wait_s=wait_s)
    return answer("Agent scaled successfully", services.agents.public([agent])[0])


ROUTES = (Rule("/agents/<ref>/scale", methods=["POST"], endpoint=scale),)
