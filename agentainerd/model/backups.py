"""Backups: what one archive holds, what is said of it, and the rules for names in it. No I/O.

An archive is one file: a manifest (`Manifest`), what is in the volumes (`Entry`), and at its end what came of it
(`Contents`). docs/backups.md has the format.
"""

import re
from enum import StrEnum

import msgspec

from agentainerd.errors import AgentainerError, Failed, InvalidParameter
from agentainerd.model.agents import AGENT_ID, AgentSpec, Volume, validate

FORMAT = 1
BACKUP_ID = re.compile(r"backup-[0-9]{10}-[0-9a-f]{6}")
MAX_COMPONENT_BYTES = 255
MAX_DEPTH = 64  # folders in folders
MAX_ENTRIES = 20_000_000
MAX_FILE_BYTES = 2**44  # what ext4 can hold
MAX_OMISSIONS = 1000  # told one by one; further ones are counted
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9._-])?")
_MAX_DESCRIPTION_CHARS = 1024


class EntryKind(StrEnum):
    """What a backup keeps of a volume; everything else is left out and said."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One name in a volume.

    `path` is relative to the volume, "" for its root; bytes that are not UTF-8 are surrogates, as os.fsdecode makes them.
    `mode`: permissions, without set-uid and set-gid. `mtime_ns`: epoch nanoseconds. `size`: bytes of a file, holes included.
    `target`: of a symlink its text, of a hard link the path of a file that came before. `extents`: (offset, length) of the
    data of a file with holes, ascending; None: it has none. `is_linked`: hard links to this file follow.
    """

    path: str
    kind: EntryKind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    target: str = ""
    extents: tuple[tuple[int, int], ...] | None = None
    is_linked: bool = False

    @property
    def data_bytes(self) -> int:
        """How much of a file is stored."""
        if self.kind is not EntryKind.FILE:
            return 0
        return self.size if self.extents is None else sum(length for _, length in self.extents)


class Omission(msgspec.Struct, frozen=True):
    """Something that is not in a backup, or was not restored, as it was; `where` is a volume or an agent."""

    where: str
    path: str
    reason: str


class BackedVolume(msgspec.Struct, frozen=True):
    """A volume in a backup: `source` is the host's folder or the engine's volume that it was copied from."""

    source: str
    is_file: bool = False

    @property
    def is_named(self) -> bool:
        """The source was a volume of the engine."""
        return Volume(self.source, "/").is_named


class BackedAgent(msgspec.Struct, frozen=True):
    """An agent in a backup: its spec without any secret; `secrets` names the variables that are missing in it, `has_token`
    says that its token is. `state` is what it was at that moment.
    """

    id: str
    spec: AgentSpec
    image_id: str = ""
    state: str = ""
    secrets: tuple[str, ...] = ()
    has_token: bool = False

    @property
    def has_secrets(self) -> bool:
        """Something of it is not in the spec."""
        return self.has_token or bool(self.secrets)


class Sealed(msgspec.Struct, frozen=True):
    """Secrets, encrypted (services/backup_secrets.py): `salt` and `data` are base64, the rest are scrypt's parameters."""

    salt: str
    n: int
    r: int
    p: int
    data: str


class Secrets(msgspec.Struct, frozen=True):
    """What is taken out of an agent's spec: values of variables by name, and its token."""

    env: dict[str, str] = {}
    token: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The head of an archive: what is in it, by whom and when it was made (epoch seconds).

    `sealed`: the secrets, encrypted; None: they were left out. `volumes` are numbered by their place.
    """

    format: int
    id: str
    name: str
    created_at: float
    version: str
    host: str
    description: str = ""
    agents: tuple[BackedAgent, ...] = ()
    volumes: tuple[BackedVolume, ...] = ()
    sealed: Sealed | None = None
    has_requests: bool = False
    was_paused: bool = False


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """The end of an archive: `sha256` of every byte of the tar before it, its `signature` where there is a passphrase, and what
    these hold.

    `data_bytes` are those of files, without holes. `omitted` counts all omissions; `omissions` has the first ones.
    """

    sha256: str
    signature: str = ""
    entries: int = 0
    files: int = 0
    data_bytes: int = 0
    requests: int = 0
    omitted: int = 0
    omissions: tuple[Omission, ...] = ()


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """A backup as the daemon keeps it: `size` is that of its file."""

    manifest: Manifest
    contents: Contents
    size: int

    @property
    def id(self) -> str:
        """The generated id."""
        return self.manifest.id


class Omissions:
    """Collects omissions: all are counted, the first are kept."""

    def __init__(self) -> None:
        self.count = 0
        self.kept: list[Omission] = []

    def add(self, where: str, path: str, reason: str) -> None:
        """Note one."""
        self.count += 1
        if len(self.kept) < MAX_OMISSIONS:
            self.kept.append(Omission(where, _shown(path), reason))


def check_name(name: str) -> None:
    """Check what a person calls a backup.

    Raises:
        InvalidParameter: it is empty, too long, has other signs, or has the form of an id.
    """
    if not _NAME.fullmatch(name):
        raise InvalidParameter(
            "name", f"{name[:64]!r} is not a backup's name", hint="1 to 64 letters, digits, spaces, '.', '_' and '-'"
        )
    if BACKUP_ID.fullmatch(name):
        raise InvalidParameter("name", f"{name!r} has the form of an id")


def check_description(text: str) -> None:
    """Check a description. Raises InvalidParameter: too long, or control characters."""
    if len(text) > _MAX_DESCRIPTION_CHARS or not text.isprintable():
        raise InvalidParameter("description", f"must be at most {_MAX_DESCRIPTION_CHARS} printable characters")


def without_secrets(spec: AgentSpec) -> tuple[AgentSpec, dict[str, str]]:
    """Return the spec as a backup may have it, and the variables that it has not, with their values."""
    hidden = {name: value for name, value in spec.env_vars.items() if spec.is_secret(name)}
    shown = {name: value for name, value in spec.env_vars.items() if name not in hidden}
    return msgspec.structs.replace(spec, env_vars=shown, secrets=(), token=""), hidden


def with_secrets(agent: BackedAgent, env: dict[str, str], token: str) -> AgentSpec:
    """Return the spec of an agent with what `without_secrets` took out of it."""
    named = tuple(name for name in agent.secrets if name in env)
    return msgspec.structs.replace(agent.spec, env_vars={**agent.spec.env_vars, **env}, secrets=named, token=token)


def check_manifest(manifest: Manifest) -> None:
    """Check what a stranger says of a backup, before it is shown or used. Raises Failed (code BACKUP_DAMAGED)."""
    try:
        check_name(manifest.name)
        check_description(manifest.description)
        for agent in manifest.agents:
            validate(agent.spec)
    except AgentainerError as error:
        raise damaged(error.message) from error
    if not BACKUP_ID.fullmatch(manifest.id):
        raise damaged("its id is none")
    if not 0 <= manifest.created_at < 2**33 or not all(map(_is_word, (manifest.version, manifest.host))):
        raise damaged("its manifest says what can't be")
    if not all(AGENT_ID.fullmatch(agent.id) for agent in manifest.agents):
        raise damaged("the id of an agent is none")


def check_component(name: str) -> None:
    """Check one component of a path in an archive.

    Raises:
        Failed: code BACKUP_DAMAGED; no file of a volume can be called so.
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise damaged(f"{name!r} is not a name in a folder")
    if len(name.encode("utf-8", "surrogateescape")) > MAX_COMPONENT_BYTES:
        raise damaged(f"a name is longer than {MAX_COMPONENT_BYTES} bytes")


def damaged(reason: str) -> Failed:
    """Return the error that says that a file is not a backup, or not any more."""
    return Failed(f"the backup is damaged, or none of agentainerd's: {reason}", code="BACKUP_DAMAGED")


def _is_word(text: str) -> bool:
    return len(text) <= 255 and text.isprintable()


def _shown(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") or "."
