"""Backups as files that leave a host and come to one: whoever they come from, they are believed nothing."""

import logging
from collections.abc import Iterator
from typing import IO, BinaryIO

from agentainerd import clock, offload
from agentainerd.model.backups import Backup, check_manifest
from agentainerd.services.audit import Actor, AuditService
from agentainerd.services.backup_archive import ArchiveReader
from agentainerd.services.backup_jobs import BackupJob
from agentainerd.services.backup_progress import Watch
from agentainerd.services.backup_tar import PIECE_BYTES
from agentainerd.services.backups import BackupService, read_all
from agentainerd.services.views import Json, backup_json
from agentainerd.store.backups import BackupFiles, PartialBackup

log = logging.getLogger(__name__)


class Export:
    """The file of a backup: iterate once, close it in the end."""

    def __init__(self, backup: Backup, file: BinaryIO) -> None:
        self.backup = backup
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        """Return the pieces; blocks its greenlet only."""
        while piece := offload.run(self._file.read, PIECE_BYTES):
            yield piece

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ExchangeService:
    """`export` and `take`; any greenlet may call."""

    def __init__(self, backups: BackupService, files: BackupFiles, audit: AuditService) -> None:
        self._backups = backups
        self._files = files
        self._audit = audit

    def export(self, ref: str, actor: Actor) -> Export:
        """Return a backup's file, to be read piece by piece and closed. Raises as `get`."""
        backup = self._backups.get(ref)
        self._audit.record(actor, "export_backup", f"{backup.id} ({backup.manifest.name})")
        return Export(backup, offload.run(self._files.open, backup.id))

    def take(self, source: IO[bytes], actor: Actor) -> BackupJob:
        """Read a file that `export` gave, here or elsewhere, to its end, and start to check it; the result is the backup.

        Raises:
            TooManyRequests. Unavailable: no space. The job: Failed (code BACKUP_DAMAGED), NotSupported (code BACKUP_TOO_NEW),
            Conflict: it is here already (code BACKUP_EXISTS). Nothing is kept then.
        """
        partial = offload.run(self._files.create, self._files.new_id(clock.now()))
        try:
            self._receive(source, partial)
            return self._backups.jobs.start("backup import", lambda watch: self._take(partial, actor, watch))
        except BaseException:
            offload.run(partial.discard)
            raise

    def _receive(self, source: IO[bytes], partial: PartialBackup) -> None:
        while piece := source.read(PIECE_BYTES):
            offload.run(partial.write, piece)

    def _take(self, partial: PartialBackup, actor: Actor, watch: Watch) -> Json:
        with self._audit.mutation(actor, "import_backup", "") as entry:
            try:
                size = offload.run(partial.size)
                watch.step, watch.total = "checking", size
                offload.run(partial.file.seek, 0)
                reader = offload.run(ArchiveReader, partial.file, watch)
                check_manifest(reader.manifest)
                entry.target = f"{reader.manifest.id} ({reader.manifest.name})"
                offload.run(read_all, reader)
                assert reader.contents is not None  # it ends with it, or raises
                backup = Backup(manifest=reader.manifest, contents=reader.contents, size=size)
                offload.run(partial.seal, backup)
            finally:
                watch.cancelled = True
                offload.run(partial.discard)
        log.info("backup imported", extra={"backup_id": backup.id, "size": size})
        return backup_json(backup)
