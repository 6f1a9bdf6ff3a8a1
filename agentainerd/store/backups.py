"""Backups on disk, `<state>/backups`: each an archive, `<id>.tar.gz`, and what is said of it, `<id>.json` (0600).

An archive is written as `<id>.partial`, synced and then named, so one that has its name is whole. Everything blocks: for
offload.run.
"""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from agentainerd import defaults
from agentainerd.errors import Conflict, NotFound, Unavailable
from agentainerd.model.backups import BACKUP_ID, Backup
from agentainerd.store.disk import sync_folder

BACKUP_FOLDER = "backups"  # in the state folder
_ARCHIVE, _PARTIAL, _SUMMARY = ".tar.gz", ".partial", ".json"
_ROOM_BYTES = 64 * 1024 * 1024  # the disk is asked that often
_PAUSED = "paused"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_read = msgspec.json.Decoder(Backup).decode


class BackupFiles:
    """The folder; made when it is first written to. Only what has an id's form is ever touched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def new_id(self, now: float) -> str:
        """Return an id that no backup has."""
        return f"backup-{int(now):010d}-{secrets.token_hex(3)}"

    def create(self, backup_id: str) -> "PartialBackup":
        """Start a new archive.

        Raises:
            Unavailable: no space (code NO_SPACE), or the folder can't be written (code BACKUP_FOLDER).
        """
        with self.disk_errors():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return PartialBackup(self, self._path(backup_id, _PARTIAL))

    def open(self, backup_id: str) -> BinaryIO:
        """Open an archive for reading. Raises NotFound."""
        try:
            return os.fdopen(os.open(self._path(backup_id, _ARCHIVE), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb")
        except FileNotFoundError as exc:
            raise missing(backup_id) from exc

    def all(self) -> list[Backup]:
        """Return what is said of each backup, newest first. An archive without that is not listed; see `unknown`."""
        found = []
        for backup_id in self._ids(_SUMMARY):
            with suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
                backup = _read(self._path(backup_id, _SUMMARY).read_bytes())
                if self._path(backup_id, _ARCHIVE).exists():
                    found.append(backup)
        return sorted(found, key=lambda backup: (backup.manifest.created_at, backup.id), reverse=True)

    def unknown(self) -> list[str]:
        """Return the ids of archives of which nothing is said, or nothing that can be read."""
        known = {backup.id for backup in self.all()}
        return [backup_id for backup_id in self._ids(_ARCHIVE) if backup_id not in known]

    def note(self, backup: Backup) -> None:
        """Say what is in an archive that is there."""
        with self.disk_errors():
            self._note(backup)

    def link(self, path: Path, backup_id: str) -> None:
        """Give a file its final name. Raises FileExistsError: another one has it."""
        os.link(path, self._path(backup_id, _ARCHIVE))

    def has(self, backup_id: str) -> bool:
        """There is an archive of this id."""
        return self._path(backup_id, _ARCHIVE).exists()

    def remove(self, backup_id: str) -> None:
        """Remove a backup; once more is fine."""
        with self.disk_errors():
            for suffix in (_ARCHIVE, _SUMMARY):
                self._path(backup_id, suffix).unlink(missing_ok=True)
            sync_folder(self.folder)

    def tidy(self) -> int:
        """Remove what a daemon that died has left half written; return how many."""
        left = self._ids(_PARTIAL)
        for backup_id in left:
            self._path(backup_id, _PARTIAL).unlink(missing_ok=True)
        return len(left)

    def note_paused(self, agent_ids: list[str]) -> None:
        """Keep the ids of agents that stand still for a backup. Raises Unavailable."""
        with self.disk_errors():
            if not agent_ids:
                (self.folder / _PAUSED).unlink(missing_ok=True)
                return
            temporary = self.folder / f"{_PAUSED}.tmp"
            temporary.write_bytes(msgspec.json.encode(agent_ids))
            temporary.rename(self.folder / _PAUSED)

    def paused(self) -> list[str]:
        """Return the ids that `note_paused` was given last."""
        with suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
            return msgspec.json.decode((self.folder / _PAUSED).read_bytes(), type=list[str])
        return []

    def check_room(self) -> None:
        """Check that some more bytes leave what the journal needs. Raises Unavailable (code NO_SPACE)."""
        found = os.statvfs(self.folder)
        if found.f_bavail * found.f_frsize < _ROOM_BYTES + defaults.MIN_FREE_DISK_BYTES:
            with self.disk_errors():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _note(self, backup: Backup) -> None:
        temporary = self._path(backup.id, _SUMMARY + ".tmp")
        with open(temporary, "wb") as file:
            os.chmod(file.fileno(), 0o600)
            file.write(msgspec.json.encode(backup))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._path(backup.id, _SUMMARY))
        sync_folder(self.folder)

    def _ids(self, suffix: str) -> list[str]:
        with suppress(FileNotFoundError):
            names = [name.removesuffix(suffix) for name in os.listdir(self.folder) if name.endswith(suffix)]
            return [name for name in names if BACKUP_ID.fullmatch(name)]
        return []

    def _path(self, backup_id: str, suffix: str) -> Path:
        if not BACKUP_ID.fullmatch(backup_id):
            raise missing(backup_id)
        return self.folder / f"{backup_id}{suffix}"

    @contextmanager
    def disk_errors(self) -> Iterator[None]:
        """Turn what the disk says into Unavailable."""
        try:
            yield
        except FileExistsError:
            raise
        except OSError as exc:
            full = exc.errno in _FULL
            raise Unavailable(
                f"the backup can't be kept in {self.folder}: {(exc.strerror or str(exc)).lower()}",
                code="NO_SPACE" if full else "BACKUP_FOLDER",
                hint="free space there, or delete a backup: agentainerctl backup list" if full else None,
            ) from exc


class PartialBackup:
    """An archive that is being written: `file` is open for writing and reading, until `seal` or `discard`."""

    def __init__(self, files: BackupFiles, path: Path) -> None:
        self._files = files
        self._path = path
        self._unchecked = 0
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self.file: BinaryIO = os.fdopen(descriptor, "w+b")

    def size(self) -> int:
        """Return how many bytes it has."""
        self.file.flush()
        return os.fstat(self.file.fileno()).st_size

    def write(self, piece: bytes) -> None:
        """Append, as long as that leaves room on the disk for others. Raises Unavailable."""
        if self._unchecked <= 0:
            self._files.check_room()
            self._unchecked = _ROOM_BYTES
        self._unchecked -= len(piece)
        with self._files.disk_errors():
            self.file.write(piece)

    def seal(self, backup: Backup) -> None:
        """Make it durable under the id that it says, with what is said of it.

        Raises:
            Conflict: there is one of this id (code BACKUP_EXISTS). Unavailable: the disk.
        """
        try:
            with self._files.disk_errors():
                self.file.flush()
                os.fsync(self.file.fileno())
                self._files.link(self._path, backup.id)
        except FileExistsError as exc:
            raise Conflict(
                f"the backup {backup.id} is here already",
                code="BACKUP_EXISTS",
                hint=f"agentainerctl backup show {backup.id}",
            ) from exc
        self._files.note(backup)

    def discard(self) -> None:
        """Close it and remove the unfinished name; a sealed one stays under its own."""
        with suppress(OSError):  # what could not be written to a full disk is not wanted any more
            self.file.close()
        self._path.unlink(missing_ok=True)


def missing(ref: str) -> NotFound:
    """Return the error that says that there is no such backup."""
    return NotFound("backup", ref[:64], hint="agentainerctl backup list")
