"""Is the value of `--image` an image or a Dockerfile? Answered by looking, never by guessing a build into a pull."""

import os

from agentainerd.errors import InvalidParameter, NotFound

_PEEK_BYTES = 64 * 1024
_FIRST_INSTRUCTIONS = (b"FROM", b"ARG")


def find_dockerfile(value: str) -> str | None:
    """Return the path of the Dockerfile that `value` means, or None where it is an image's name.

    A Dockerfile is a regular file named Dockerfile*, dockerfile* or *.dockerfile, or one whose first instruction is FROM or
    ARG; or a folder, written as a path, with a Dockerfile in it. Images can't be written with a leading `/`, `./` or `~/`,
    nor with a capital D: such a value is a path, whether it exists or not.

    Raises:
        NotFound: it is written as a path, and there is no Dockerfile.
        InvalidParameter: it is written as a path to a file that is no Dockerfile.
    """
    path = os.path.expanduser(value)
    if os.path.isdir(path):
        inside = os.path.join(path, "Dockerfile")
        if ("/" in value or _is_path(value)) and os.path.isfile(inside):
            return inside
        if _is_path(value):
            raise NotFound("dockerfile", value, message=f"no Dockerfile in {value}")
        return None
    if os.path.isfile(path):
        if _is_named_so(path) or _begins_so(path):
            return path
        if _is_path(value):
            raise InvalidParameter(
                "image", f"{value} is not a Dockerfile: its first instruction is neither FROM nor ARG"
            )
        return None
    if _is_path(value):
        hint = "give the path of a Dockerfile, or an image as name:tag"
        raise NotFound("dockerfile", value, message=f"no such Dockerfile: {value}", hint=hint)
    return None


def _is_path(value: str) -> bool:
    return value in (".", "..") or value.startswith(("./", "../", "/", "~")) or "Dockerfile" in value


def _is_named_so(path: str) -> bool:
    name = os.path.basename(path)
    return name.startswith(("Dockerfile", "dockerfile")) or name.lower().endswith(".dockerfile")


def _begins_so(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(_PEEK_BYTES)
    except OSError as error:
        raise InvalidParameter("image", f"cannot read {path}: {error.strerror}") from error
    for line in head.removeprefix(b"\xef\xbb\xbf").splitlines():
        words = line.split(None, 1)
        if words and not words[0].startswith(b"#"):
            return words[0].upper() in _FIRST_INSTRUCTIONS
    return False
