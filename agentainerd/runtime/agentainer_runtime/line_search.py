"""The search where there is no ripgrep: a program by itself, so that a regular expression without end can be killed.

Its one argument is search_files' own, as JSON, with `skipped` names of folders. It prints what ripgrep would (--null
--line-number), does not follow symbolic links, and takes git's word for which files there are, where there is a repository.
"""

import fnmatch
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator

MAX_FILE_BYTES = 50 * 1024 * 1024


def main() -> int:
    """Return 0 where something matched, 1 where nothing did, 2 where the expression is none."""
    given = json.loads(sys.argv[1])
    query = re.escape(given["query"]) if given["literal"] else given["query"]
    try:
        expression = re.compile(query.encode(), 0 if given["caseSensitive"] else re.IGNORECASE)
    except re.error as exc:
        print(f"query is not a regular expression: {exc}", file=sys.stderr)  # noqa: T201
        return 2
    found = False
    for path in sorted(files(given["path"], set(given["skipped"]))):
        if is_wanted(path, given["filePattern"]):
            for number, line in matches(path, expression):
                sys.stdout.buffer.write(os.fsencode(path) + b"\0%d:%s\n" % (number, line))
                found = True
    return 0 if found else 1


def files(place: str, skipped: set[str]) -> Iterator[str]:
    """Give the files in `place`, or the file it is."""
    if not os.path.isdir(place):
        yield place
        return
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", place],
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        pass
    else:
        yield from (
            path for path in os.fsdecode(listed.stdout).split("\0") if path and not skipped & set(path.split("/"))
        )
        return
    for folder, folders, names in os.walk(place):
        folders[:] = [name for name in folders if name not in skipped]
        yield from (os.path.normpath(os.path.join(folder, name)) for name in names)


def is_wanted(path: str, pattern: str) -> bool:
    """Whether `pattern` fits: one without a slash the name, another the path; `!` in front is everything else."""
    if not pattern:
        return True
    if pattern.startswith("!"):
        return not is_wanted(path, pattern[1:])
    if "/" not in pattern:
        return fnmatch.fnmatchcase(os.path.basename(path), pattern)
    fits = pattern.lstrip("/")
    return fnmatch.fnmatchcase(path, fits) or fnmatch.fnmatchcase(path, fits.replace("**/", ""))


def matches(path: str, expression: re.Pattern[bytes]) -> Iterator[tuple[int, bytes]]:
    """Give the number, from 1, and the text of each line that matches; of what is no text, nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
            return
        content = file.read(MAX_FILE_BYTES)
    if b"\0" in content[:8192]:
        return
    for number, line in enumerate(content.split(b"\n"), 1):
        if expression.search(line):
            yield number, line


if __name__ == "__main__":
    sys.exit(main())
