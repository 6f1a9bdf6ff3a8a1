"""Recorded exchanges with models: files of JSON in one folder, which tests play instead of asking a provider.

A file is named after what was asked, `<hash of path and request>-<n>.json`: the n-th answer to the same question. It has the
request as the agent sent it, and the answer as it came from the provider, piece by piece. No key and no token is in it.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentainerd.store.private_files import write_private

HASH_CHARS = 24


@dataclass(frozen=True, slots=True)
class Recording:
    """One exchange. `model`: provider/model; `pieces`: of the answer's body, each with when it came, seconds after the first."""

    path: str
    request: object
    model: str
    status: int
    content_type: str
    pieces: tuple[tuple[float, bytes], ...]


class ModelRecordings:
    """A folder. Every method blocks on the disk: call it in a thread. Raises OSError, and ValueError for what is no recording."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._next: dict[str, int] = {}

    def write(self, recording: Recording) -> str:
        """Keep an exchange, behind those that answered the same question; return the file's name."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = hash_of(recording.path, recording.request)
        number = self._next.get(name) or len(self._files(name)) + 1
        self._next[name] = number + 1
        file = self._folder / f"{name}-{number}.json"
        write_private(str(file), json.dumps(_document(recording), ensure_ascii=False, indent=1).encode())
        return file.name

    def read(self, path: str, request: object) -> Recording | None:
        """Return the next answer to a question: the last one for ever, once all were given; None: it was never asked."""
        name = hash_of(path, request)
        number = self._next.get(name, 1)
        files = self._files(name)
        if not files:
            return None
        self._next[name] = number + 1
        return _recording(json.loads(files[min(number, len(files)) - 1].read_bytes()))

    def _files(self, name: str) -> Sequence[Path]:
        found = [file for file in self._folder.glob(f"{name}-*.json") if file.stem.rpartition("-")[2].isdigit()]
        return sorted(found, key=lambda file: int(file.stem.rpartition("-")[2]))


def hash_of(path: str, request: object) -> str:
    """Return the name of a question: the same for the same JSON, however it is written."""
    text = json.dumps([path, request], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_CHARS]


def _document(recording: Recording) -> Mapping[str, object]:
    return {
        "path": recording.path,
        "request": recording.request,
        "model": recording.model,
        "status": recording.status,
        "content_type": recording.content_type,
        "pieces": [[round(at, 4), *_written(piece)] for at, piece in recording.pieces],
    }


def _written(piece: bytes) -> Iterator[str]:
    """A piece as text; what is cut in the middle of a character as base64, which says so."""
    try:
        yield piece.decode()
    except UnicodeDecodeError:
        yield base64.b64encode(piece).decode()
        yield "base64"


def _recording(document: Any) -> Recording:  # noqa: ANN401 - JSON
    try:
        pieces = tuple((float(at), _piece(text, *form)) for at, text, *form in document["pieces"])
        return Recording(
            document["path"],
            document["request"],
            document["model"],
            int(document["status"]),
            document["content_type"],
            pieces,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"is no recording: {error}") from error


def _piece(text: str, form: str = "") -> bytes:
    return base64.b64decode(text) if form else text.encode()
