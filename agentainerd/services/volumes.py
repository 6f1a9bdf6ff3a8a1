"""Which folders of the host an agent may mount: what can only be said by looking at the file system.

Looked at when an agent is deployed, and again each time that its container is made, because links may have changed.
"""

import os
import stat
from collections.abc import Sequence

import msgspec

from agentainerd.errors import InvalidParameter
from agentainerd.model.agents import Volume, is_denied_source

_CLOSED_KINDS = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class VolumePolicy:
    """Resolves mounts, or refuses them.

    `own`: the daemon's folders and sockets, closed to agents, and so are the folders that hold them. `roots`: where mounts
    must lie; empty: anywhere else. It may be replaced at any time (SIGHUP).
    """

    def __init__(self, own: Sequence[str], roots: Sequence[str]) -> None:
        self._own = tuple(os.path.realpath(path) for path in own)
        self.roots = tuple(roots)

    def resolve(self, volumes: Sequence[Volume]) -> tuple[Volume, ...]:
        """Return the mounts with every link of the host's paths followed; named volumes as they are.

        Raises:
            InvalidParameter: code VOLUME_SOURCE_MISSING or VOLUME_DENIED, with the path and what is wrong with it.
        """
        return tuple(volume if volume.is_named else self._resolve(volume) for volume in volumes)

    def check_place(self, path: str) -> None:
        """Check that a folder, which need not be there yet, could be mounted. Raises InvalidParameter: code VOLUME_DENIED."""
        self._check(os.path.realpath(path), repr(path))

    def _resolve(self, volume: Volume) -> Volume:
        path = os.path.realpath(volume.host_path)
        shown = repr(volume.host_path) if path == volume.host_path else f"{volume.host_path!r} (which is {path!r})"
        self._check(path, shown)
        try:
            kind = stat.S_IFMT(os.stat(path).st_mode)
        except OSError as exc:
            raise InvalidParameter(
                "volumes", f"{shown}: {(exc.strerror or '').lower()}", code="VOLUME_SOURCE_MISSING"
            ) from exc
        if kind in _CLOSED_KINDS:
            raise _denied(f"{shown} is {_CLOSED_KINDS[kind]}, which may not be mounted into an agent")
        return msgspec.structs.replace(volume, host_path=path)

    def _check(self, path: str, shown: str) -> None:
        if is_denied_source(path) or any(_overlap(path, own) for own in self._own):
            raise _denied(f"{shown} may not be mounted into an agent")
        roots = tuple(os.path.realpath(root) for root in self.roots)
        if roots and not any(_is_under(path, root) for root in roots):
            raise _denied(f"{shown} is in none of the allowed folders ({', '.join(self.roots)})")


def _denied(reason: str) -> InvalidParameter:
    return InvalidParameter("volumes", reason, code="VOLUME_DENIED")


def _overlap(one: str, other: str) -> bool:
    return _is_under(one, other) or _is_under(other, one)


def _is_under(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
