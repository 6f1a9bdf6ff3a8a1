"""What a person asks an agent: text from the command line or from stdin, and images."""

import os
import re
import stat
import sys
from base64 import b64encode

from agentainerd.errors import InvalidParameter, NotFound, TooLarge

MAX_IMAGE_BYTES = 7 * 1024 * 1024  # as text it takes a third more, and the daemon takes requests of 10 MB
_TYPES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


def read_prompt(text: str) -> str:
    """Return the prompt that an argument stands for: itself, or what stdin has for "-".

    Raises:
        InvalidParameter: it is not UTF-8.
    """
    if text != "-":
        return _utf8(os.fsencode(text))
    return _utf8(sys.stdin.buffer.read() if sys.stdin else b"").removesuffix("\n")


def read_image(source: str) -> dict[str, str]:
    """Return the attachment that `source`, a file or a web address, is.

    What a file has is part of the attachment: neither the daemon nor the agent need be able to read it where it lies.

    Raises:
        NotFound, InvalidParameter, TooLarge: there is no such file, or none that can be sent.
    """
    if re.match(r"https?://", source):
        return {"type": "image", "url": source}
    try:
        with open(source, "rb", opener=_open_now) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidParameter("--image", f"{source!r} is not a file")
            content = file.read(MAX_IMAGE_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFound("file", source, message=f"no file {source!r}") from error
    if len(content) > MAX_IMAGE_BYTES:
        raise TooLarge(
            f"{source!r} is larger than {MAX_IMAGE_BYTES // 2**20} MiB", hint="give its address: https://..."
        )
    kind = _type(content)
    if not kind:
        raise InvalidParameter("--image", f"{source!r} is no image", hint="PNG, JPEG, GIF and WebP are known")
    url = f"data:{kind};base64,{b64encode(content).decode()}"
    return {"type": "image", "url": url, "content_type": kind, "name": os.path.basename(source)}


def _open_now(path: str, flags: int) -> int:
    """Open without waiting for somebody to write, where it is a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _type(content: bytes) -> str:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in _TYPES if content.startswith(start)), "")


def _utf8(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise InvalidParameter("PROMPT", f"is not UTF-8: byte {error.start} is {text[error.start]:#04x}") from error
