"""Restoring: the whole archive is checked and a plan is made before anything is changed; what fails is undone."""

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import BinaryIO

import msgspec

from agentainerd import offload
from agentainerd.errors import AgentainerError, InvalidParameter, TooManyRequests, Unavailable
from agentainerd.model.agents import Agent
from agentainerd.model.backups import Backup, Omissions, Secrets, with_secrets
from agentainerd.services.agents import AgentService
from agentainerd.services.audit import Actor, AuditService
from agentainerd.services.backup_archive import ArchiveReader
from agentainerd.services.backup_engine import EngineTarget
from agentainerd.services.backup_jobs import BackupJob
from agentainerd.services.backup_places import Item
from agentainerd.services.backup_plans import Planner, RestoreOptions, RestorePlan, check_down
from agentainerd.services.backup_progress import Watch
from agentainerd.services.backup_requests import RequestCopies, decode
from agentainerd.services.backup_secrets import BackupKey, unseal
from agentainerd.services.backup_volumes import FolderTarget, VolumePlaces
from agentainerd.services.backups import BackupService
from agentainerd.services.fleet import Fleet
from agentainerd.services.updates import UpdateService
from agentainerd.services.views import Json

log = logging.getLogger(__name__)

Target = FolderTarget | EngineTarget


class RestoreService:
    """`restore`; see the module."""

    def __init__(
        self,
        backups: BackupService,
        planner: Planner,
        places: VolumePlaces,
        fleet: Fleet,
        *,
        requests: RequestCopies,
        agents: AgentService,
        updates: UpdateService,
        audit: AuditService,
    ) -> None:
        self._backups = backups
        self._planner = planner
        self._places = places
        self._fleet = fleet
        self._requests = requests
        self._agents = agents
        self._updates = updates
        self._audit = audit

    def restore(self, ref: str, options: RestoreOptions, actor: Actor) -> BackupJob:
        """Start to restore agents and volumes; what is restored is not started.

        The job's result: `agents` (name, id, and what they were called), `volumes` (source, destination), `requests`: how
        many are pending again, `omitted` and `omissions`: what is not there as it was.

        Raises:
            NotFound, Conflict: as BackupService.get. TooManyRequests. The job: what Planner.plan raises, Failed (code
            BACKUP_DAMAGED), Unavailable; nothing is changed then.
        """
        try:
            backup = self._backups.get(ref)
        except AgentainerError as error:
            self._audit.record(actor, "restore_backup", ref, error.code)
            raise
        return self._backups.jobs.start("restore", lambda watch: self._restore(backup, options, actor, watch))

    def _restore(self, backup: Backup, options: RestoreOptions, actor: Actor, watch: Watch) -> Json:
        target = f"{backup.id} ({backup.manifest.name})"
        with self._audit.mutation(actor, "restore_backup", target), self._backups.reading(backup.id) as file:
            mark = secrets.token_hex(3)
            watch.step, watch.total = "checking", 2 * backup.size
            backup, sizes = offload.run(_check, file, backup.size, watch)
            known, key = offload.run(_unseal, backup, options.passphrase)
            plan = self._planner.plan(backup.manifest, options, mark)
            self._places.check_room(list(plan.volumes.values()), sizes)
            omissions = Omissions()
            with self._held(plan):
                targets = {number: self._places.target(each, mark, omissions) for number, each in plan.volumes.items()}
                plan = _with_secrets(plan, known, omissions)
                restored = self._write(file, plan, targets, actor, watch)
                restored |= self._update(plan, actor, omissions)
                requests = self._put_requests(file, plan, restored, key, omissions) if backup.contents.requests else 0
        _note_missing(backup, plan, omissions)
        log.info("backup restored", extra={"backup_id": backup.id, "agents": len(restored), "omitted": omissions.count})
        return {**_result(backup, plan, restored, omissions), "requests": requests}

    @contextmanager
    def _held(self, plan: RestorePlan) -> Iterator[None]:
        """Keep everybody from starting what is overwritten."""
        with ExitStack() as held:
            for agent in sorted(self._planner.users(plan), key=lambda agent: agent.id):
                check_down(held.enter_context(self._fleet.locked(agent.id)))
            yield

    def _write(
        self, file: BinaryIO, plan: RestorePlan, targets: dict[int, Target], actor: Actor, watch: Watch
    ) -> dict[str, Agent]:
        """Write the volumes and deploy what is new; return the agents by their ids in the backup."""
        deployed: dict[str, Agent] = {}
        try:
            self._copy(file, plan, targets, watch)
            watch.step = "putting in place"
            for number, volume in plan.volumes.items():
                if volume.is_new:
                    targets[number].commit()
            for each in plan.agents:
                if each.existing is None:
                    deployed[each.backed.id] = self._agents.deploy(each.spec, actor)
            for number, volume in plan.volumes.items():
                if not volume.is_new:
                    targets[number].commit()
        except BaseException:
            self._undo(targets, deployed, actor)
            raise
        return deployed

    def _update(self, plan: RestorePlan, actor: Actor, omissions: Omissions) -> dict[str, Agent]:
        """Give agents that were there the settings that they had."""
        updated: dict[str, Agent] = {}
        for each in plan.agents:
            if each.existing is not None:
                updated[each.backed.id] = each.existing
                try:
                    updated[each.backed.id] = self._updates.update(each.existing.id, each.spec, actor, wait_s=0)
                except AgentainerError as error:
                    omissions.add(each.existing.name, "", f"its settings are not restored: {error.message}")
        return updated

    def _copy(self, file: BinaryIO, plan: RestorePlan, targets: dict[int, Target], watch: Watch) -> None:
        offload.run(file.seek, 0)
        reader = offload.run(ArchiveReader, file, watch)
        entries = reader.entries()
        item = offload.run(next, entries, None)
        while item is not None:
            number = item[0]
            if number in targets:
                watch.step = plan.volumes[number].destination
                item = targets[number].copy(item, entries)
            else:
                item = offload.run(_skip, number, entries)

    def _put_requests(
        self, file: BinaryIO, plan: RestorePlan, restored: dict[str, Agent], key: BackupKey | None, omissions: Omissions
    ) -> int:
        """Make the requests of restored agents pending again; return how many."""
        if key is None:
            omissions.add("requests", "", "they are encrypted, and no passphrase was given")
            return 0
        is_new = {each.backed.id: each.existing is None for each in plan.agents}
        offload.run(file.seek, 0)
        reader = offload.run(ArchiveReader, file, Watch())
        done = 0
        for number, sealed in enumerate(_offloaded(reader.requests())):
            data = offload.run(key.open, sealed, f"request {number}")
            stored = decode(data)
            if agent := restored.get(stored.agent_id):
                try:
                    done += self._requests.write(data, agent, is_new=is_new[stored.agent_id])
                except (TooManyRequests, Unavailable) as error:
                    omissions.add(agent.name, stored.id, f"a request is not restored: {error.message}")
        return done

    def _undo(self, targets: dict[int, Target], deployed: dict[str, Agent], actor: Actor) -> None:
        steps: list[Callable[[], object]] = [
            partial(self._agents.remove, agent.id, actor) for agent in deployed.values()
        ]
        for step in (*steps, *(target.abandon for target in targets.values())):
            try:
                step()
            except (AgentainerError, OSError) as error:
                log.error("something is left of a restore that failed: %s", error)


def _check(file: BinaryIO, size: int, watch: Watch) -> tuple[Backup, dict[int, int]]:
    """Read all of it; return what the file itself says that it is, and the bytes of each volume."""
    sizes: dict[int, int] = {}
    reader = ArchiveReader(file, watch)
    for number, entry, _ in reader.entries():
        sizes[number] = sizes.get(number, 0) + entry.data_bytes
    assert reader.contents is not None  # it ends with it, or raises
    return Backup(manifest=reader.manifest, contents=reader.contents, size=size), sizes


def _unseal(backup: Backup, passphrase: str) -> tuple[dict[str, Secrets], BackupKey | None]:
    """Return the secrets of the agents by their ids, and the key; nothing where there is no passphrase.

    Raises:
        Forbidden: it is another one. InvalidParameter: there is nothing that it is for. Failed: somebody has changed it.
    """
    if not passphrase:
        return {}, None
    manifest, contents = backup.manifest, backup.contents
    if manifest.sealed is None:
        raise InvalidParameter("passphrase", "the backup has nothing that is encrypted: leave it out")
    data, key = unseal(passphrase, manifest.id, manifest.sealed)
    key.check(contents.sha256, contents.signature)
    return msgspec.json.decode(data, type=dict[str, Secrets]), key


def _offloaded(items: Iterator[bytes]) -> Iterator[bytes]:
    while (item := offload.run(next, items, None)) is not None:
        yield item


def _skip(number: int, entries: Iterator[Item]) -> Item | None:
    return next((item for item in entries if item[0] != number), None)


def _with_secrets(plan: RestorePlan, known: dict[str, Secrets], omissions: Omissions) -> RestorePlan:
    """Return the plan with the secrets that are known: those of the backup, else those that agents have now; note the others."""
    agents = []
    for each in plan.agents:
        now = each.existing.spec if each.existing else None
        found = known.get(each.backed.id, Secrets())
        env = {**(now.env_vars if now else {}), **found.env}
        missing = [name for name in each.backed.secrets if name not in env]
        token = (found.token or (now.token if now else "")) if each.backed.has_token else ""
        for name in missing:
            omissions.add(each.spec.name, "", f"the value of {name} is not in the backup")
        if each.backed.has_token and not token:
            omissions.add(each.spec.name, "", "its token is not in the backup: anybody may call it")
        values = {name: env[name] for name in each.backed.secrets if name in env}
        spec = with_secrets(msgspec.structs.replace(each.backed, spec=each.spec), values, token)
        agents.append(replace(each, spec=spec))
    return replace(plan, agents=agents)


def _note_missing(backup: Backup, plan: RestorePlan, omissions: Omissions) -> None:
    """Note what was left out of the volumes when they were backed up."""
    sources = {volume.source.source for volume in plan.volumes.values()}
    for omission in backup.contents.omissions:
        if omission.where in sources:
            omissions.add(omission.where, omission.path, f"when it was backed up: {omission.reason}")


def _result(backup: Backup, plan: RestorePlan, restored: dict[str, Agent], omissions: Omissions) -> Json:
    return {
        "id": backup.id,
        "name": backup.manifest.name,
        "agents": [
            {
                "name": restored[each.backed.id].name,
                "id": restored[each.backed.id].id,
                "from": each.backed.spec.name,
                "is_new": each.existing is None,
            }
            for each in plan.agents
        ],
        "volumes": [
            {"source": volume.source.source, "destination": volume.destination, "is_new": volume.is_new}
            for volume in plan.volumes.values()
        ],
        "omitted": omissions.count,
        "omissions": [msgspec.structs.asdict(omission) for omission in omissions.kept],
    }
