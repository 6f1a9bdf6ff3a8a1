r"""What the files of a folder are called in a ZIP: as they are, unless some reader would take that for another place.

A name of Linux is any bytes but NUL and "/". One in a ZIP is UTF-8, and there are readers for which "\" parts folders and "C:" is
a drive. Of a name that is not UTF-8, climbs or is absolute to any of them, the bytes that make it so are written as %XX.
"""

import re
from collections.abc import Iterable

_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_DRIVE = re.compile(r"[A-Za-z]:")


def member_names(raws: Iterable[bytes], *, is_root: bool) -> dict[bytes, str]:
    """Return what each name of one folder is called; no two are called the same. In the order of their bytes.

    `is_root`: the folder is the one that is packed, so that its names are what paths begin with.
    """
    names: dict[bytes, str] = {}
    escaped: list[bytes] = []
    for raw in sorted(raws):
        names[raw] = escape(raw, is_root=is_root)
        if names[raw].encode("utf-8") != raw:
            escaped.append(raw)
    taken = {name for raw, name in names.items() if raw not in set(escaped)} if escaped else set()
    for raw in escaped:
        while names[raw] in taken:
            names[raw] += "~"
        taken.add(names[raw])
    return names


def escape(raw: bytes, *, is_root: bool) -> str:
    """Return what one name is called, whatever is beside it."""
    name = raw.decode("utf-8", "surrogateescape")
    name = _NOT_UTF8.sub(lambda sign: f"%{ord(sign[0]) - 0xDC00:02X}", name)
    if any(part.rstrip(" ") == ".." for part in name.split("\\")) or (is_root and name.startswith("\\")):
        name = name.replace("\\", "%5C") if "\\" in name else name.replace(".", "%2E")
    if is_root and _DRIVE.match(name):
        name = name.replace(":", "%3A", 1)
    return name


def is_inside(target: bytes, depth: int) -> bool:
    r"""Return whether a symbolic link to `target`, `depth` folders below the top, can only lead to something below the top.

    That holds for any set of such links, since ".." comes first in them: it is taken in the folder that the link really is in.
    """
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    ups = next((at for at, part in enumerate(parts) if part != b".."), len(parts))
    return not target.startswith(b"/") and b"\\" not in target and ups <= depth and b".." not in parts[ups:]
