"""Folders with all that a volume can have in it, and how to compare two of them."""

import os
import socket
import stat
from pathlib import Path


def fill(folder: Path) -> Path:
    """Make one of each; return the folder. What can't be kept: `pipe`, `socket`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plain").write_bytes(os.urandom(300_000))
    (folder / "linked").write_text("one file, two names")
    os.link(folder / "linked", folder / "also linked")
    (folder / "link").symlink_to("deep/er/file")
    (folder / "dangling").symlink_to("/nowhere/at/all")
    deep = folder / "deep" / "er"
    deep.mkdir(parents=True)
    (deep / "file").write_text("here")
    os.link(folder / "linked", deep / "linked, from below")
    (folder / "empty").touch()
    (folder / "nothing in it").mkdir(mode=0o700)
    (folder / "ä").write_text("umlaut")
    (folder / ("x" * 255)).write_text("long")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff not text \n")).write_text("bytes")
    with open(folder / "sparse", "wb") as file:
        file.seek(4 * 2**20)
        file.write(b"in the middle")
        file.truncate(9 * 2**20)
    if os.geteuid() == 0:
        os.chown(folder / "plain", 1234, 4321)
        os.chown(folder / "link", 1, 2, follow_symlinks=False)
        os.chown(deep, 65534, 65534)
    os.chmod(folder / "plain", 0o640)
    os.chmod(folder / "deep", 0o1777)
    os.utime(folder / "plain", ns=(0, 1_234_567_890_123_456_789))
    os.utime(folder / "link", ns=(0, 1_000_000_001), follow_symlinks=False)
    os.utime(folder / "empty", ns=(0, -1_500_000_000))
    os.utime(deep, ns=(0, 946_684_800_000_000_001))
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(folder)
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
    return folder


def look(folder: Path, *, without: tuple[str, ...] = ("pipe", "socket")) -> dict[str, tuple[object, ...]]:
    """Return everything about each name below a folder that a backup keeps, the folder included."""
    found: dict[str, tuple[object, ...]] = {}
    for at, folders, files in os.walk(folder):
        for name in [".", *folders, *files] if at == str(folder) else [*folders, *files]:
            path = os.path.join(at, name)
            shown = os.path.relpath(path, folder)
            if shown in without:
                continue
            status = os.lstat(path)
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = (Path(path).read_bytes(), status.st_blocks * 512 < status.st_size)
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            found[shown] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_nlink, content)
    return found
