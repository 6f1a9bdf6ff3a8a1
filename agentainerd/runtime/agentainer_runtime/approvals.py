"""What a person has to allow: a code is told for it, and who answers `approve CODE` in the conversation has allowed it there.

A code is made of the action and a key of this process, so that no text that the model or anybody else wrote before can have it.
After a restart of the container what was allowed is asked for again.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable

CODE_LENGTH = 8


class Approvals:
    """Codes of one container."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def missing(self, action: str, said: Iterable[str]) -> str:
        """Return "" if one of the texts that the user said allows `action`, else the code by which they can."""
        code = hmac.new(self._key, action.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:CODE_LENGTH]
        wanted = re.compile(rf"\bapprove\s+{code}\b", re.IGNORECASE)
        return "" if any(wanted.search(text) for text in said) else code
