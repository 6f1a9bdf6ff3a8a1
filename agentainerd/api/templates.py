"""`/api/v1/templates`: named prompts with parameters, which jobs are made from."""

from typing import Any

import msgspec
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.exchange import ApiRequest, Query, answer
from agentainerd.model.templates import Template
from agentainerd.services.services import Services


def page(request: ApiRequest, services: Services) -> Response:
    """GET /api/v1/templates."""
    Query(request, ())
    found, problems = services.templates.list()
    return answer("Templates retrieved successfully", [_summary(each) for each in found], problems=problems)


def get(request: ApiRequest, services: Services, name: str) -> Response:
    """GET /api/v1/templates/{name}."""
    Query(request, ())
    return answer("Template retrieved successfully", _whole(services.templates.get(name)))


def _summary(template: Template) -> dict[str, Any]:
    parameters = {
        name: {"description": each.description, "required": each.default is None, "default": each.default,
               "choices": each.choices}
        for name, each in template.parameters.items()
    }  # fmt: skip
    return {"name": template.name, "description": template.description, "parameters": parameters, "file": template.file}


def _whole(template: Template) -> dict[str, Any]:
    """All of it but the values of its variables: nobody reads those of a job either."""
    limits = {name: value for name, value in msgspec.structs.asdict(template.limits).items() if value is not None}
    return {
        **_summary(template), "prompt": template.prompt, "image": template.image, "command": template.command,
        "bridge": template.bridge, "env": sorted(template.env), "limits": limits, "retention": template.retention,
        "priority": template.priority, "model": template.model,
    }  # fmt: skip


ROUTES = (
    Rule("/api/v1/templates", methods=["GET"], endpoint=page),
    Rule("/api/v1/templates/<name>", methods=["GET"], endpoint=get),
)
