"""Images that a manifest has built: named by what they are made of, so that what did not change is not built again."""

import hashlib
import os
import stat
from collections.abc import Mapping

from agentainerctl.build_context import BuildContext, collect
from agentainerctl.client import path_of
from agentainerctl.deployment import image_name
from agentainerctl.failures import ApiError
from agentainerctl.images import build_image, pull_image
from agentainerctl.manifest import Manifest
from agentainerctl.session import Session
from agentainerd.errors import InvalidParameter

_CHUNK_BYTES = 1024 * 1024
_STAMP_CHARS = 12


class Build:
    """One image to be built: its name, its context, its arguments."""

    def __init__(self, tag: str, context: BuildContext, args: dict[str, str]) -> None:
        self.tag = tag
        self.context = context
        self.args = args


def name_images(manifest: Manifest) -> list[Build]:
    """Give each agent that is built its image's name, `agentainer-<agent>:<digest of all that goes into it>`.

    Raises:
        NotFound, InvalidParameter, TooLarge: as `build_context.collect`.
    """
    builds = []
    for agent in manifest.agents():
        if agent["name"] in manifest.builds and not agent["image"]:
            dockerfile, args = manifest.builds[agent["name"]]
            context = collect(os.path.dirname(dockerfile) or ".", dockerfile)
            agent["image"] = image_name(agent["name"], digest(context, args)[:_STAMP_CHARS])
            builds.append(Build(agent["image"], context, args))
    return builds


def have_images(session: Session, manifest: Manifest, builds: list[Build], *, rebuild: bool, pull: str) -> None:
    """Build what is not on the engine (all of it with `rebuild`), and pull the other images as `pull` says.

    Raises:
        ApiError: a build failed, or there is no such image; with the evidence. AgentainerError: as `Client.stream`.
    """
    for build in builds:
        if rebuild or not _is_there(session, build.tag):
            build_image(session, build.context, build.tag, build.args)
    if pull == "never":
        return
    built = {build.tag for build in builds}
    for image in dict.fromkeys(agent["image"] for agent in manifest.agents()):
        if image not in built:
            pull_image(session, image, pull)


def digest(context: BuildContext, args: Mapping[str, str]) -> str:
    """Return a digest of names, modes and contents, the Dockerfile's name and the arguments; times do not count."""
    found = hashlib.sha256(repr((context.dockerfile, sorted(args.items()))).encode("utf-8", "surrogateescape"))
    for entry in context.entries:
        kind = stat.S_IFMT(entry.status.st_mode)
        head = f"{entry.name}\0{entry.status.st_mode}\0{entry.status.st_size if kind == stat.S_IFREG else 0}\0"
        found.update(head.encode("utf-8", "surrogateescape"))
        try:
            if kind == stat.S_IFLNK:
                found.update(os.fsencode(os.readlink(entry.path)))
            elif kind == stat.S_IFREG:
                with open(entry.path, "rb") as file:
                    while data := file.read(_CHUNK_BYTES):
                        found.update(data)
        except OSError as error:
            raise InvalidParameter("context", f"cannot read {entry.path}: {error.strerror}") from error
    return found.hexdigest()


def _is_there(session: Session, tag: str) -> bool:
    try:
        session.client.get(path_of("images", tag))
    except ApiError as error:
        if error.code != "IMAGE_NOT_FOUND":
            raise
        return False
    return True
