"""What a job is made of, from the command line: its prompt, its files, its bounds."""

import os
import stat
from base64 import b64encode
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from agentainerctl.prompts import read_prompt
from agentainerd.errors import InvalidParameter, NotFound, TooLarge
from agentainerd.units import parse_duration

MAX_FILES_BYTES = 768 * 1024 * 1024  # as text they take a third more, and no daemon takes requests of more than a GiB


def read_job_prompt(text: str) -> str:
    """Return the prompt that an argument stands for: itself, what stdin has for "-", what a file has for "@FILE".

    Raises:
        InvalidParameter, NotFound: it is not UTF-8, or there is no such file.
    """
    if not text.startswith("@"):
        return read_prompt(text)
    try:
        with open(text[1:], "rb") as file:
            return file.read().decode().removesuffix("\n")
    except FileNotFoundError as error:
        hint = "a prompt that begins with @ comes from standard input: -"
        raise NotFound("file", text[1:], message=f"no file {text[1:]!r}", hint=hint) from error
    except UnicodeDecodeError as error:
        raise InvalidParameter("PROMPT", f"{text[1:]!r} is not UTF-8: byte {error.start}") from error


def read_files(given: Iterable[str]) -> list[dict[str, str]]:
    """Return the files that a job is to find in /workspace. Each is "FILE" or "FILE=NAME", with its name there; of a folder all
    that is in it is taken, as it lies. Symbolic links are followed where they are named, not where they are found.

    Raises:
        NotFound, InvalidParameter, TooLarge: there is no such file, or none that can be sent.
    """
    found: list[dict[str, str]] = []
    size = 0
    for source, name in (pair for text in given for pair in _pairs(text)):
        content = _read(source)
        size += len(content)
        if size > MAX_FILES_BYTES:
            raise TooLarge(
                f"the files have more than {MAX_FILES_BYTES // 2**20} MiB together, with {source!r}",
                hint="have the job fetch what is large from where it lies",
            )
        found.append({"name": name, "content": b64encode(content).decode()})
    return found


def moment(text: str | None) -> float | str | None:
    """Return what a duration from now, in seconds, or a time means to the daemon; a time without a zone is local.

    Raises:
        InvalidParameter: it is neither.
    """
    if not text or "T" not in text:
        return parse_duration(text, "after") if text else None
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except ValueError:
        raise InvalidParameter("after", f"{text!r} is not a time", hint="2h, or 2026-11-20T18:00:00") from None


def limits(given: dict[str, Any]) -> dict[str, object]:
    """Return the bounds that were given."""
    found = {
        "memory": given["memory"],
        "cpus": given["cpus"],
        "pids": given["pids"],
        "disk": given["disk"],
        "wall_s": given["timeout"],
        "steps": given["max_steps"],
        "cost_usd": given["max_cost"],
        "network": False if given["no_network"] else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    source, separator, name = text.rpartition("=")
    if not separator or os.path.exists(text):
        source, name = text, ""
    if not os.path.isdir(source):
        yield source, name or os.path.basename(source)
        return
    top = name or os.path.basename(os.path.abspath(source))
    for folder, folders, files in os.walk(source):
        folders.sort()
        for file in sorted(files):
            path = os.path.join(folder, file)
            if stat.S_ISREG(os.lstat(path).st_mode):
                yield path, os.path.normpath(os.path.join(top, os.path.relpath(path, source)))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidParameter("--file", f"{path!r} is neither a file nor a folder")
            return file.read(MAX_FILES_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFound("file", path, message=f"no file {path!r}") from error
