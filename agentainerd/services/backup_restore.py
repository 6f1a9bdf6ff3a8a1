"""Restoring: the whole archive is checked and a plan is made before anything is changed; what fails is undone."""

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import BinaryIO

import msgspec

from agentainerd import offload
from agentainerd.errors import AgentainerError
from agentainerd.model.agents import Agent, AgentSpec
from agentainerd.model.backups import Backup, Omissions, with_secrets
from agentainerd.services.agents import AgentService
from agentainerd.services.audit import Actor, AuditService
from agentainerd.services.backup_archive import ArchiveReader, Watch
from agentainerd.services.backup_jobs import BackupJob
from agentainerd.services.backup_plans import AgentPlan, Planner, RestoreOptions, RestorePlan, check_down
from agentainerd.services.backup_volumes import FolderTarget, Item, VolumePlaces
from agentainerd.services.backups import BackupService
from agentainerd.services.fleet import Fleet
from agentainerd.services.updates import UpdateService
from agentainerd.services.views import Json

log = logging.getLogger(__name__)


class RestoreService:
    """`restore`; see the module."""

    def __init__(
        self,
        backups: BackupService,
        planner: Planner,
        places: VolumePlaces,
        fleet: Fleet,
        *,
        agents: AgentService,
        updates: UpdateService,
        audit: AuditService,
    ) -> None:
        self._backups = backups
        self._planner = planner
        self._places = places
        self._fleet = fleet
        self._agents = agents
        self._updates = updates
        self._audit = audit

    def restore(self, ref: str, options: RestoreOptions, actor: Actor) -> BackupJob:
        """Start to restore agents and volumes; what is restored is not started.

        The job's result: `agents` (name, id, and what they were called), `volumes` (source, destination), `omitted` and
        `omissions`: what is not there as it was.

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
            sizes = offload.run(_check, file, watch)
            plan = self._planner.plan(backup.manifest, options, mark)
            self._places.check_room(list(plan.volumes.values()), sizes)
            omissions = Omissions()
            with self._held(plan):
                targets = {number: self._places.target(each, mark, omissions) for number, each in plan.volumes.items()}
                restored = self._write(file, plan, targets, actor, watch)
                restored |= self._update(plan, actor, omissions)
        _note_missing(backup, plan, omissions)
        log.info("backup restored", extra={"backup_id": backup.id, "agents": len(restored), "omitted": omissions.count})
        return _result(backup, plan, restored, omissions)

    @contextmanager
    def _held(self, plan: RestorePlan) -> Iterator[None]:
        """Keep everybody from starting what is overwritten."""
        with ExitStack() as held:
            for agent in sorted(self._planner.users(plan), key=lambda agent: agent.id):
                check_down(held.enter_context(self._fleet.locked(agent.id)))
            yield

    def _write(
        self, file: BinaryIO, plan: RestorePlan, targets: dict[int, FolderTarget], actor: Actor, watch: Watch
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
                    updated[each.backed.id] = self._updates.update(each.existing.id, _kept(each), actor, wait_s=0)
                except AgentainerError as error:
                    omissions.add(each.existing.name, "", f"its settings are not restored: {error.message}")
        return updated

    def _copy(self, file: BinaryIO, plan: RestorePlan, targets: dict[int, FolderTarget], watch: Watch) -> None:
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

    def _undo(self, targets: dict[int, FolderTarget], deployed: dict[str, Agent], actor: Actor) -> None:
        steps: list[Callable[[], object]] = [
            partial(self._agents.remove, agent.id, actor) for agent in deployed.values()
        ]
        for step in (*steps, *(target.abandon for target in targets.values())):
            try:
                step()
            except (AgentainerError, OSError) as error:
                log.error("something is left of a restore that failed: %s", error)


def _check(file: BinaryIO, watch: Watch) -> dict[int, int]:
    """Read all of it; return the bytes of each volume."""
    sizes: dict[int, int] = {}
    for number, entry, _ in ArchiveReader(file, watch).entries():
        sizes[number] = sizes.get(number, 0) + entry.data_bytes
    return sizes


def _skip(number: int, entries: Iterator[Item]) -> Item | None:
    return next((item for item in entries if item[0] != number), None)


def _kept(plan: AgentPlan) -> AgentSpec:
    """Return the spec of an agent that is there, with the secrets that it has now."""
    assert plan.existing is not None
    now = plan.existing.spec
    env = {name: now.env_vars[name] for name in plan.backed.secrets if name in now.env_vars}
    backed = msgspec.structs.replace(plan.backed, spec=plan.spec)
    return with_secrets(backed, env, now.token if plan.backed.has_token else "")


def _note_missing(backup: Backup, plan: RestorePlan, omissions: Omissions) -> None:
    """Note what the backup does not have: secrets, and what was left out of the volumes that were restored."""
    for each in plan.agents:
        has = each.existing.spec.env_vars if each.existing else {}
        for name in each.backed.secrets:
            if name not in has:
                omissions.add(each.spec.name, "", f"the value of {name} is not in the backup")
        if each.backed.has_token and not (each.existing and each.existing.spec.token):
            omissions.add(each.spec.name, "", "its token is not in the backup: anybody may call it")
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
