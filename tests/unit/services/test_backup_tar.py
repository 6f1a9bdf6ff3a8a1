"""The tar of a backup, as the rest of the world sees it."""

import io
import tarfile

import pytest

from agentainerd.errors import AgentainerError
from agentainerd.model.backups import Entry, EntryKind
from agentainerd.services.backup_tar import END, encode, padding, read_data, read_member


def test_python_reads_what_is_written():
    files = [
        Entry(path="a" * 150 + "/ä", kind=EntryKind.FILE, mode=0o640, uid=5_000_000, gid=7, mtime_ns=1_500_000_001, size=3),
        Entry(path="link", kind=EntryKind.SYMLINK, mode=0o777, target="t" * 300),
        Entry(path="folder", kind=EntryKind.FOLDER, mode=0o1777),
        Entry(path="holes", kind=EntryKind.FILE, mode=0o600, size=2000, extents=((0, 1), (1500, 2))),
    ]  # fmt: skip
    data = b"".join(
        encode(entry, "in/") + b"xyz"[: entry.data_bytes].ljust(entry.data_bytes) + padding(entry.data_bytes)
        for entry in files
    )

    with tarfile.open(fileobj=io.BytesIO(data + END)) as archive:
        found = archive.getmembers()
        holes = archive.extractfile(found[3]).read()

    assert [member.name for member in found] == ["in/" + entry.path for entry in files]
    assert (found[0].uid, found[0].mode, found[0].size, found[0].mtime) == (5_000_000, 0o640, 3, 1.500000001)
    assert found[1].linkname == "t" * 300
    assert (len(holes), holes[0:1], holes[1500:1502]) == (2000, b"x", b"yz")


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_what_others_write_is_read(form):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, kind in (
            ("a", tarfile.REGTYPE),
            ("b", tarfile.DIRTYPE),
            ("p" * 90 + "/" + "q" * 90, tarfile.REGTYPE),
            ("f", tarfile.FIFOTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.mtime, member.uid = kind, 77, 12
            member.size = 3 if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(b"abc"))
    source, found = io.BytesIO(out.getvalue()), []

    while member := read_member(source.read):
        found.append((member.name.rstrip("/"), member.flag, b"".join(read_data(source.read, member.stored))))

    assert found == [("a", "0", b"abc"), ("b", "5", b""), ("p" * 90 + "/" + "q" * 90, "0", b"abc"), ("f", "6", b"")]


@pytest.mark.parametrize(
    "block",
    [
        b"x" * 512,
        bytes(511) + b"x",
        encode(Entry(path="a", kind=EntryKind.FILE))[:100] + b"9999999\0" + encode(Entry(path="a", kind=EntryKind.FILE))[108:],
    ],
)  # fmt: skip
def test_what_is_no_header_is_refused(block):
    with pytest.raises(AgentainerError):
        read_member(io.BytesIO(block + bytes(2048)).read)


@pytest.mark.parametrize("record", [b"5 a=b\n", b"99 a=b\n", b"x a=b\n", b"6 a=b\n6", b"3\na\n", b"6 aab\n"])
def test_records_that_are_none_are_refused(record):
    head = bytearray(encode(Entry(path="x", kind=EntryKind.FILE, size=len(record))))
    head[156:157] = b"x"
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)

    with pytest.raises(AgentainerError):
        read_member(io.BytesIO(bytes(head) + record.ljust(512, b"\0") + bytes(2048)).read)
