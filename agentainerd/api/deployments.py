"""`/deployments`: plan, apply with progress, list and export."""

from collections.abc import Iterator, Mapping

import msgspec
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.errors import error_fields
from agentainerd.api.exchange import ApiRequest, Query, answer, stream_lines
from agentainerd.model.agents import AgentSpec
from agentainerd.model.deployments import Step, Wish
from agentainerd.services.applications import Application, Report, Stage
from agentainerd.services.services import Services
from agentainerd.services.views import rfc3339

Json = dict[str, object]


def plan(request: ApiRequest, services: Services) -> Response:
    """POST /deployments/plan."""
    Query(request, ())
    found = services.deployments.plan(request.read_json(Wish))
    data = {"steps": [_step(step) for step in found.steps], "stray": list(found.stray)}
    return answer("Deployment planned successfully", data)


def apply(request: ApiRequest, services: Services) -> Response:
    """POST /deployments/apply."""
    Query(request, ())
    application = services.deployments.apply(request.read_json(Wish), request.actor)
    return stream_lines(application, _lines(application))


def page(request: ApiRequest, services: Services) -> Response:
    """GET /deployments."""
    Query(request, ())
    data = [
        {
            "name": record.name,
            "description": record.description,
            "labels": record.labels,
            "agents": [agent.name for agent in agents],
            "applied_at": rfc3339(record.applied_at),
        }
        for record, agents in services.deployments.all()
    ]
    return answer("Deployments retrieved successfully", data)


def export(request: ApiRequest, services: Services, name: str) -> Response:
    """GET /deployments/{name}/export."""
    Query(request, ())
    found = services.deployments.export(name)
    data = {**msgspec.to_builtins(found), "agents": [_given(spec) for spec in found.agents]}
    return answer("Deployment exported successfully", data)


ROUTES = (
    Rule("/deployments", methods=["GET"], endpoint=page),
    Rule("/deployments/plan", methods=["POST"], endpoint=plan),
    Rule("/deployments/apply", methods=["POST"], endpoint=apply),
    Rule("/deployments/<name>/export", methods=["GET"], endpoint=export),
)


def _given(spec: AgentSpec) -> Json:
    """Return what of a spec is not the default."""
    usual = {
        field.name: field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        for field in msgspec.structs.fields(spec)
    }
    return {name: value for name, value in msgspec.to_builtins(spec).items() if getattr(spec, name) != usual[name]}


def _step(step: Step) -> Json:
    return {
        "agent": step.agent,
        "deployment": step.deployment,
        "action": step.verb.value,
        "image": step.image,
        "changes": [msgspec.to_builtins(change) for change in step.changes],
        "dependencies": list(step.dependencies),
        "starts": step.starts,
        "stops_first": step.stops_first,
        "lacks_image": step.lacks_image,
    }


def _report(report: Report) -> Json:
    found: Json = {
        "agent": report.step.agent,
        "id": report.agent_id,
        "image": report.step.image,
        "action": report.step.verb.value,
        "stage": report.stage.value,
        "message": report.message,
    }
    return {**found, "error": error_fields(report.error)} if report.error else found


def _lines(application: Application) -> Iterator[Mapping[str, object]]:
    yield {"plan": {"steps": [_step(step) for step in application.plan.steps], "stray": list(application.plan.stray)}}
    for report in application:
        yield {"progress": _report(report)} if report else {}
    last = [application.results[step.agent] for step in application.plan.steps]
    is_whole = all(report.stage is Stage.DONE for report in last)
    yield {"result": {"success": is_whole, "agents": [_report(report) for report in last]}}
