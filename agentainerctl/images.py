"""Building and pulling, as a person sees it: what goes on while it goes on, and the evidence when it fails.

On a terminal the output of a build is a window of its last lines, which folds into one line when it went well. Elsewhere
each line is printed once, as it comes.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from agentainerctl.build_context import BuildContext, write_tar
from agentainerctl.client import ChunkedBody, path_of
from agentainerctl.failures import ApiError, StreamBroken
from agentainerctl.output import strip_ansi
from agentainerctl.progress import Region, bar
from agentainerctl.session import Session
from agentainerd.units import format_size

_WINDOW_LINES = 6
_KEPT_LINES = 30
_MAX_LAYERS = 12
Result = dict[str, Any]


def build_image(session: Session, context: BuildContext, tag: str, args: dict[str, str]) -> Result:
    """Send the context, show the build, and return what was made: `image` and `image_id`.

    Raises:
        ApiError: the build failed; `details` has the step and its last lines.
        AgentainerError: as `Client.stream` and `write_tar`.
    """
    region = Region(is_silent=not session.has_progress)
    began = time.monotonic()
    query = {"tag": tag, "dockerfile": context.dockerfile, "arg": [f"{name}={value}" for name, value in args.items()]}
    upload = _Upload(context, region)
    log = _BuildLog(region, tag)
    stream = session.client.stream("POST", path_of("images", "build"), query=query, write=upload.send)
    try:
        result = _consume(stream, log.take)
    except ApiError as error:
        region.clear()
        raise log.explain(error) from error
    finally:
        region.clear()
    region.say(f"Built {tag} in {time.monotonic() - began:.1f} s")
    return result


def pull_image(session: Session, image: str, policy: str) -> Result:
    """Have the image on the engine as `policy` (always, missing) says, and return it.

    Raises:
        ApiError: no such image, no registry, no disk: each with its own text.
        AgentainerError: as `Client.stream`.
    """
    region = Region(is_silent=not session.has_progress)
    layers = _Layers(region, image)
    stream = session.client.stream("POST", path_of("images", "pull"), body={"image": image, "policy": policy})
    try:
        return _consume(stream, layers.take)
    finally:
        region.clear()


def _consume(stream: Iterator[Result], take: Callable[[Result], None]) -> Result:
    with closing(stream) as entries:  # type: ignore[type-var] # a generator has close()
        for entry in entries:
            if isinstance(entry.get("result"), dict):
                return dict(entry["result"])
            take(entry.get("progress") or {})
    raise StreamBroken("agentainerd stopped before it was done", hint="agentainerctl system ping")


class _Upload:
    """Sends the tar and shows how far it is."""

    def __init__(self, context: BuildContext, region: Region) -> None:
        self._context = context
        self._region = region
        self._sent = 0

    def send(self, body: ChunkedBody) -> None:
        count, total = len(self._context.entries), self._context.total_bytes
        if not self._region.is_live:
            self._region.say(f"Sending build context {self._context.root}: {count} files, {format_size(total)}")

        def write(data: bytes) -> None:
            body.write(data)
            self._sent += len(data)
            done = min(self._sent, total)
            self._region.show([f"Sending build context {bar(done, total)} {format_size(done)} of {format_size(total)}"])

        write_tar(self._context, write)


class _BuildLog:
    """The lines of a build: shown while it runs, kept for the case that it fails."""

    def __init__(self, region: Region, tag: str) -> None:
        self._region = region
        self._title = f"Building {tag}"
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._layers = _Layers(region, "the base image")
        self._step = ""
        self._began = time.monotonic()

    def take(self, progress: Result) -> None:
        """Show one piece of progress: lines of the builder, or a layer of the base image that is being pulled."""
        if progress.get("status"):
            self._layers.take(progress)
            return
        for line in filter(None, map(strip_ansi, str(progress.get("text") or "").split("\n"))):
            if line.startswith("Step "):
                self._step = line
            self._lines.append(line)
            if not self._region.is_live:
                self._region.say(line)
        title = f"{self._title} ({time.monotonic() - self._began:.0f} s)"
        self._region.show([title, *(f"  {line}" for line in list(self._lines)[-_WINDOW_LINES:])])

    def explain(self, error: ApiError) -> ApiError:
        """Return `error` with the failing step and the last lines, where the daemon gave none and they scrolled away."""
        if self._step:
            error.details.setdefault("step", self._step)
        if self._region.is_live or self._region.is_silent:
            error.details.setdefault("lines", list(self._lines))
        else:
            error.details.pop("lines", None)  # they are right above, on stderr too
        return error


class _Layers:
    """The layers of a pull, each with its state; elsewhere than on a terminal one line per change of it."""

    def __init__(self, region: Region, image: str) -> None:
        self._region = region
        self._title = f"Pulling {image}"
        self._layers: dict[str, Result] = {}

    def take(self, progress: Result) -> None:
        """Show one piece of progress."""
        key = str(progress.get("id") or "")
        before = self._layers.get(key, {}).get("status")
        self._layers[key] = progress
        if self._region.is_live:
            shown = [f"  {_layer_line(one)}" for one in list(self._layers.values())[-_MAX_LAYERS:]]
            self._region.show([self._title, *shown])
        elif progress.get("status") != before:
            self._region.say(_layer_line(progress))


def _layer_line(progress: Result) -> str:
    current, total = int(progress.get("current") or 0), int(progress.get("total") or 0)
    size = f"{bar(current, total)} {format_size(current)} of {format_size(total)}" if total else ""
    words = (progress.get("id"), progress.get("status") or progress.get("text"), size)
    return strip_ansi(" ".join(str(word) for word in words if word))
