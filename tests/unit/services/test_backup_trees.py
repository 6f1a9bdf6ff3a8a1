"""Writing below a folder: what the archive's own checks would have refused is refused here too."""

import os

import pytest

from agentainerd.errors import AgentainerError
from agentainerd.model.backups import Entry, EntryKind, Omissions
from agentainerd.services.backup_trees import TreeWriter

ROOT = Entry(path="", kind=EntryKind.FOLDER, mode=0o755)


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "to").mkdir()
    root = os.open(tmp_path / "to", os.O_RDONLY)
    writer = TreeWriter(root, Omissions(), "v")
    writer.add(ROOT, iter(()))
    yield writer
    writer.abandon()
    os.close(root)


def entry(path, kind=EntryKind.FILE, **fields):
    return Entry(path=path, kind=kind, mode=0o644, uid=os.geteuid(), gid=os.getegid(), **fields)


@pytest.mark.parametrize("path", ["a/x", "/x", "../x"])
def test_a_name_outside_its_folder_is_refused(tree, path):
    with pytest.raises((AgentainerError, OSError)):
        tree.add(entry(path), iter(()))


def test_a_name_that_is_there_is_never_overwritten(tree, tmp_path):
    (tmp_path / "to/x").write_text("mine")
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "to/y").symlink_to(tmp_path / "precious")

    for name in ("x", "y"):
        with pytest.raises(AgentainerError) as failure:
            tree.add(entry(name, size=1), iter([b"z"]))
        assert failure.value.code == "BACKUP_DAMAGED"

    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("target", ["nothing", "a/b", "link/passwd", "link", "folder"])
def test_a_hard_link_to_anything_but_a_file_in_it_is_refused(tree, target):
    tree.add(entry("link", EntryKind.SYMLINK, target="/etc"), iter(()))
    tree.add(entry("folder", EntryKind.FOLDER), iter(()))

    with pytest.raises((AgentainerError, OSError)):
        tree.add(entry("hard", EntryKind.HARDLINK, target=target), iter(()))


def test_a_file_with_less_data_than_it_says_is_refused(tree):
    with pytest.raises(AgentainerError):
        tree.add(entry("x", size=10), iter([b"abc"]))


def test_data_is_put_where_it_was(tree, tmp_path):
    tree.add(entry("x", size=3000, extents=((10, 3), (20, 4), (2000, 1))), iter([b"ab", b"cdefg", b"h"]))

    data = (tmp_path / "to/x").read_bytes()
    assert (data[10:13], data[20:24], data[2000:2001], len(data)) == (b"abc", b"defg", b"h", 3000)
