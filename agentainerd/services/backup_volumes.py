"""The way to volumes: as folders of this host, where the daemon may read and write everything in them."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar, TypeVarTuple

from agentainerd import offload
from agentainerd.engine.engine import Engine
from agentainerd.errors import NotFound, Unavailable
from agentainerd.model.backups import BackedVolume, Omissions
from agentainerd.services.backup_archive import ArchiveWriter
from agentainerd.services.backup_engine import EngineReader, EngineTarget, Spawn, read_through
from agentainerd.services.backup_folders import FolderReader
from agentainerd.services.backup_places import Item, LiveFile, LiveFolder, NewFolder, VolumePlan, free_bytes, is_free
from agentainerd.services.volumes import VolumePolicy

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class FolderTarget:
    """One volume that is written to directly. `copy`, then `commit`; or `abandon`, at any time. Blocks its greenlet only."""

    def __init__(self, engine: Engine, plan: VolumePlan, mark: str, omissions: Omissions) -> None:
        self._engine = engine
        self._plan = plan
        self._mark = mark
        self._omissions = omissions
        self._place: NewFolder | LiveFolder | LiveFile | None = None
        self._is_made = False

    def copy(self, first: Item, entries: Iterator[Item]) -> Item | None:
        """Write all entries of a volume, beside what is there; return the first entry of the next one.

        Raises:
            Failed, Conflict, Unavailable.
        """
        path = self._plan.destination
        if self._plan.is_named and self._plan.is_new:
            path = self._engine.create_volume(path)
            self._is_made = True
        elif self._plan.is_named:
            path = self._engine.volume_folder(path)
        if self._plan.is_new and not self._plan.is_named:
            self._place = NewFolder(path, self._mark, self._omissions)
        elif offload.run(os.path.isfile, path):
            self._place = LiveFile(path, self._mark, self._omissions)
        else:
            self._place = LiveFolder(path, self._mark, self._omissions)
        return _in_thread(self._copy, first, entries)

    def commit(self) -> None:
        """Put what was written in its place; of a folder that the backup could not read, an empty one. Raises as `copy`."""
        if self._place is not None:
            _in_thread(self._place.commit)
        elif self._plan.is_new and not self._plan.is_named:
            _in_thread(partial(os.makedirs, self._plan.destination, mode=0o755, exist_ok=True))

    def abandon(self) -> None:
        """Remove what was written; of a destination that was new, also what was committed."""
        if self._place is not None:
            offload.run(self._place.abandon)
        if self._is_made:
            self._engine.remove_volume(self._plan.destination)

    def _copy(self, first: Item, entries: Iterator[Item]) -> Item | None:
        assert self._place is not None
        item: Item | None = first
        while item is not None and item[0] == first[0]:
            self._place.receive(item[1], item[2])
            item = next(entries, None)
        return item


class VolumePlaces:
    """Finds, reads and writes volumes. Every method blocks its greenlet only.

    `is_local`: the engine is on this host, so that a daemon which is root can go to its folders itself; else the engine does.
    """

    def __init__(self, engine: Engine, policy: VolumePolicy, spawn: Spawn, *, is_local: bool) -> None:
        self.is_direct = is_local and os.geteuid() == 0
        self.engine = engine
        self._policy = policy
        self._spawn = spawn

    def read(self, archive: ArchiveWriter, number: int, volume: BackedVolume, image: str, *, is_in_use: bool) -> None:
        """Copy a volume into an archive, as number `number`. One that is not there is an omission.

        `image`: one that the engine has. `is_in_use`: somebody may change it meanwhile.
        """
        source = volume.source
        try:
            folder = self._folder(source)
            if folder:
                offload.run(FolderReader(archive, number, source).read, folder)
                return
            read_through(
                self.engine.read_volume(source, image), self._spawn, EngineReader(archive, number, source).read
            )
        except NotFound as error:
            missing = "there is no such volume (yet)" if error.noun == "volume" else error.message
            archive.omissions.add(source, "", missing)
            return
        if is_in_use:
            archive.omissions.add(
                source, "", "was in use while the engine read it: what changed can't be told; use --pause"
            )

    def _folder(self, source: str) -> str:
        """Return where a volume is on this host, "" where only the engine gets there. Raises NotFound: there is none."""
        if not BackedVolume(source).is_named:
            return source if self.is_direct else ""
        folder = self.engine.volume_folder(source)
        return folder if self.is_direct and offload.run(os.path.isdir, folder) else ""

    def has(self, source: str) -> bool:
        """There is such a volume, and it is not an empty folder."""
        if not BackedVolume(source).is_named:
            return not offload.run(is_free, source)
        return self.exists(source)

    def exists(self, source: str) -> bool:
        """There is such a volume, be it empty."""
        if not BackedVolume(source).is_named:
            return offload.run(os.path.lexists, source)
        try:
            self.engine.volume_folder(source)
        except NotFound:
            return False
        return True

    def check(self, destination: str) -> None:
        """Check that agents may have a folder. Raises InvalidParameter (code VOLUME_DENIED)."""
        if not BackedVolume(destination).is_named:
            self._policy.check_place(destination)

    def check_room(self, plans: list[VolumePlan], sizes: dict[int, int]) -> None:
        """Check that what is restored fits; `sizes` are the bytes of each volume.

        Raises:
            Unavailable: it does not (code NO_SPACE).
        """
        needed: dict[int, int] = {}
        for plan in plans:
            if plan.is_named:
                continue  # where it will be is known when it is made
            device, free = offload.run(free_bytes, plan.destination)
            needed[device] = needed.get(device, 0) + sizes.get(plan.number, 0)
            if needed[device] > free:
                raise Unavailable(
                    f"there is no room for {plan.destination}: {needed[device]} bytes are needed, {free} are free",
                    code="NO_SPACE",
                )

    def target(self, plan: VolumePlan, mark: str, omissions: Omissions) -> FolderTarget | EngineTarget:
        """Return what writes to a destination; `mark` makes the names of unfinished things unique."""
        is_direct = self.is_direct
        if is_direct and plan.is_named and not plan.is_new:
            is_direct = bool(self._folder(plan.destination))
        if is_direct and plan.is_named and plan.is_new:
            is_direct = offload.run(os.path.isdir, self.engine.info().root_dir)
        if is_direct:
            return FolderTarget(self.engine, plan, mark, omissions)
        return EngineTarget(self.engine, self._spawn, plan, omissions)


def _in_thread(function: Callable[[*Ts], T], *args: *Ts) -> T:
    try:
        return offload.run(function, *args)
    except OSError as exc:
        why = (exc.strerror or str(exc)).lower()
        where = f" ({exc.filename})" if exc.filename else ""
        raise Unavailable(f"a volume can't be written: {why}{where}", code="VOLUME_NOT_WRITABLE") from exc
