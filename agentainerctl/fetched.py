"""An answer of the daemon that is no envelope: a file, or a text that grows."""

from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse


class Fetched:
    """The head of an answer, and its body in `pieces`, which are read while they come. Use it in a `with`.

    `headers`: by name, whatever its case. `length`: of the body, 0 where it is not known.
    """

    def __init__(self, connection: HTTPConnection, response: HTTPResponse, pieces: Iterator[bytes]) -> None:
        self.status = response.status
        self.headers = response.headers
        self.length = int(response.headers.get("Content-Length") or 0)
        self._connection = connection
        self._pieces = pieces

    def __enter__(self) -> "Fetched":
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def __iter__(self) -> Iterator[bytes]:
        """Return the body. Raises StreamBroken: it stopped in the middle."""
        return self._pieces
