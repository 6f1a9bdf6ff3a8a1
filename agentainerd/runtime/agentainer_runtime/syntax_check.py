"""A program: says of each file whether its syntax is right, as JSON lines on standard output. Nothing of the files is run.

Its argument is a file or folder, relative to the current one. Hidden folders, node_modules and symbolic links are left out. It
runs by itself, beside the runtime: a file that is made to be too deep for a parser ends this program only.
"""

import json
import os
import stat
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator

MAX_FILES = 2000
MAX_BYTES = 1024 * 1024
SKIPPED = ("node_modules", "__pycache__", "venv")
Fault = tuple[int, int, str]
"""Line and column, from 1 on, and what is wrong; 0 for what a parser does not tell."""


def main(place: str) -> None:
    """Check what is at `place`; one line for each file that was looked at, and one for each that was not."""
    for count, path in enumerate(_files(place)):
        if count >= MAX_FILES:
            _tell({"left_out": f"there are more than {MAX_FILES} files"})
            return
        linter = _linter_of(path)
        content = _content(path)
        if content is None:
            _tell({"left_out": f"{_shown(path)} is not a file of at most {MAX_BYTES} bytes that can be read"})
            continue
        fault = _CHECKS[linter](content)
        found = {"line": fault[0], "column": fault[1], "message": fault[2]} if fault else None
        _tell({"file": _shown(path), "linter": linter, "fault": found})


def _tell(what: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _files(place: str) -> Iterator[str]:
    if not os.path.isdir(place):
        if _linter_of(place) in _CHECKS:
            yield place
        return
    for folder, folders, names in os.walk(place):
        folders[:] = sorted(each for each in folders if not each.startswith(".") and each not in SKIPPED)
        for name in sorted(names):
            path = os.path.normpath(os.path.join(folder, name))
            if _linter_of(path) in _CHECKS and not os.path.islink(path):
                yield path


def _linter_of(path: str) -> str:
    endings = {".py": "python", ".pyi": "python", ".json": "json", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}
    return endings.get(os.path.splitext(path)[1].lower(), "")


def _content(path: str) -> bytes | None:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            content = file.read(MAX_BYTES + 1) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
    except OSError:
        return None
    return content if content is not None and len(content) <= MAX_BYTES else None


def _shown(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "replace")


def _python(content: bytes) -> Fault | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(content, "file", "exec", dont_inherit=True)
    except SyntaxError as error:
        return error.lineno or 0, error.offset or 0, error.msg
    except (ValueError, RecursionError, MemoryError) as error:
        return 0, 0, str(error) or "it is too deep to be read"
    return None


def _json(content: bytes) -> Fault | None:
    try:
        json.loads(content)
    except json.JSONDecodeError as error:
        return error.lineno, error.colno, error.msg
    except (UnicodeDecodeError, RecursionError) as error:
        return 0, 0, str(error)
    return None


def _toml(content: bytes) -> Fault | None:
    try:
        tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        return 0, 0, str(error)
    return None


def _yaml(content: bytes) -> Fault | None:
    import yaml

    try:
        for _ in yaml.parse(content):
            pass
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        return *place, error.problem or error.context or "it is no YAML"
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        return 0, 0, str(error)
    return None


_CHECKS: dict[str, Callable[[bytes], Fault | None]] = {
    "python": _python,
    "json": _json,
    "toml": _toml,
    "yaml": _yaml,
}

if __name__ == "__main__":
    main(sys.argv[1])
