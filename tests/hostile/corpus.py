"""The corpus as bytes, and the same requests aimed at an agent."""

import re
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
_REQUEST_LINE = re.compile(rb"(^|\n)([^ \r\n]+) ([a-z]+://[^/ \r\n]+)?(/[^ \r\n]*) (HTTP/1\.[01])\r\n")
_ESCAPE = re.compile(rb"\\(r|n|t|0|x[0-9A-Fa-f]{2})")
_CONTROLS = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0"}


def load(kind: str) -> dict[str, bytes]:
    """Return the cases of "valid" or "invalid" by name."""
    return {path.stem: _decode(path.read_bytes()) for path in sorted((FOLDER / kind).glob("*.http"))}


def aim(data: bytes, *, only_first: bool = False) -> bytes:
    """Return the same requests to the agent "web": a prefix before the path, and a Host where there is none.

    Host is what most of the corpus leaves out; without it every one of those cases would test the same check.
    """

    def turn(match: re.Match[bytes]) -> bytes:
        before, method, authority, path, version = match.groups()
        head = data[match.end() :].partition(b"\r\n\r\n")[0].lower()
        host = b"" if re.search(rb"(^|\n)host *:", head) else b"Host: a\r\n"
        return b"%b%b %b/agent/web%b %b\r\n%b" % (before, method, authority or b"", path, version, host)

    return _REQUEST_LINE.sub(turn, data, count=1 if only_first else 0)


def _decode(text: bytes) -> bytes:
    def control(match: re.Match[bytes]) -> bytes:
        code = match.group(1)
        return bytes([int(code[1:], 16)]) if code.startswith(b"x") else _CONTROLS[code]

    return _ESCAPE.sub(control, text.replace(b"\n", b""))
