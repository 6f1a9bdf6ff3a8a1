"""Backups: make, list, look at, check, delete. Restoring is in backup_restore.py, the archive's format in backup_archive.py."""

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

import msgspec

from agentainerd import clock, offload
from agentainerd.errors import AgentainerError, Conflict, InvalidParameter, NotFound
from agentainerd.model.agents import Agent
from agentainerd.model.backups import (
    FORMAT,
    BackedAgent,
    BackedVolume,
    Backup,
    Manifest,
    Secrets,
    check_description,
    check_name,
    without_secrets,
)
from agentainerd.model.replicas import AgentState
from agentainerd.services.agents import AgentService
from agentainerd.services.audit import DAEMON, Actor, AuditService
from agentainerd.services.backup_archive import ArchiveReader, ArchiveWriter
from agentainerd.services.backup_jobs import BackupJob, BackupJobs
from agentainerd.services.backup_progress import Watch
from agentainerd.services.backup_requests import RequestCopies
from agentainerd.services.backup_secrets import BackupKey, check_passphrase, seal
from agentainerd.services.backup_volumes import VolumePlaces
from agentainerd.services.fleet import Fleet
from agentainerd.services.views import Json, backup_json
from agentainerd.store.backups import BackupFiles, missing
from agentainerd.version import VERSION

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """What a new backup has. `agents`: ids or names; empty: all. `pause`: running ones stand still while they are copied.

    `passphrase`: what secrets are encrypted with; "": they are left out. `requests`: pending ones too, which needs it.
    """

    name: str
    description: str = ""
    agents: Sequence[str] = field(default=())
    pause: bool = False
    passphrase: str = ""
    requests: bool = False


class BackupService:
    """Every method may be called from any greenlet; `ref` is a backup's id, or its name where only one has it."""

    def __init__(
        self,
        files: BackupFiles,
        places: VolumePlaces,
        fleet: Fleet,
        agents: AgentService,
        requests: RequestCopies,
        *,
        audit: AuditService,
        spawn: Callable[..., object],
    ) -> None:
        self.jobs = BackupJobs(spawn)
        self._files = files
        self._places = places
        self._fleet = fleet
        self._agents = agents
        self._requests = requests
        self._paused: set[str] = set()
        self._audit = audit

    # Reads

    def all(self) -> list[Backup]:
        """Return all backups, newest first."""
        return offload.run(self._files.all)

    def get(self, ref: str) -> Backup:
        """Return one.

        Raises:
            NotFound: there is none. Conflict: several have this name (code BACKUP_AMBIGUOUS).
        """
        found = [backup for backup in self.all() if ref in (backup.id, backup.manifest.name)]
        if not found:
            raise missing(ref)
        if len(found) > 1:
            ids = ", ".join(backup.id for backup in found[:5])
            raise Conflict(
                f"{len(found)} backups are called '{ref}': {ids}", code="BACKUP_AMBIGUOUS", hint="say which, by its id"
            )
        return found[0]

    @contextmanager
    def reading(self, backup_id: str) -> Iterator[BinaryIO]:
        """Give the open file of a backup. Raises NotFound."""
        with offload.run(self._files.open, backup_id) as file:
            yield file

    # Verbs

    def create(self, options: BackupOptions, actor: Actor) -> BackupJob:
        """Start to make a backup; the job's result is as `backup_json` has it.

        Raises:
            InvalidParameter: name or description. NotFound: an agent. TooManyRequests. The job: Unavailable (no space).
        """
        check_name(options.name)
        check_description(options.description)
        if options.passphrase:
            check_passphrase(options.passphrase)
        elif options.requests:
            raise InvalidParameter(
                "passphrase", "is needed: requests hold credentials, which are never stored in clear"
            )
        agents = self._selected(options.agents)
        return self.jobs.start("backup", lambda watch: self._create(options, agents, actor, watch))

    def verify(self, ref: str) -> BackupJob:
        """Start to read a whole backup and compare it with its checksum.

        Raises:
            NotFound, Conflict: as `get`. TooManyRequests. The job: Failed (code BACKUP_DAMAGED).
        """
        backup = self.get(ref)
        return self.jobs.start("backup check", lambda watch: backup_json(self._check(backup, watch)))

    def delete(self, ref: str, actor: Actor) -> Backup:
        """Delete a backup; one that is being read is gone when that has ended. Raises as `get`."""
        with self._audit.mutation(actor, "delete_backup", ref) as entry:
            backup = self.get(ref)
            entry.target = f"{backup.id} ({backup.manifest.name})"
            offload.run(self._files.remove, backup.id)
        log.info("backup deleted", extra={"backup_id": backup.id})
        return backup

    def recover(self) -> None:
        """Tidy up what a daemon that died has left half done; blocks its greenlet. For the start of the daemon."""
        offload.run(self._recover)
        try:
            self._places.engine.tidy_volumes()
        except AgentainerError as error:
            log.warning("containers of a backup that broke off may be left: %s", error)
        self._paused = set(offload.run(self._files.paused))
        for agent_id in sorted(self._paused):
            self._go_on(agent_id)

    def _recover(self) -> None:
        self._files.tidy()
        for backup_id in self._files.unknown():
            try:
                self._learn(backup_id)
            except (AgentainerError, OSError) as error:
                log.warning("a backup can't be read: %s", error, extra={"backup_id": backup_id})

    # Inside

    def _selected(self, refs: Sequence[str]) -> list[Agent]:
        if not refs:
            return [agent for agent in self._fleet.store.all() if not agent.is_ephemeral]
        found = {agent.id: agent for agent in (self._fleet.find(ref) for ref in refs)}
        return list(found.values())

    def _create(self, options: BackupOptions, agents: list[Agent], actor: Actor, watch: Watch) -> Json:
        with self._audit.mutation(actor, "create_backup", options.name) as entry:
            now = clock.now()
            manifest, key = self._sealed(self._manifest(self._files.new_id(now), options, agents, now), options, agents)
            entry.target = f"{manifest.id} ({manifest.name})"
            partial = offload.run(self._files.create, manifest.id)
            try:
                archive = offload.run(ArchiveWriter, partial.write, manifest, watch)
                with self._standing_still(agents if options.pause else [], actor, watch):
                    if options.requests and key:
                        self._add_requests(archive, agents, key)
                    for number, volume in enumerate(manifest.volumes):
                        watch.step = volume.source
                        self._read(archive, number, volume, agents, is_paused=options.pause)
                watch.step = "writing"
                contents = offload.run(archive.finish, key.sign if key else _unsigned)
                backup = Backup(manifest=manifest, contents=contents, size=offload.run(partial.size))
                offload.run(partial.seal, backup)
            finally:
                watch.cancelled = True
                offload.run(partial.discard)
        log.info("backup made", extra={"backup_id": backup.id, "size": backup.size, "omitted": contents.omitted})
        return backup_json(backup)

    def _read(
        self, archive: ArchiveWriter, number: int, volume: BackedVolume, agents: list[Agent], *, is_paused: bool
    ) -> None:
        users = [agent for agent in agents if volume.source in [each.host_path for each in agent.spec.volumes]]
        image = users[0].image_id or users[0].spec.image
        is_in_use = not is_paused and any(agent.state is AgentState.RUNNING for agent in users)
        self._places.read(archive, number, volume, image, is_in_use=is_in_use)

    def _manifest(self, backup_id: str, options: BackupOptions, agents: list[Agent], now: float) -> Manifest:
        sources = dict.fromkeys(volume.host_path for agent in agents for volume in agent.spec.volumes)
        return Manifest(
            format=FORMAT,
            id=backup_id,
            name=options.name,
            description=options.description,
            created_at=now,
            version=VERSION,
            host=socket.gethostname(),
            agents=tuple(_backed(agent) for agent in agents),
            volumes=tuple(BackedVolume(source) for source in sources),
            was_paused=options.pause,
            has_requests=options.requests,
        )

    def _sealed(
        self, manifest: Manifest, options: BackupOptions, agents: list[Agent]
    ) -> tuple[Manifest, BackupKey | None]:
        if not options.passphrase:
            return manifest, None
        hidden = {agent.id: Secrets(without_secrets(agent.spec)[1], agent.spec.token) for agent in agents}
        sealed, key = offload.run(seal, options.passphrase, manifest.id, msgspec.json.encode(hidden))
        return msgspec.structs.replace(manifest, sealed=sealed), key

    def _add_requests(self, archive: ArchiveWriter, agents: list[Agent], key: BackupKey) -> None:
        for agent in agents:
            archive.watch.step = f"requests of {agent.name}"
            for data in self._requests.read(agent):
                offload.run(_add_request, archive, key, data)

    @contextmanager
    def _standing_still(self, agents: list[Agent], actor: Actor, watch: Watch) -> Iterator[None]:
        """Pause those that run, and let them go on at the end, however it ends."""
        paused: list[str] = []
        try:
            for agent in agents:
                if agent.state is AgentState.RUNNING and agent.spec.volumes:
                    watch.step = f"pausing {agent.name}"
                    watch.did(0)
                    paused.append(agent.id)
                    self._note_paused(self._paused | {agent.id})
                    self._agents.pause(agent.id, actor)
            yield
        finally:
            for agent_id in paused:
                self._go_on(agent_id)

    def _go_on(self, agent_id: str) -> None:
        try:
            self._agents.resume(agent_id, DAEMON)
        except (NotFound, Conflict):
            log.debug("an agent that was paused for a backup is gone, or runs again", extra={"agent_id": agent_id})
        except AgentainerError as error:
            log.error("an agent that was paused for a backup is still so: %s", error, extra={"agent_id": agent_id})
            return  # it is noted, and the next start of the daemon tries again
        self._note_paused(self._paused - {agent_id})

    def _note_paused(self, agent_ids: set[str]) -> None:
        """Keep in mind, beyond a crash, who has to go on after a backup."""
        self._paused = agent_ids
        offload.run(self._files.note_paused, sorted(agent_ids))

    def _check(self, backup: Backup, watch: Watch) -> Backup:
        watch.step, watch.total = "checking", backup.size
        with self.reading(backup.id) as file:
            reader = offload.run(ArchiveReader, file, watch)
            offload.run(read_all, reader)
        assert reader.contents is not None  # it ends with it, or raises
        return Backup(manifest=reader.manifest, contents=reader.contents, size=backup.size)

    def _learn(self, backup_id: str) -> None:
        with self._files.open(backup_id) as file:
            reader = ArchiveReader(file, Watch())
            read_all(reader)
            assert reader.contents is not None
            size = file.seek(0, 2)
        self._files.note(Backup(manifest=reader.manifest, contents=reader.contents, size=size))


def _unsigned(digest: str) -> str:
    return ""


def _add_request(archive: ArchiveWriter, key: BackupKey, data: bytes) -> None:
    archive.add_request(key.seal(data, f"request {archive.requests}"))


def read_all(reader: ArchiveReader) -> None:
    """Check all of an archive. Blocks: for offload.run. Raises as `ArchiveReader` does."""
    for _ in reader.entries():
        pass


def _backed(agent: Agent) -> BackedAgent:
    spec, hidden = without_secrets(agent.spec)
    return BackedAgent(
        id=agent.id,
        spec=spec,
        image_id=agent.image_id,
        state=agent.state.value,
        secrets=tuple(hidden),
        has_token=bool(agent.spec.token),
    )
