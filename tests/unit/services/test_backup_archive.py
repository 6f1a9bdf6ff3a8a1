"""Archives: what is written comes back, and what is anything else is refused."""

import gzip
import io
import os
import time

import msgspec
import pytest

from agentainerd.errors import AgentainerError
from agentainerd.model.agents import AgentSpec
from agentainerd.model.backups import FORMAT, BackedAgent, BackedVolume, Entry, EntryKind, Manifest
from agentainerd.services.backup_archive import ArchiveReader, ArchiveWriter
from agentainerd.services.backup_progress import Cancelled, Watch
from agentainerd.services.backup_tar import END, encode, padding

MANIFEST = Manifest(
    format=FORMAT,
    id="backup-1763712345-3fa91c",
    name="daily",
    created_at=1763712345.5,
    version="0",
    host="here",
    volumes=(BackedVolume("/srv/a"), BackedVolume("named")),
    has_requests=True,
)
ROOT = Entry(path="", kind=EntryKind.FOLDER, mode=0o755, mtime_ns=1)


def file(path, data=b"", **fields):
    return Entry(path=path, kind=EntryKind.FILE, mode=0o600, size=len(data), **fields), data


def written(entries, manifest=MANIFEST):
    """`entries`: (volume, entry, data)."""
    out = io.BytesIO()
    archive = ArchiveWriter(out.write, manifest, Watch())
    for number, entry, data in entries:
        archive.add(number, entry, iter([data] if data else []))
    contents = archive.finish()
    return out.getvalue(), contents


def read(data, watch=None):
    reader = ArchiveReader(io.BytesIO(data), watch or Watch())
    found = [(number, entry, b"".join(pieces)) for number, entry, pieces in reader.entries()]
    return reader, found


def refusal(data):
    with pytest.raises(AgentainerError) as failure:
        read(data)
    assert failure.value.code == "BACKUP_DAMAGED"
    return failure.value.message


def test_what_is_written_comes_back():
    long = "ä" * 100 + "/" + "b" * 200
    entries = [
        (0, ROOT, b""),
        (0, *file("a", b"x" * 1000, uid=2**31, gid=3_000_000, mtime_ns=-1_500_000_000, is_linked=True)),
        (0, Entry(path="b", kind=EntryKind.HARDLINK, target="a"), b""),
        (0, Entry(path="c", kind=EntryKind.SYMLINK, mode=0o777, target="/../x" * 50, mtime_ns=1_500_000_001), b""),
        (0, Entry(path=long.partition("/")[0], kind=EntryKind.FOLDER, mode=0o1777), b""),
        (0, *file(long, b"y")),
        (0, Entry(path="\udcff\n", kind=EntryKind.FILE, mode=0o600), b""),
        (0, Entry(path="holes", kind=EntryKind.FILE, mode=0o600, size=2**40, extents=((7, 3), (2**39, 2))), b"abcde"),
        (0, Entry(path="all hole", kind=EntryKind.FILE, mode=0o600, size=9, extents=()), b""),
        (1, ROOT, b""),
    ]
    data, contents = written(entries)

    reader, found = read(data)

    assert found == entries
    assert reader.manifest == MANIFEST
    assert reader.contents == contents
    assert (contents.entries, contents.files, contents.data_bytes) == (10, 5, 1006)


def test_a_file_that_became_shorter_is_filled_with_zeros():
    out = io.BytesIO()
    archive = ArchiveWriter(out.write, MANIFEST, Watch())
    archive.add(0, ROOT)
    archive.add(0, Entry(path="a", kind=EntryKind.FILE, size=10), iter([b"abc"]))
    archive.finish()

    assert read(out.getvalue())[1][1][2] == b"abc" + bytes(7)


def test_data_that_is_not_taken_is_skipped():
    data, _ = written([(0, ROOT, b""), (0, *file("a", b"x" * 5_000_000)), (0, *file("b", b"y"))])
    reader = ArchiveReader(io.BytesIO(data), Watch())

    assert [entry.path for _, entry, _ in reader.entries()] == ["", "a", "b"]
    assert reader.contents is not None


def test_requests_come_back():
    out = io.BytesIO()
    archive = ArchiveWriter(out.write, MANIFEST, Watch())
    for number in range(3):
        archive.add_request(b"%d" % number)
    assert archive.finish().requests == 3
    out.seek(0)

    assert list(ArchiveReader(out, Watch()).requests()) == [b"0", b"1", b"2"]
    out.seek(0)
    assert list(ArchiveReader(out, Watch()).entries()) == []


def test_it_ends_where_it_is_not_wanted_any_more():
    watch = Watch()
    watch.cancelled = True

    with pytest.raises(Cancelled):
        read(written([(0, ROOT, b"")])[0], watch)


def test_every_changed_byte_shows():
    data, _ = written([(0, ROOT, b""), (0, *file("a", b"x" * 600))])
    reader, right = read(data)

    for at in range(10, len(data)):
        changed = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        try:
            again, found = read(changed)
        except AgentainerError:
            continue
        assert (again.manifest, found) == (reader.manifest, right)  # bits of gzip that mean nothing, or the same


def test_every_cut_shows():
    data, _ = written([(0, ROOT, b""), (0, *file("a", b"x" * 600))])

    for end in range(0, len(data)):
        refusal(data[:end])
    refusal(data + b"\0")
    refusal(data + data)


def test_a_later_version_says_so():
    data, _ = written([], msgspec.structs.replace(MANIFEST, format=FORMAT + 1))

    with pytest.raises(AgentainerError) as failure:
        read(data)

    assert failure.value.code == "BACKUP_TOO_NEW"


def test_settings_of_a_later_version_say_so_too():
    agent = BackedAgent("agent-" + "0" * 16, AgentSpec(name="web", image="echo"))
    data, _ = written([], msgspec.structs.replace(MANIFEST, agents=(agent,)))
    whole = gzip.decompress(data)
    changed = whole.replace(b'"env_vars"', b'"new_vars"')

    with pytest.raises(AgentainerError) as failure:
        read(gzip.compress(changed))

    assert failure.value.code == "BACKUP_TOO_NEW"
    assert "new_vars" in failure.value.message


def forge(*members, manifest=MANIFEST):
    """A whole archive with a right checksum of whatever is given: entries (volume, entry, data) or raw bytes."""
    out = io.BytesIO()
    archive = ArchiveWriter(out.write, manifest, Watch())
    for member in members:
        if isinstance(member, bytes):
            archive._put(member)
            archive._entries += 1
        else:
            archive.add(*member[:2], iter([member[2]] if member[2] else []))
    archive.finish()
    return out.getvalue()


def raw(name, flag=b"0", *, data=b"", target="", mode=0o644, size=None):
    """A member as a stranger would write it."""
    entry = Entry(path=name, kind=EntryKind.FILE, mode=mode, size=len(data) if size is None else size, target=target)
    head = bytearray(encode(entry))
    head[-512:] = head[-512:-356] + flag + head[-355:]
    head[-364:-356] = b" " * 8
    head[-364:-356] = b"%06o\0 " % sum(head[-512:])
    return bytes(head) + data + padding(len(data))


def folder(path):
    return 0, Entry(path=path, kind=EntryKind.FOLDER, mode=0o755), b""


def link(path, target, kind=EntryKind.SYMLINK):
    return 0, Entry(path=path, kind=kind, mode=0o777, target=target), b""


TOP = (0, ROOT, b"")
HOSTILE = {
    "an absolute path": [TOP, raw("/etc/cron.d/x", data=b"x")],
    "a path that begins with a slash": [TOP, (0, *file("/x"))],
    "an absolute path in a volume": [TOP, (0, *file("/etc/x"))],
    "a path that climbs": [TOP, (0, *file("../x"))],
    "a path that climbs from below": [TOP, folder("a"), (0, *file("a/../../x"))],
    "a dot": [TOP, (0, *file("./x"))],
    "an empty component": [TOP, folder("a"), (0, *file("a//x"))],
    "a file below a symlink": [TOP, link("a", "/etc"), (0, *file("a/x"))],
    "a file below a file": [TOP, (0, *file("a")), (0, *file("a/x"))],
    "a symlink over a folder": [TOP, folder("a"), link("a", "/etc"), (0, *file("a/x"))],
    "a name twice": [TOP, (0, *file("a")), (0, *file("a"))],
    "a folder entered again": [TOP, folder("a"), folder("b"), (0, *file("a/x"))],
    "a hard link to a host's file": [TOP, link("a", "/etc/shadow", EntryKind.HARDLINK)],
    "a hard link that climbs": [TOP, link("a", "../../etc/shadow", EntryKind.HARDLINK)],
    "a hard link out of its volume": [TOP, raw("volumes/0/a", b"1", target="/etc/shadow")],
    "a hard link to a symlink": [TOP, link("a", "/etc/shadow"), link("b", "a", EntryKind.HARDLINK)],
    "a hard link to what comes later": [TOP, link("a", "b", EntryKind.HARDLINK), (0, *file("b", is_linked=True))],
    "a character device": [TOP, raw("volumes/0/a", b"3")],
    "a block device": [TOP, raw("volumes/0/a", b"4")],
    "a pipe": [TOP, raw("volumes/0/a", b"6")],
    "a set-uid file": [TOP, raw("volumes/0/a", mode=0o4755)],
    "a set-gid file": [TOP, raw("volumes/0/a", mode=0o2755)],
    "a global header": [TOP, raw("volumes/0/a", b"g")],
    "a GNU long name": [TOP, raw("././@LongLink", b"L", data=b"volumes/0/a\0")],
    "a type of the future": [TOP, raw("volumes/0/a", b"7")],
    "a member beside the volumes": [TOP, raw("etc/passwd")],
    "a volume that the manifest does not have": [TOP, raw("volumes/2/", b"5")],
    "a volume written as another number": [raw("volumes/00/", b"5")],
    "a negative volume": [raw("volumes/-1/", b"5")],
    "volumes in another order": [(1, ROOT, b""), TOP],
    "a volume without its root": [(0, *file("a"))],
    "a root that is a symlink": [(0, Entry(path="", kind=EntryKind.SYMLINK, target="/etc"), b"")],
    "two roots": [TOP, TOP],
    "a component that is too long": [TOP, (0, *file("x" * 256))],
    "folders that are too deep": [TOP, *[folder("/".join("d" * depth)) for depth in range(1, 67)]],
    "a symlink to nothing": [TOP, link("a", "")],
    "a symlink that is too long": [TOP, link("a", "x" * 4096)],
    "a manifest in the middle": [TOP, raw("manifest.json", data=b"{}")],
    "an end in the middle": [TOP, raw("contents.json", data=b"{}")],
    "requests in another order": [raw("requests/1", data=b"x")],
    "requests behind the volumes": [TOP, raw("requests/0", data=b"x")],
    "a file of a petabyte": [TOP, (0, Entry(path="a", kind=EntryKind.FILE, size=2**50, extents=()), b"")],
    "two ends of a tar": [TOP, END],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused(case):
    refusal(forge(*HOSTILE[case]))


@pytest.mark.parametrize(
    "table",
    [b"1\n5\n", b"x\n", b"2\n0\n5\n3\n5\n", b"1\n-1\n5\n", b"1\n0\n999999999999999999999\n", b"999999999\n", b"", b"1\n0\n500\n"],
)  # fmt: skip
def test_a_sparse_file_with_a_wrong_table_is_refused(table):
    good = encode(Entry(path="volumes/0/a", kind=EntryKind.FILE, size=10, extents=((0, 5),)))
    member = good[:-512] + table.ljust(512, b"\0") + b"12345".ljust(512, b"\0")

    refusal(forge(TOP, member))


def test_a_header_of_gigabytes_is_not_read():
    member = raw("././@PaxHeader", b"x", size=2**32)

    assert "too long" in refusal(forge(TOP, member))


def test_a_bomb_of_zeros_is_read_in_bounded_memory():
    import tracemalloc

    size = 256 * 2**20
    out = io.BytesIO()
    archive = ArchiveWriter(out.write, MANIFEST, Watch())
    archive.add(0, ROOT)
    archive.add(0, Entry(path="a", kind=EntryKind.FILE, size=size))
    archive.finish()
    out.seek(0)
    tracemalloc.start()
    try:
        list(ArchiveReader(out, Watch()).entries())
        assert tracemalloc.get_traced_memory()[1] < 12 * 2**20
    finally:
        tracemalloc.stop()


def test_what_does_not_get_smaller_is_stored_and_all_else_compressed():
    noise, text = os.urandom(3_000_000), b"again and again " * 200_000

    data, _ = written([(0, ROOT, b""), (0, *file("noise", noise)), (0, *file("text", text))])

    assert 3_000_000 < len(data) < 3_000_000 + 200_000
    assert gzip.decompress(data)  # one gzip file, to anybody
    assert [each[2] for each in read(data)[1][1:]] == [noise, text]


def test_one_part_is_as_good_as_many():
    data, _ = written([(0, ROOT, b""), (0, *file("noise", os.urandom(3_000_000)))])

    assert read(gzip.compress(gzip.decompress(data)))[1] == read(data)[1]


def test_a_file_of_too_many_parts_is_refused_at_once():
    data, _ = written([(0, ROOT, b""), (0, *file("a", b"x" * 1000))])
    whole = gzip.decompress(data)

    assert "parts" in refusal(b"".join(gzip.compress(whole[at : at + 100]) for at in range(0, len(whole), 100)))
    assert "parts" in refusal(gzip.compress(b"") * 1000 + data)


def test_what_is_no_archive_is_refused():
    began = time.monotonic()
    for data in (
        b"",
        b"x",
        b"PK\3\4" + bytes(1000),
        gzip.compress(b""),
        gzip.compress(b"x" * 512),
        gzip.compress(bytes(9999)),
    ):
        refusal(data)
    assert time.monotonic() - began < 5
