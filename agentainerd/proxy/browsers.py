"""What a request to a named port says of itself: its port, its cookies, whether a browser sends it and from which page. Pure."""

from urllib.parse import unquote_to_bytes

from agentainerd.proxy.port_access import PARAMETER
from agentainerd.proxy.request import Request


def is_own_page(request: Request) -> bool:
    """Whether a browser that sends this has it from a page of this very host, or from a person."""
    if request.origin is not None:
        host = request.host or b""
        return request.origin.lower().partition(b"://")[2] == host.lower()
    site = _field(request.lines, b"sec-fetch-site")
    if site in (b"", b"none", b"same-origin"):
        return True
    is_person = _field(request.lines, b"sec-fetch-mode") == b"navigate"
    return is_person and request.method == b"GET" and _field(request.lines, b"sec-fetch-dest") == b"document"


def wants_page(request: Request) -> bool:
    """Whether it asks for something to look at, as a browser does."""
    return b"text/html" in _field(request.lines, b"accept")


def split(path: bytes) -> tuple[bytes, bytes]:
    """Return name and rest of a path `/:<name>/<rest>`; the rest of `/:<name>` is `/`."""
    end = path.find(b"/", 2)
    question = path.find(b"?", 2)
    if end < 0 or 0 <= question < end:
        end = question if question >= 0 else len(path)
        return path[2:end], b"/" + path[end:]
    return path[2:end], path[end:]


def cookies(lines: list[bytes]) -> list[bytes]:
    """Return each cookie of a request, as `name=value`."""
    found: list[bytes] = []
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"cookie":
            found += [cookie.strip() for cookie in value.split(b";") if cookie.strip()]
    return found


def _field(lines: list[bytes], wanted: bytes) -> bytes:
    """Return the value of a field that is there once; b"" where it is not there."""
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == wanted:
            return value.strip().lower()
    return b""


def without_token(path: bytes) -> tuple[bytes, bytes]:
    """Return the token in a path's query, and the path without it; everything else of it as it is."""
    before, mark, query = path.partition(b"?")
    given, kept = b"", []
    for part in query.split(b"&") if mark else []:
        name, _, value = part.partition(b"=")
        if name == PARAMETER:
            given = unquote_to_bytes(value)
        else:
            kept.append(part)
    return given, before + (b"?" + b"&".join(kept) if kept else b"")
