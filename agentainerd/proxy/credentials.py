"""What in an Authorization field may be a token. Pure."""

import base64
import re
from collections.abc import Iterator

_WORDS = re.compile(rb"[^\s,;=\"]+")


def credentials(authorization: bytes) -> Iterator[bytes]:
    """Return whatever in an Authorization field may be a token, however it is written: each word, and Basic's two parts."""
    for word in _WORDS.findall(authorization):
        if word.lower() != b"bearer":
            yield word
    if authorization[:6].lower() == b"basic ":
        try:
            user, _, password = base64.b64decode(authorization[6:].strip(), validate=True).partition(b":")
        except ValueError:
            return
        yield user
        yield password
