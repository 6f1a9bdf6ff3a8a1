"""Exchanges with models that are recorded, or played instead of asking a provider: so that tests cost nothing and repeat."""

import logging
from collections.abc import Callable

import msgspec
from gevent.lock import BoundedSemaphore

from agentainerd import offload
from agentainerd.errors import NotFound, Unavailable
from agentainerd.proxy.model_gate import ModelCall, ModelPlay
from agentainerd.store.model_recordings import ModelRecordings, Recording

log = logging.getLogger(__name__)


class ModelRecorder:
    """`record`, `replay`: folders, of which one is set at most; "" for neither. May be used from any greenlet."""

    def __init__(self, record: str, replay: str, spawn: Callable[..., object]) -> None:
        self.is_recording = bool(record)
        self.is_playing = bool(replay)
        self._folder = replay or record
        self._recordings = ModelRecordings(self._folder)
        self._spawn = spawn
        self._turn = BoundedSemaphore()

    def play(self, path: str, body: bytes, *, hides_usage: bool) -> ModelPlay:
        """Return the next answer that was recorded to this request.

        Raises:
            NotFound: none was (code RECORDING_NOT_FOUND). Unavailable: the folder or the file can't be read.
        """
        try:
            with self._turn:
                found = offload.run(self._read, path, body)
        except (OSError, ValueError) as error:
            raise Unavailable(f"what was recorded in {self._folder} can't be played: {error}") from error
        if found is None:
            hint = "record it: agentainerd --record-models FOLDER"
            raise NotFound("recording", path, message=f"no answer to this request is in {self._folder}", hint=hint)
        pieces = [piece for _, piece in found.pieces]
        return ModelPlay(found.model, found.status, found.content_type, pieces, hides_usage=hides_usage)

    def keep(self, call: ModelCall, path: str, body: bytes) -> None:
        """Write an exchange that is over. Does not block."""
        tape = call.tape
        if tape is None or not call.is_whole:
            return
        first = tape[0][0] if tape else 0.0
        pieces = tuple((at - first, piece) for at, piece in tape)
        made = (path, call.model, call.status, call.content_type, pieces)
        self._spawn("model recording", self._write, made, body)

    def _read(self, path: str, body: bytes) -> Recording | None:
        return self._recordings.read(path, msgspec.json.decode(body))

    def _write(self, made: tuple[str, str, int, str, tuple[tuple[float, bytes], ...]], body: bytes) -> None:
        try:
            with self._turn:
                name = offload.run(self._write_now, made, body)
        except OSError as error:
            log.error("an exchange with a model could not be recorded in %s: %s", self._folder, error)
        else:
            log.debug("an exchange with a model was recorded", extra={"file": name})

    def _write_now(self, made: tuple[str, str, int, str, tuple[tuple[float, bytes], ...]], body: bytes) -> str:
        path, model, status, content_type, pieces = made
        request = msgspec.json.decode(body)
        return self._recordings.write(Recording(path, request, model, status, content_type, pieces))
