"""The control API as a WSGI application: finds the handler, lets the caller in, turns errors into answers.

The same application serves both doors; see access.py for the difference. Handlers are functions of a request and the
services, one file a noun, each with its ROUTES.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.exceptions import NotFound as NoRoute
from werkzeug.routing import Map, RequestRedirect, Rule
from werkzeug.wrappers import Response

from agentainerd import log_context
from agentainerd.api import (
    agentos,
    agents,
    audit,
    autonomous,
    backups,
    bridges,
    cors,
    deployments,
    documentation,
    events,
    health,
    images,
    jobs,
    metrics,
    models,
    ports,
    replicas,
    requests,
    runs,
    scheduler,
    session_events,
    sessions,
    system,
    system_logs,
    templates,
    tokens,
)
from agentainerd.api.access import AccessOptions, Door, admit
from agentainerd.api.errors import encode_error, status_of
from agentainerd.api.exchange import ApiLimits, ApiRequest, internal_error, log_bug
from agentainerd.api.scopes import LOCAL, PROBES, PUBLIC, needed
from agentainerd.errors import AgentainerError, InvalidParameter, NotFound, TooManyRequests, Unavailable
from agentainerd.services.services import Services

ROUTES: tuple[Rule, ...] = (
    *agents.ROUTES,
    *replicas.ROUTES,
    *deployments.ROUTES,
    *health.ROUTES,
    *metrics.ROUTES,
    *models.ROUTES,
    *ports.ROUTES,
    *requests.ROUTES,
    *runs.ROUTES,
    *jobs.ROUTES,
    *sessions.ROUTES,
    *session_events.ROUTES,
    *templates.ROUTES,
    *agentos.ROUTES,
    *autonomous.ROUTES,
    *scheduler.ROUTES,
    *images.ROUTES,
    *backups.ROUTES,
    *bridges.ROUTES,
    *events.ROUTES,
    *audit.ROUTES,
    *system.ROUTES,
    *system_logs.ROUTES,
    *tokens.ROUTES,
    *documentation.ROUTES,
)
_IMAGES = "/images/"
_FILES = re.compile(r"/api/v1/jobs/[^/]+/artifacts/")
_HIDE_METHODS = ("/api/v1/agents", "/api/v1/sessions", "/api/agents/")
"""Paths of documents in which a wrong method is an unknown route."""


class App:
    """One door of the API. Safe to call from any greenlet.

    `options`, `limits`: from the configuration; others may be put in their place at any time.
    """

    def __init__(
        self,
        services: Services,
        *,
        door: Door,
        options: AccessOptions | None = None,
        limits: ApiLimits | None = None,
    ) -> None:
        self._services = services
        self._door = door
        self.options = options or AccessOptions()
        self.limits = limits or ApiLimits()
        self._map = Map(
            [rule.empty() for rule in ROUTES], strict_slashes=False, merge_slashes=False, redirect_defaults=False
        )

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request."""
        request = ApiRequest(environ)
        request.limits = self.limits
        log_context.begin(request_id=request.id)
        try:
            response = self._serve(request)
        except AgentainerError as error:
            response = _refuse(error)
        except HTTPException as error:
            response = _refuse(_http_error(error))
        except Exception as exc:
            response = _refuse(internal_error(log_bug(exc, f"{request.method} {request.path}")))
        cors.allow(request, response)
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["X-Agentainer-Request-ID"] = request.id
        return response(environ, start_response)

    def _serve(self, request: ApiRequest) -> Response:
        if cors.is_preflight(request):
            self._admit(request, None)
            return cors.preflight()
        handler, values = self._find(request)
        self._admit(request, handler)
        if handler in LOCAL and not request.is_local:
            self._services.tokens.refuse_remote(request.actor)
        return handler(request, self._services, **values)

    def _find(self, request: ApiRequest) -> tuple[Callable[..., Response], Mapping[str, Any]]:
        """Return the handler and the variables of the path. Nothing that only administrators may know is in that."""
        try:
            check_path(request.environ.get("RAW_URI", request.path).partition("?")[0])
            return self._map.bind("localhost").match(request.path, request.method)
        except (NoRoute, RequestRedirect):
            raise _no_route(request) from None
        except MethodNotAllowed:
            if request.path.startswith(_HIDE_METHODS):
                raise _no_route(request) from None
            raise

    def _admit(self, request: ApiRequest, handler: Callable[..., Response] | None) -> None:
        """Let the caller in, to a handler or to none (what may be asked, which everybody may know)."""
        try:
            admit(
                request,
                self._door,
                self._services.tokens,
                self.options,
                needed=None if handler is None or handler in PUBLIC else needed(handler),
                is_probe=handler in PROBES,
            )
        finally:
            log_context.add(actor=request.actor.name)  # of who is refused too


def check_path(raw: str) -> None:
    """Refuse a path that somebody could read as another one: what is encoded in a segment stays in that segment.

    No name of ours is empty, begins or ends with a space, or has a slash, a dot segment, a percent sign, a parameter (;) or a
    control character in it; images have slashes. Files of jobs are called as their programs wished, and looked for in a list.

    Raises:
        NoRoute: there is one, or it is not UTF-8.
    """
    if "//" in raw:
        raise NoRoute
    closed = "\\%;" if raw.startswith(_IMAGES) else "/\\%;"
    file_name = raw[found.end() :] if (found := _FILES.match(raw)) else ""
    for encoded in raw.removesuffix(file_name).split("/"):
        segment = unquote(encoded, errors="replace")
        if segment != segment.strip():
            raise NoRoute
        _check_segment(segment, closed)
    for encoded in file_name.split("/"):
        _check_segment(unquote(encoded, errors="replace"), "/")


def _check_segment(segment: str, closed: str) -> None:
    dots = any(part in (".", "..") for part in segment.split("/"))
    if dots or any(sign in closed or sign in "\x7f\ufffd" or sign < " " for sign in segment):
        raise NoRoute


def _no_route(request: ApiRequest) -> NotFound:
    return NotFound("route", f"{request.method} {request.path[:256]}")


def _refuse(error: AgentainerError) -> Response:
    status = status_of(error)
    response = Response(encode_error(error), status, mimetype="application/json")
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="agentainer"'
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    elif isinstance(error, (Unavailable, TooManyRequests)):
        response.headers["Retry-After"] = "5"
    if allow := error.details.get("allow"):
        response.headers["Allow"] = str(allow)
    return response


def _http_error(error: HTTPException) -> AgentainerError:
    if isinstance(error, MethodNotAllowed):
        allow = ", ".join(sorted(error.valid_methods or ()))
        return AgentainerError(
            f"the method is not allowed here; allowed: {allow}", code="METHOD_NOT_ALLOWED", details={"allow": allow}
        )
    return InvalidParameter("request", (error.description or error.name).lower(), code="BAD_REQUEST")
