"""`/audit`: who changed what, and whether what is written of it is whole."""

from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.exchange import ApiRequest, Query, answer
from agentainerd.model.audit import AuditFilter, moment
from agentainerd.services.services import Services
from agentainerd.services.views import audit_json, chain_json


def entries(request: ApiRequest, services: Services) -> Response:
    """GET /audit."""
    query = Query(
        request, ("user", "resource", "result", "duration", "since", "until", "limit", "cursor"), many=("action",)
    )
    wanted = AuditFilter(
        user=query.text("user"),
        actions=tuple(name for text in query.texts("action") for name in text.split(",") if name),
        resource=query.text("resource"),
        result=query.text("result"),
        since=_time(query, "since") or _time(query, "duration"),
        until=_time(query, "until"),
    )
    found, cursor = services.audit.page(wanted, query.limit(), query.text("cursor"))
    data = {"entries": [audit_json(entry) for entry in found], "next_cursor": cursor}
    return answer("Audit entries retrieved successfully", data)


def verify(request: ApiRequest, services: Services) -> Response:
    """GET /audit/verify."""
    Query(request, ())
    check = services.audit.verify()
    message = "The audit log is broken" if check.fault_count else "The audit log is whole"
    return answer(message, chain_json(check))


ROUTES = (
    Rule("/audit", methods=["GET"], endpoint=entries),
    Rule("/audit/verify", methods=["GET"], endpoint=verify),
)


def _time(query: Query, name: str) -> str:
    at = query.moment(name)
    return moment(at) if at else ""
