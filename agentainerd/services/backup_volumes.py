"""Where volumes are, and the way to them: as folders of this host where the daemon may read and write everything in them."""

import os

from agentainerd import offload
from agentainerd.engine.engine import Engine
from agentainerd.errors import NotFound
from agentainerd.model.backups import BackedVolume
from agentainerd.services.backup_archive import ArchiveWriter
from agentainerd.services.backup_folders import FolderReader


class VolumePlaces:
    """`is_local`: the engine is on this host, so its folders are ours to look at."""

    def __init__(self, engine: Engine, *, is_local: bool) -> None:
        self._engine = engine
        self._is_direct = is_local and os.geteuid() == 0

    def read(self, archive: ArchiveWriter, number: int, volume: BackedVolume) -> None:
        """Copy a volume into an archive, as number `number`; blocks its greenlet. One that is not there is an omission."""
        try:
            folder = self.folder(volume)
        except NotFound:
            archive.omissions.add(volume.source, "", "there is no such volume (yet)")
            return
        offload.run(FolderReader(archive, number, volume.source).read, folder)

    def folder(self, volume: BackedVolume) -> str:
        """Return where a volume is on this host. Raises NotFound: the engine has no volume of this name."""
        return self._engine.volume_folder(volume.source) if volume.is_named else volume.source
