"""`/agents/{ref}/ports/open`: the way to what an agent serves for people."""

from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.exchange import ApiRequest, Query, answer
from agentainerd.services.services import Services
from agentainerd.services.views import rfc3339


def open_(request: ApiRequest, services: Services, ref: str) -> Response:
    """POST /agents/{ref}/ports/open."""
    logins = services.ports.open(ref, Query(request, ("port",)).text("port"), request.actor)
    found = [
        {"port": login.port, "url": login.url, "path": login.path, "expires_at": rfc3339(login.expires_at)}
        for login in logins
    ]
    return answer("Ports can be opened", found)


ROUTES = (Rule("/agents/<ref>/ports/open", methods=["POST"], endpoint=open_),)
