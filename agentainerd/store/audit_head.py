"""What stands beside the audit log: the key of its seals, and its last link, so that entries cut off at the end are missed."""

import hashlib
import hmac
import os
import secrets

from agentainerd.model.audit import Link
from agentainerd.store.private_files import read_private, write_private

KEY_FILE = "audit.key"
HEAD_FILE = "audit.head"
KEY_BYTES = 32


class ChainHead:
    """Both files of `folder`, 0600. `key` is there after `open`. Every method blocks the thread, and raises OSError."""

    def __init__(self, folder: str) -> None:
        self.key = b""
        self._key_path = os.path.join(folder, KEY_FILE)
        self._path = os.path.join(folder, HEAD_FILE)

    @property
    def is_there(self) -> bool:
        """A chain was begun in this folder."""
        return os.path.lexists(self._path)

    def open(self) -> bool:
        """Read the key, or make one; return whether that of a chain that was begun is gone."""
        if self.key:
            return False
        key = read_private(self._key_path) or b""
        is_new = len(key) != KEY_BYTES
        if is_new:
            key = secrets.token_bytes(KEY_BYTES)
            write_private(self._key_path, key)
        self.key = key
        return is_new and self.is_there

    def read(self) -> Link | None:
        """Return the last link that was written down; None where there is none that was signed with the key."""
        text = (read_private(self._path) or b"").decode("ascii", "replace").split()
        if len(text) != 3 or not hmac.compare_digest(text[2].encode(), self._sign(text[0], text[1]).encode()):
            return None
        return Link(int(text[0]), text[1])

    def write(self, link: Link) -> None:
        """Write a link down. Not synced each time: after a loss of power it may be an older one, never one too new."""
        seq = f"{link.seq:012d}"
        content = f"{seq} {link.mac} {self._sign(seq, link.mac)}\n".encode()
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            write_private(self._path, content)
            return
        try:
            os.pwrite(descriptor, content, 0)
        finally:
            os.close(descriptor)

    def _sign(self, seq: str, mac: str) -> str:
        return hmac.new(self.key, f"head {seq} {mac}".encode(), hashlib.sha256).hexdigest()
