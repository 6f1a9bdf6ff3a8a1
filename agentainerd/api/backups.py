"""`/backups`: make, list, look at, check and delete; long work streams its progress."""

import msgspec
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.exchange import ApiRequest, Query, answer, stream_file, stream_lines
from agentainerd.services.backup_plans import RestoreOptions
from agentainerd.services.backups import BackupOptions
from agentainerd.services.services import Services
from agentainerd.services.views import backup_json


class CreateBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What POST /backups takes; `agents`: ids or names, empty: all. `passphrase`: what secrets are encrypted with."""

    name: str
    description: str = ""
    agents: tuple[str, ...] = ()
    pause: bool = False
    passphrase: str = ""
    include_requests: bool = False


class RestoreBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What POST /backups/{ref}/restore takes; `agents`: ids or names in the backup, empty: all."""

    agents: tuple[str, ...] = ()
    in_place: bool = False
    passphrase: str = ""


def create(request: ApiRequest, services: Services) -> Response:
    """POST /backups."""
    Query(request, ())
    body = request.read_json(CreateBody)
    options = BackupOptions(
        body.name,
        body.description,
        agents=body.agents,
        pause=body.pause,
        passphrase=body.passphrase,
        requests=body.include_requests,
    )
    job = services.backups.create(options, request.actor)
    return stream_lines(job, job)


def list_(request: ApiRequest, services: Services) -> Response:
    """GET /backups."""
    Query(request, ())
    backups = [backup_json(backup, with_omissions=False) for backup in services.backups.all()]
    return answer("Backups retrieved successfully", backups)


def get(request: ApiRequest, services: Services, ref: str) -> Response:
    """GET /backups/{ref}."""
    Query(request, ())
    return answer("Backup retrieved successfully", backup_json(services.backups.get(ref)))


def delete(request: ApiRequest, services: Services, ref: str) -> Response:
    """DELETE /backups/{ref}."""
    Query(request, ())
    backup = services.backups.delete(ref, request.actor)
    return answer(f"Backup {backup.id} deleted successfully", {"id": backup.id, "name": backup.manifest.name})


def verify(request: ApiRequest, services: Services, ref: str) -> Response:
    """POST /backups/{ref}/verify."""
    Query(request, ())
    job = services.backups.verify(ref)
    return stream_lines(job, job)


def restore(request: ApiRequest, services: Services, ref: str) -> Response:
    """POST /backups/{ref}/restore."""
    Query(request, ())
    body = request.read_json(RestoreBody)
    options = RestoreOptions(agents=body.agents, in_place=body.in_place, passphrase=body.passphrase)
    job = services.restores.restore(ref, options, request.actor)
    return stream_lines(job, job)


def export(request: ApiRequest, services: Services, ref: str) -> Response:
    """GET /backups/{ref}/archive."""
    Query(request, ())
    found = services.exchange.export(ref, request.actor)
    headers = {
        "Content-Length": str(found.backup.size),
        "Content-Disposition": f'attachment; filename="{found.backup.id}.tar.gz"',
    }
    return stream_file(found, found, "application/gzip", headers)


def import_(request: ApiRequest, services: Services) -> Response:
    """POST /backups/import."""
    Query(request, ())
    job = services.exchange.take(request.stream, request.actor)
    return stream_lines(job, job)


ROUTES = (
    Rule("/backups", methods=["POST"], endpoint=create),
    Rule("/backups", methods=["GET"], endpoint=list_),
    Rule("/backups/import", methods=["POST"], endpoint=import_),
    Rule("/backups/<ref>/archive", methods=["GET"], endpoint=export),
    Rule("/backups/<ref>", methods=["GET"], endpoint=get),
    Rule("/backups/<ref>", methods=["DELETE"], endpoint=delete),
    Rule("/backups/<ref>/verify", methods=["POST"], endpoint=verify),
    Rule("/backups/<ref>/restore", methods=["POST"], endpoint=restore),
)
