"""Answers that are files: their tags, their parts and their sizes (RFC 9110, 8.8.3, 13 and 14); HEAD too."""

import re
from collections.abc import Callable, Iterator
from typing import Protocol
from urllib.parse import quote

from werkzeug.wrappers import Response

from agentainerd.api.exchange import ApiRequest, stream_file

_NOT_PLAIN = re.compile(r'[^ -~]|["\\%]')
_ATTRIBUTE = "!#$&+-.^_`|~"


class Download(Protocol):
    """What is sent: `etag` names its bytes, without quotes; `size` is None as long as it is being made."""

    @property
    def etag(self) -> str:
        """What If-None-Match and If-Range name."""

    @property
    def size(self) -> int | None:
        """In bytes, or None."""

    def finish(self, is_wanted: Callable[[], bool]) -> int:
        """Wait until the size is known and return it; `is_wanted` ends that."""

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Return the bytes from `start` to before `stop`."""

    def close(self) -> None:
        """Let it go."""


def send(request: ApiRequest, download: Download, kind: str, name: str) -> Response:
    """Return an answer of media type `kind`, to be saved as `name`; the download is closed when it is over, or here.

    What is still being made is sent as it is made, without a size; who asks for a part of it waits until it is whole. A range
    that can't be read, and more than one at once, is answered with all of it, as RFC 9110 14.2 lets us.
    """
    headers = {
        "ETag": f'"{download.etag}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": _disposition(name),
    }
    try:
        if "If-Match" in request.headers and not request.if_match.contains(download.etag):
            return _empty(download, 412, headers)
        if request.if_none_match.contains_weak(download.etag):
            return _empty(download, 304, headers)
        if request.method == "HEAD":
            if download.size is not None:
                headers["Content-Length"] = str(download.size)
            return stream_file(download, (), kind, headers)
        return _send(request, download, kind, headers)
    except BaseException:
        download.close()
        raise


def _send(request: ApiRequest, download: Download, kind: str, headers: dict[str, str]) -> Response:
    wanted = _wanted(request, download)
    if wanted is None:
        if download.size is not None:
            headers["Content-Length"] = str(download.size)
        return stream_file(download, download.pieces(), kind, headers)
    size = download.finish(lambda: not request.has_left())
    start, stop = wanted
    if start < 0:
        start = max(size + start, 0)
    stop = size if stop is None else min(stop, size)
    if start >= stop:
        return _empty(download, 416, {**headers, "Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)
    response = stream_file(download, download.pieces(start, stop), kind, headers)
    response.status_code = 206
    return response


def _wanted(request: ApiRequest, download: Download) -> tuple[int, int | None] | None:
    """Return the part that is asked for: (first byte, or minus how many at the end; the one after the last), or None."""
    asked = request.range
    if asked is None or asked.units != "bytes" or len(asked.ranges) != 1:
        return None
    if "If-Range" in request.headers and request.headers["If-Range"] != f'"{download.etag}"':
        return None  # by a date too: there is none to compare it with
    return asked.ranges[0]


def _disposition(name: str) -> str:
    """Return how a name is told (RFC 6266, 4.3 and appendix D): twice, where not everybody can read it."""
    plain = _NOT_PLAIN.sub("_", name)
    told = f'attachment; filename="{plain}"'
    return told if plain == name else f"{told}; filename*=UTF-8''{quote(name, safe=_ATTRIBUTE)}"


def _empty(download: Download, status: int, headers: dict[str, str]) -> Response:
    download.close()
    return Response(status=status, headers=headers)
