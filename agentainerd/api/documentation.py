"""The description of the API, as a file and as a page for people. The page is whole: it loads the file and nothing else."""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.exchange import ApiRequest
from agentainerd.services.services import Services

_FOLDER = Path(__file__).parent


def specification(request: ApiRequest, services: Services) -> Response:
    """GET /openapi.yaml."""
    return Response(_read("openapi.yaml"), content_type="application/yaml; charset=utf-8")


def page(request: ApiRequest, services: Services) -> Response:
    """GET /docs."""
    response = Response(_read("documentation.html"), content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = _policy()
    return response


ROUTES = (
    Rule("/openapi.yaml", methods=["GET"], endpoint=specification),
    Rule("/docs", methods=["GET"], endpoint=page),
)


@cache
def _read(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()


@cache
def _policy() -> str:
    """Nothing runs in the page but its own script, and it speaks to nobody but us."""
    scripts = re.findall(rb"<script>(.*?)</script>", _read("documentation.html"), re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(script).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
