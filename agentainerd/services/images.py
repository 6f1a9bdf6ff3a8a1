"""Images: build them from a context that the client sends, pull them, look at them."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from gevent.lock import BoundedSemaphore

from agentainerd.engine.engine import Engine, Stream
from agentainerd.errors import AgentainerError, Failed, InvalidParameter, NotFound, TooLarge, TooManyRequests
from agentainerd.model.agents import check_image
from agentainerd.model.containers import Image, Progress
from agentainerd.services.audit import Actor, AuditService

MAX_JOBS = 4  # builds and pulls at once
PULL_POLICIES = ("always", "missing", "never")
_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class ImageResult:
    """The end of a build or a pull that went well."""

    image: str
    image_id: str


class ImageService:
    """Builds and pulls, a few at once."""

    def __init__(self, engine: Engine, audit: AuditService, *, max_context_bytes: int) -> None:
        self._engine = engine
        self._audit = audit
        self._max_context_bytes = max_context_bytes
        self._slots = BoundedSemaphore(MAX_JOBS)

    def get(self, ref: str) -> Image:
        """Return a local image.

        Raises:
            InvalidParameter: not an image's name. NotFound: it is not on the engine.
        """
        check_image(ref)
        return self._engine.image(ref)

    def build(
        self, context: IO[bytes], *, tag: str, dockerfile: str, args: Mapping[str, str], actor: Actor
    ) -> "ImageJob":
        """Read the context (a tar) to its end and start to build it; the returned job tells how it goes on.

        Raises:
            InvalidParameter: tag, dockerfile or an argument. TooLarge: the context. TooManyRequests: MAX_JOBS are running.
            Unavailable: the engine.
        """
        check_image(tag)
        if not dockerfile or dockerfile.startswith("/") or ".." in dockerfile.split("/") or "\0" in dockerfile:
            raise InvalidParameter("dockerfile", f"{dockerfile!r} is not a path inside the context")
        for name in args:
            if not _ARGUMENT.fullmatch(name):
                raise InvalidParameter("arg", f"{name!r} is not a build argument's name", hint="arg=NAME=VALUE")
        limited = _Limited(context, self._max_context_bytes)
        return self._job(
            "build_image",
            tag,
            actor,
            lambda: self._engine.build(limited, tag=tag, dockerfile=dockerfile, args=args),  # type: ignore[arg-type]
        )

    def pull(self, ref: str, *, policy: str, actor: Actor) -> "ImageJob | ImageResult":
        """Pull an image, if the policy says so; one that is there already is the result at once.

        Raises:
            InvalidParameter: name or policy. NotFound: policy "never", and it is not here. TooManyRequests, Unavailable.
        """
        check_image(ref)
        if policy not in PULL_POLICIES:
            raise InvalidParameter("policy", f"{policy!r} is none of {', '.join(PULL_POLICIES)}")
        if policy != "always":
            try:
                return ImageResult(ref, self._engine.image(ref).id)
            except NotFound:
                if policy == "never":
                    raise
        return self._job("pull_image", ref, actor, lambda: self._engine.pull(ref))

    def _job(self, action: str, ref: str, actor: Actor, start: Callable[[], Stream[Progress]]) -> "ImageJob":
        self._audit.require()
        if not self._slots.acquire(blocking=False):
            raise TooManyRequests(
                f"{MAX_JOBS} builds and pulls are running already", code="IMAGE_JOBS_BUSY", retry_after_s=10
            )
        try:
            return ImageJob(start(), action, ref, actor, self._audit, self._engine, self._slots.release)
        except AgentainerError as error:
            self._slots.release()
            self._audit.record(actor, action, ref, error.code)
            raise
        except BaseException:
            self._slots.release()
            raise


class ImageJob:
    """A build or a pull under way: iterate over it once; the last item is an `ImageResult`. Whoever got it closes it."""

    def __init__(
        self,
        stream: Stream[Progress],
        action: str,
        ref: str,
        actor: Actor,
        audit: AuditService,
        engine: Engine,
        release: Callable[[], object],
    ) -> None:
        self._stream = stream
        self._ref = ref
        self._engine = engine
        self._release = release
        self._is_closed = False
        self._audit = audit
        self._actor = actor
        self._action = action
        self._result = "CANCELLED"

    def __iter__(self) -> Iterator[Progress | ImageResult]:
        """Return each step, then the result.

        Raises:
            Failed: a build step, or the job was cancelled. NotFound, Unavailable: as Engine.pull and Engine.build.
        """
        image_id = ""
        try:
            for progress in self._stream:
                image_id = progress.image_id or image_id
                yield progress
            if self._is_closed:
                raise Failed(f"'{self._ref}' was cancelled", code="CANCELLED")
            result = ImageResult(self._ref, image_id or self._engine.image(self._ref).id)
        except AgentainerError as error:
            self._result = error.code
            raise
        self._result = "ok"
        yield result

    def close(self) -> None:
        """End it, from any greenlet: what is not done is given up."""
        if not self._is_closed:
            self._is_closed = True
            self._stream.close()
            self._release()
            self._audit.record(self._actor, self._action, self._ref, self._result)


class _Limited:
    """A file that may not be longer than it should; read by the engine's client."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file = file
        self._limit = limit
        self._read = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._read += len(data)
        if self._read > self._limit:
            raise TooLarge(
                f"the build context is larger than {self._limit / 2**20:g} MiB",
                code="CONTEXT_TOO_LARGE",
                hint="leave out what is not needed, with .dockerignore",
            )
        return data
