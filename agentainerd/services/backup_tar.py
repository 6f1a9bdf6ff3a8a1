"""The tar of a backup, block by block: what is written, and a strict reader of that and of nothing more.

POSIX.1-2001 (pax) with GNU's sparse files 1.0, so that `tar` reads it too. Python's tarfile is not used to read: it takes
far more than we write, keeps a header in memory however long that says it is, and its extraction has been broken repeatedly.
"""

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from agentainerd.model.backups import MAX_FILE_BYTES, Entry, EntryKind, damaged

BLOCK = 512
MAX_RECORDS_BYTES = 1024 * 1024
MAX_MAP_BYTES = 8 * 1024 * 1024  # of a sparse file: some 250 000 extents
END = bytes(2 * BLOCK)
PIECE_BYTES = 1024 * 1024
LINKED = "AGENTAINER.linked"
_MAGIC = b"ustar\x0000"
_FILE, _HARDLINK, _SYMLINK, _FOLDER, _RECORDS = b"0", b"1", b"2", b"5", b"x"
_FLAGS = {
    EntryKind.FILE: _FILE,
    EntryKind.HARDLINK: _HARDLINK,
    EntryKind.SYMLINK: _SYMLINK,
    EntryKind.FOLDER: _FOLDER,
}
_KINDS = {flag: kind for kind, flag in _FLAGS.items()}
_OCTAL = {7: 8**7 - 1, 11: 8**11 - 1}
_SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
_SPARSE_FOLDER = "GNUSparseFile.0"


@dataclass(frozen=True, slots=True)
class Member:
    """One header of a tar: `entry.path` is the whole name; `stored` is how many bytes follow it, without padding.

    `flag`: the type, where `entry` is None because it is none of ours.
    """

    name: str
    entry: Entry | None
    stored: int
    flag: str


def encode(entry: Entry, prefix: str = "") -> bytes:
    """Return all that stands before the data of an entry; the data is its extents, or `size` bytes, and then `padding`.

    `prefix` goes before the path, and before the target of a hard link.
    """
    name = prefix + entry.path + ("/" if entry.kind is EntryKind.FOLDER and entry.path else "")
    target = prefix + entry.target if entry.kind is EntryKind.HARDLINK else entry.target
    records: dict[str, str] = {}
    stored, table = entry.data_bytes, b""
    if entry.is_linked:
        records[LINKED] = "1"
    if entry.extents is not None:
        table = _map(entry.extents)
        stored += len(table)
        records |= {**_SPARSE, "GNU.sparse.name": name, "GNU.sparse.realsize": str(entry.size)}
        name = posixpath.join(posixpath.dirname(name), _SPARSE_FOLDER, posixpath.basename(name))
    seconds, fraction = divmod(entry.mtime_ns, 10**9)
    if fraction or not 0 <= seconds <= _OCTAL[11]:
        records["mtime"] = _decimal(entry.mtime_ns)
    for key, value, width in (("uid", entry.uid, 7), ("gid", entry.gid, 7), ("size", stored, 11)):
        if value > _OCTAL[width]:
            records[key] = str(value)
    for key, text in (("path", name), ("linkpath", target)):
        raw = _bytes(text)
        if len(raw) > 100 or not raw.isascii():
            records[key] = text
    header = _header(
        _bytes(name), _FLAGS[entry.kind], stored, mode=entry.mode, uid=entry.uid, gid=entry.gid,
        mtime=max(0, min(seconds, _OCTAL[11])), target=_bytes(target),
    )  # fmt: skip
    return (_extended(records) if records else b"") + header + table


def padding(stored: int) -> bytes:
    """Return what fills the last block of so many bytes."""
    return bytes(-stored % BLOCK)


def read_member(read: Callable[[int], bytes]) -> Member | None:
    """Return the next header, or None at the end; `read(n)` returns exactly n bytes.

    The caller reads `stored` bytes and their padding next. What is no regular file, folder or link has no entry.

    Raises:
        Failed: code BACKUP_DAMAGED; this is not a header as tar's are, or says what can't be.
    """
    block = read(BLOCK)
    if block == bytes(BLOCK):
        if read(BLOCK) != bytes(BLOCK):
            raise damaged("it goes on after its end")
        return None
    flag, records = _flag(block), {}
    if flag == _RECORDS:
        size = _number(block[124:136])
        if size > MAX_RECORDS_BYTES:
            raise damaged("a header is too long")
        records = _records(read(size + -size % BLOCK)[:size])
        block = read(BLOCK)
        flag = _flag(block)
    return _member(block, flag, records, read)


def read_data(read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    """Yield `size` bytes in pieces, then take their padding, which must be empty."""
    left = size
    while left:
        piece = read(min(left, PIECE_BYTES))
        left -= len(piece)
        yield piece
    if any(read(-size % BLOCK)):
        raise damaged("there is something between two files")


def _member(block: bytes, flag: bytes, records: dict[str, str], read: Callable[[int], bytes]) -> Member:
    stored = _whole(records["size"]) if "size" in records else _number(block[124:136])
    name = records.get("GNU.sparse.name") or records.get("path") or _text(block[345:500], block[:100])
    if flag not in _KINDS:
        return Member(name, None, stored, flag.decode("latin-1"))
    kind = _KINDS[flag]
    if stored and kind is not EntryKind.FILE:
        raise damaged(f"a {kind} has content")
    size, extents = stored, None
    if any(key.startswith("GNU.sparse.") for key in records):
        size, extents, used = _sparse(kind, records, stored, read)
        stored -= used
    if not 0 <= size <= MAX_FILE_BYTES:
        raise damaged(f"a file is said to have {size} bytes")
    entry = Entry(
        path=name,
        kind=kind,
        mode=_number(block[100:108]) & 0o7777,
        uid=_whole(records["uid"]) if "uid" in records else _number(block[108:116]),
        gid=_whole(records["gid"]) if "gid" in records else _number(block[116:124]),
        mtime_ns=_nanoseconds(records["mtime"]) if "mtime" in records else _number(block[136:148]) * 10**9,
        size=size,
        target=records.get("linkpath") or _text(b"", block[157:257]),
        extents=extents,
        is_linked=records.get(LINKED) == "1",
    )
    if "\0" in name + entry.target or max(entry.uid, entry.gid) >= 2**32:
        raise damaged("a name has a NUL, or an owner is no number of a user")
    return Member(name, entry, stored, flag.decode())


def _sparse(
    kind: EntryKind, records: dict[str, str], stored: int, read: Callable[[int], bytes]
) -> tuple[int, tuple[tuple[int, int], ...], int]:
    """Return the size of a sparse file, its extents, and how many bytes their table took."""
    known = all(records.get(key) == value for key, value in _SPARSE.items())
    if kind is not EntryKind.FILE or not known or "GNU.sparse.realsize" not in records:
        raise damaged("a sparse file is not as tar writes them")
    size, used, rest = _whole(records["GNU.sparse.realsize"]), 0, b""
    numbers: list[int] = []
    wanted = 1
    while len(numbers) < wanted:
        used += BLOCK
        if used > min(stored, MAX_MAP_BYTES):
            raise damaged("the table of a sparse file is too long")
        *lines, rest = (rest + read(BLOCK)).split(b"\n")
        numbers += [_whole(line.decode("latin-1")) for line in lines[: wanted - len(numbers)]]
        if numbers and wanted == 1:
            wanted = 1 + 2 * numbers[0]
            numbers += [_whole(line.decode("latin-1")) for line in lines[1:wanted]]
    extents, end = tuple(zip(numbers[1::2], numbers[2::2], strict=True)), 0
    for offset, length in extents:
        if offset < end:
            raise damaged("the parts of a sparse file overlap")
        end = offset + length
    if end > size or sum(length for _, length in extents) != stored - used:
        raise damaged("the parts of a sparse file are not its size")
    return size, extents, used


def _map(extents: tuple[tuple[int, int], ...]) -> bytes:
    text = b"%d\n" % len(extents) + b"".join(b"%d\n%d\n" % extent for extent in extents)
    return text + padding(len(text))


def _extended(records: dict[str, str]) -> bytes:
    if any(not _is_unicode(value) for value in records.values()):
        records = {"hdrcharset": "BINARY", **records}
    data = b"".join(_record(key, value) for key, value in records.items())
    return _header(b"././@PaxHeader", _RECORDS, len(data)) + data + padding(len(data))


def _record(key: str, value: str) -> bytes:
    body = b" " + key.encode() + b"=" + _bytes(value) + b"\n"
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return b"%d%b" % (length, body)


def _records(data: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    while data:
        length, space, _ = data.partition(b" ")
        size = _whole(length.decode("latin-1")) if space else 0
        record = data[:size]
        key, equals, value = record[len(length) + 1 :].partition(b"=")
        if size <= len(length) or size > len(data) or not equals or not value.endswith(b"\n"):
            raise damaged("a header can't be read")
        found[key.decode("utf-8", "surrogateescape")] = value[:-1].decode("utf-8", "surrogateescape")
        data = data[size:]
    return found


def _header(
    name: bytes, flag: bytes, size: int, *, mode: int = 0o644, uid: int = 0, gid: int = 0, mtime: int = 0,
    target: bytes = b"",
) -> bytes:  # fmt: skip
    head = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            _octal(mode, 7),
            _octal(uid, 7),
            _octal(gid, 7),
            _octal(size, 11),
            _octal(mtime, 11),
            b" " * 8,
            flag,
            target[:100].ljust(100, b"\0"),
            _MAGIC,
        )
    ).ljust(BLOCK, b"\0")
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]


def _flag(block: bytes) -> bytes:
    if block[257:262] != _MAGIC[:5] or _number(block[148:156]) != sum(block[:148]) + 256 + sum(block[156:]):
        raise damaged("this is no header of a tar")
    return block[156:157]


def _octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width, min(number, _OCTAL[width]))


def _number(field: bytes) -> int:
    digits = field.strip(b" \0")
    if any(digit not in b"01234567" for digit in digits):
        raise damaged("a number in a header is none")
    return int(digits or b"0", 8)


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise damaged(f"{text[:32]!r} is not a number")
    return int(text)


def _decimal(nanoseconds: int) -> str:
    sign, whole = ("-" if nanoseconds < 0 else ""), abs(nanoseconds)
    return f"{sign}{whole // 10**9}.{whole % 10**9:09d}"


def _nanoseconds(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    seconds, _, fraction = text.removeprefix("-").partition(".")
    return sign * (_whole(seconds) * 10**9 + _whole((fraction + "0" * 9)[:9]))


def _text(prefix: bytes, field: bytes) -> str:
    name = field.partition(b"\0")[0]
    before = prefix.partition(b"\0")[0]
    return (before + b"/" + name if before else name).decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
