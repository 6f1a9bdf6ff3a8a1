"""The runtime image: its build context, which came with this program, and what an agent of it is deployed with."""

import os
from typing import Any

from agentainerctl.build_context import BuildContext, Entry, collect
from agentainerd import version
from agentainerd.defaults import MODEL_KEY_VARIABLES
from agentainerd.errors import InvalidParameter, NotFound

IMAGE = "agentainer-runtime:latest"
DESKTOP_IMAGE = "agentainer-desktop:latest"
DOCKERFILE, DESKTOP_DOCKERFILE = "Dockerfile", "desktop.Dockerfile"
SCRIPT_PREFIX = "script/"
WORKSPACE = "/workspace"
_MAX_INSTRUCTIONS_BYTES = 64 * 1024  # what fits a variable of a process, with room for others


def context(wheels: str | None, dockerfile: str = DOCKERFILE) -> BuildContext:
    """Return what an image is built from; with the packages of a folder, for a build that reaches no index.

    Raises:
        NotFound: this installation has no runtime, or there is no such folder.
        InvalidParameter: the folder has no packages.
    """
    root = os.path.join(os.path.dirname(version.__file__), "runtime")
    made = collect(root, os.path.join(root, dockerfile))
    entries = tuple(entry for entry in made.entries if "__pycache__" not in entry.name.split("/"))
    if wheels is None:
        return made._replace(entries=entries)
    found = _wheels(wheels)
    size = sum(entry.status.st_size for entry in found)
    return made._replace(entries=entries + found, total_bytes=made.total_bytes + size)


def body_of(given: dict[str, Any], *, env: dict[str, str], volumes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the fields of the deploy body that `--runtime` and its options mean; `env` and `volumes` were given beside them.

    A model `script/FILE` is played inside, and an agent with a key of its own asks by itself; else it asks through the daemon.
    """
    model = given["model"] or ""
    asks_itself = model.startswith(SCRIPT_PREFIX) or any(name in env for name in MODEL_KEY_VARIABLES)
    variables = {
        "AGENT_MODEL": model if asks_itself else "",
        "GITHUB_REPO": given["repo"],
        "GITHUB_BRANCH": given["branch"],
        "GITHUB_TARGET_BRANCH": given["target_branch"],
        "AGENT_INSTRUCTIONS": _instructions(given["instructions"]),
    }
    has_workspace = any(volume["container_path"].rstrip("/") == WORKSPACE for volume in volumes)
    own = {"host_path": f"{given['name']}-workspace", "container_path": WORKSPACE, "read_only": False}
    return {
        "runtime": True,
        "model": "" if asks_itself else model or "default",
        "env_vars": {**{name: value for name, value in variables.items() if value}, **env},
        "volumes": volumes if has_workspace else [*volumes, own],
    }


def _wheels(folder: str) -> tuple[Entry, ...]:
    if not os.path.isdir(folder):
        raise NotFound("folder", folder, message=f"no such folder: {folder}")
    names = sorted(name for name in os.listdir(folder) if name.endswith(".whl"))
    if not names:
        raise InvalidParameter(
            "wheels", f"there are no packages (*.whl) in {folder}", hint="docs/runtime.md: without an index"
        )
    paths = [os.path.join(folder, name) for name in names]
    return tuple(Entry(f"wheels/{name}", path, os.stat(path)) for name, path in zip(names, paths, strict=True))


def _instructions(path: str | None) -> str:
    if path is None:
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_MAX_INSTRUCTIONS_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidParameter("instructions", f"cannot read {path}: {reason}") from error
    if len(text.encode()) > _MAX_INSTRUCTIONS_BYTES or "\0" in text:
        raise InvalidParameter(
            "instructions", f"{path} is longer than {_MAX_INSTRUCTIONS_BYTES // 1024} KiB, or has NUL in it"
        )
    return text
