"""`/images`: build and pull with progress, and look at one."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict

import msgspec
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.exchange import ApiRequest, Query, answer, stream_lines
from agentainerd.model.containers import Progress
from agentainerd.services.images import ImageResult
from agentainerd.services.services import Services
from agentainerd.services.views import rfc3339


class PullBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What POST /images/pull takes; `policy`: always, missing or never."""

    image: str
    policy: str = "missing"


class _Nothing:
    """A stream that holds nothing."""

    def close(self) -> None:
        """Nothing to let go."""


def build(request: ApiRequest, services: Services) -> Response:
    """POST /images/build."""
    query = Query(request, ("tag", "dockerfile"), many=("arg",))
    job = services.images.build(
        request.stream,
        tag=query.text("tag"),
        dockerfile=query.text("dockerfile", "Dockerfile"),
        args=query.pairs("arg"),
        actor=request.actor,
    )
    return stream_lines(job, _lines(job))


def pull(request: ApiRequest, services: Services) -> Response:
    """POST /images/pull."""
    Query(request, ())
    body = request.read_json(PullBody)
    job = services.images.pull(body.image, policy=body.policy, actor=request.actor)
    if isinstance(job, ImageResult):
        return stream_lines(_Nothing(), _lines([job]))
    return stream_lines(job, _lines(job))


def get(request: ApiRequest, services: Services, ref: str) -> Response:
    """GET /images/{ref}."""
    Query(request, ())
    image = services.images.get(ref)
    data = {**asdict(image), "created_at": rfc3339(image.created_at)}
    return answer("Image retrieved successfully", data)


ROUTES = (
    Rule("/images/build", methods=["POST"], endpoint=build),
    Rule("/images/pull", methods=["POST"], endpoint=pull),
    Rule("/images/<path:ref>", methods=["GET"], endpoint=get),
)


def _lines(items: Iterable[Progress | ImageResult]) -> Iterator[dict[str, object]]:
    for item in items:
        if isinstance(item, ImageResult):
            yield {"result": asdict(item)}
        else:
            yield {
                "progress": {
                    "text": item.text,
                    "id": item.id,
                    "status": item.status,
                    "current": item.current,
                    "total": item.total,
                }
            }
