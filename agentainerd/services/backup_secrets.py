"""What a backup holds that nobody else may read: encrypted with a passphrase, and the whole archive signed with it.

scrypt makes two keys of the passphrase: AES-256-GCM encrypts (a new nonce for each piece; the backup's id and what it is are
bound to it), HMAC-SHA256 signs the checksum at the end of the archive, and with it the manifest and everything else.

Everything blocks, making the keys for a fraction of a second: for offload.run.
"""

import base64
import binascii
import hashlib
import hmac
import secrets

from agentainerd.errors import Forbidden, InvalidParameter
from agentainerd.model.backups import Sealed, damaged

MIN_PASSPHRASE_CHARS = 8
MAX_PASSPHRASE_CHARS = 1024
_N, _R, _P = 2**16, 8, 2  # 64 MiB, some 0.3 s; one of OWASP's choices
_MAX_MEMORY = 256 * 1024 * 1024
_NONCE_BYTES = 12


class BackupKey:
    """The keys that a passphrase gives for one backup."""

    def __init__(self, passphrase: str, backup_id: str, sealed: Sealed) -> None:
        """Make them. Raises Failed (code BACKUP_DAMAGED): nobody makes keys in such a way."""
        memory = 128 * sealed.n * sealed.r
        good = sealed.n > 1 and sealed.n & (sealed.n - 1) == 0 and 1 <= sealed.p <= 16 and 1 <= sealed.r <= 64
        if not good or memory > _MAX_MEMORY or memory * sealed.p > 4 * _MAX_MEMORY:
            raise damaged("its key can't be made")
        material = hashlib.scrypt(
            passphrase.encode(), salt=_binary(sealed.salt), n=sealed.n, r=sealed.r, p=sealed.p,
            maxmem=2 * _MAX_MEMORY, dklen=64,
        )  # fmt: skip
        self._key, self._signing = material[:32], material[32:]
        self._backup_id = backup_id

    def seal(self, data: bytes, what: str) -> bytes:
        """Return `data` encrypted; `what` it is must be said again to open it."""
        from cryptography.hazmat.primitives.ciphers.aead import (
            AESGCM,  # here: a daemon without backups does not load it
        )

        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + AESGCM(self._key).encrypt(nonce, data, self._bound(what))

    def open(self, data: bytes, what: str) -> bytes:
        """Return what `seal` was given.

        Raises:
            Forbidden: another passphrase, or another piece (code BACKUP_PASSPHRASE).
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            return AESGCM(self._key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], self._bound(what))
        except (InvalidTag, ValueError) as exc:
            raise wrong_passphrase() from exc

    def sign(self, digest: str) -> str:
        """Return the signature of a checksum, in hex."""
        return hmac.new(self._signing, self._bound(digest), hashlib.sha256).hexdigest()

    def check(self, digest: str, signature: str) -> None:
        """Check a signature. Raises Failed (code BACKUP_DAMAGED)."""
        if not hmac.compare_digest(self.sign(digest), signature):
            raise damaged("its signature is wrong: somebody without the passphrase has changed it")

    def _bound(self, what: str) -> bytes:
        return f"{self._backup_id}/{what}".encode()


def check_passphrase(passphrase: str) -> None:
    """Check what a new backup is encrypted with. Raises InvalidParameter."""
    if not MIN_PASSPHRASE_CHARS <= len(passphrase) <= MAX_PASSPHRASE_CHARS:
        raise InvalidParameter(
            "passphrase",
            f"must have {MIN_PASSPHRASE_CHARS} to {MAX_PASSPHRASE_CHARS} characters; a long one is a good one",
        )


def seal(passphrase: str, backup_id: str, data: bytes) -> tuple[Sealed, BackupKey]:
    """Encrypt the secrets of a new backup; return them, and the key for what else is encrypted."""
    sealed = Sealed(salt=_text(secrets.token_bytes(16)), n=_N, r=_R, p=_P, data="")
    key = BackupKey(passphrase, backup_id, sealed)
    return Sealed(salt=sealed.salt, n=_N, r=_R, p=_P, data=_text(key.seal(data, "secrets"))), key


def unseal(passphrase: str, backup_id: str, sealed: Sealed) -> tuple[bytes, BackupKey]:
    """Return the secrets of a backup, and its key. Raises Forbidden (code BACKUP_PASSPHRASE), Failed (BACKUP_DAMAGED)."""
    key = BackupKey(passphrase, backup_id, sealed)
    return key.open(_binary(sealed.data), "secrets"), key


def wrong_passphrase() -> Forbidden:
    """Return the error for a passphrase that does not fit."""
    return Forbidden("the passphrase is not that of the backup", code="BACKUP_PASSPHRASE")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _binary(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise damaged("its secrets can't be read") from exc
