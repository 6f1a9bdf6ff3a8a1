"""Health, version, and `/system`."""

from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.exchange import ApiRequest, Query, answer, answer_flat
from agentainerd.errors import Unavailable
from agentainerd.services.services import Services


def health(request: ApiRequest, services: Services) -> Response:
    """GET /health: the original's envelope, and beside it what the AgentOS document has, which is flat."""
    envelope = {"success": True, "message": "Service is healthy", "data": services.system.health()}
    return answer_flat({**envelope, **services.system.agentos_health()})


def livez(request: ApiRequest, services: Services) -> Response:
    """GET /livez."""
    return answer("agentainerd is alive", {"status": "ok"})


def readyz(request: ApiRequest, services: Services) -> Response:
    """GET /readyz."""
    is_verbose = Query(request, ("verbose",)).flag("verbose")
    checks = services.system.readiness()
    bad = sorted(name for name, result in checks.items() if result != "ok")
    if bad:
        raise Unavailable(
            f"agentainerd is not ready: {', '.join(bad)}",
            code="NOT_READY",
            details={"checks": checks} if is_verbose else {"failing": bad},
            retry_after_s=5,
        )
    return answer("agentainerd is ready", {"status": "ok", **({"checks": checks} if is_verbose else {})})


def version(request: ApiRequest, services: Services) -> Response:
    """GET /version."""
    return answer("Version retrieved successfully", services.system.version())


def ping(request: ApiRequest, services: Services) -> Response:
    """GET /system/ping."""
    return answer("agentainerd answers", services.system.ping())


def info(request: ApiRequest, services: Services) -> Response:
    """GET /system/info."""
    return answer("System information retrieved successfully", services.system.info())


def df(request: ApiRequest, services: Services) -> Response:
    """GET /system/df."""
    return answer("Disk usage retrieved successfully", services.system.df())


def doctor(request: ApiRequest, services: Services) -> Response:
    """GET /system/doctor."""
    return answer("Examination finished", services.doctor.examine())


ROUTES = (
    Rule("/health", methods=["GET"], endpoint=health),
    Rule("/livez", methods=["GET"], endpoint=livez),
    Rule("/readyz", methods=["GET"], endpoint=readyz),
    Rule("/version", methods=["GET"], endpoint=version),
    Rule("/system/ping", methods=["GET"], endpoint=ping),
    Rule("/system/info", methods=["GET"], endpoint=info),
    Rule("/system/df", methods=["GET"], endpoint=df),
    Rule("/system/doctor", methods=["GET"], endpoint=doctor),
)
