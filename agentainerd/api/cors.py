"""Pages of other origins that may use the API (Fetch standard, 3.2): those that access.py lets in, and under /api/ only.

Which ones is decided by `server.allowed_origins`, for requests and for answers alike: there is no second list.
"""

from werkzeug.wrappers import Response

from agentainerd.api.exchange import ApiRequest

METHODS = "GET, POST, PUT, DELETE, OPTIONS"
HEADERS = "Content-Type, Authorization, Idempotency-Key, Last-Event-ID"
EXPOSED = "Location, Retry-After, X-Agentainer-Request-ID"
MAX_AGE_S = 600
_PREFIX = "/api/"


def is_preflight(request: ApiRequest) -> bool:
    """Return whether somebody asks what may be asked."""
    return request.method == "OPTIONS" and request.path.startswith(_PREFIX)


def preflight() -> Response:
    """Return what may be asked; `allow` adds by whom."""
    response = Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Headers": HEADERS,
            "Access-Control-Max-Age": str(MAX_AGE_S),
        },
    )
    del response.headers["Content-Type"]
    return response


def allow(request: ApiRequest, response: Response) -> None:
    """Let the page that sent the request read the answer."""
    if not request.path.startswith(_PREFIX):
        return
    response.headers.add("Vary", "Origin")
    if request.is_page:
        response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
        response.headers["Access-Control-Expose-Headers"] = EXPOSED
