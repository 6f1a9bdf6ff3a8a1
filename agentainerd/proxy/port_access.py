"""Who may use named ports: what is signed and what is good for one use. Pure, but for the clock that its callers give it.

Three things open a port, or are shown to it:
- a login, a word that is good once and for `LOGIN_S`: a person got it from the control API, and a browser turns it into
- a session, the value of a cookie: until when, by which token (its digest; nothing where a login opened it), and a MAC;
- the port's own token, which the container gets in its environment and with each request: so that nobody else is let in there,
  the other agents of the network included.
"""

import hashlib
import hmac
import secrets
from typing import Final

COOKIE: Final = b"agentainer_session"
PARAMETER: Final = b"agentainer_token"
LOGIN_S: Final = 300.0
SESSION_S: Final = 12 * 3600.0
_MAX_LOGINS: Final = 10_000


class PortAccess:
    """`key` is set by its owner, before anything else; what was signed with another one is good for nothing."""

    def __init__(self) -> None:
        self.key = b""
        self._logins: dict[str, tuple[str, str, float]] = {}

    def token(self, agent_id: str, port: str) -> str:
        """Return what a port is shown, for as long as the key is the same one. Nobody keeps it."""
        return self._mac(f"token {agent_id} {port}")

    def login(self, agent_id: str, port: str, now: float) -> str:
        """Return a word that opens a port once, until `now` + LOGIN_S."""
        if len(self._logins) >= _MAX_LOGINS:
            del self._logins[next(iter(self._logins))]
        word = secrets.token_urlsafe(24)
        self._logins[word] = (agent_id, port, now + LOGIN_S)
        return word

    def redeem(self, word: str, agent_id: str, port: str, now: float) -> bool:
        """Return whether a word opens this port; it does so once."""
        found = self._logins.get(word)
        if found is None or found[:2] != (agent_id, port):
            return False
        del self._logins[word]
        return now < found[2]

    def session(self, agent_id: str, port: str, by: bytes, now: float) -> bytes:
        """Return the value of a cookie that opens a port until `now` + SESSION_S. `by`: digest of the token that was shown."""
        until = int(now + SESSION_S)
        return f"{until}.{by.hex()}.{self._mac(f'session {agent_id} {port} {until} {by.hex()}')}".encode()

    def holder(self, value: bytes, agent_id: str, port: str, now: float) -> bytes | None:
        """Return `by` of a cookie's value; None: it does not open this port, or not any more."""
        parts = value.decode("latin-1").split(".")
        if len(parts) != 3 or not parts[0].isdigit() or len(parts[0]) > 12:
            return None
        expected = self._mac(f"session {agent_id} {port} {parts[0]} {parts[1]}")
        if not hmac.compare_digest(parts[2].encode("latin-1"), expected.encode()) or now >= int(parts[0]):
            return None
        return bytes.fromhex(parts[1])

    def _mac(self, text: str) -> str:
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()
