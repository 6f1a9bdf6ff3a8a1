"""Names and links: what leads elsewhere is told from what does not, by what really happens."""

import os
import tempfile

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentainerd.archives.names import escape, is_inside, member_names

RAW = st.lists(
    st.sampled_from([b".", b"\\", b"C", b":", b" ", b"%", b"\xff", b"\xc3\xa9", b"a", b"\n", b"~"]),
    min_size=1,
    max_size=6,
).map(b"".join)
PARTS = st.sampled_from([b"..", b".", b"a", b"b", b"d", b""])
TARGETS = st.lists(PARTS, min_size=1, max_size=5).map(b"/".join).filter(bool)


@given(st.sets(RAW.filter(lambda raw: raw not in (b".", b"..")), max_size=12))
def test_the_names_of_a_folder_are_different_stay_different_and_climb_for_nobody(raws):
    names = member_names(raws, is_root=True)

    assert list(names) == sorted(raws) and len(set(names.values())) == len(raws)
    for raw, name in names.items():
        parts = name.split("\\")
        assert not any(part.rstrip(" ") == ".." for part in parts)
        assert parts[0] and not name.startswith("C:")
        if name == escape(raw, is_root=False) and "%" not in name:
            assert name.encode() == raw


@pytest.mark.parametrize("raw", [b"C:x", b"\\x"])
def test_what_is_absolute_at_the_top_is_a_name_like_any_below_it(raw):
    assert escape(raw, is_root=True) != escape(raw, is_root=False) == raw.decode()


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "d/a", "d/b", "d/d/a", "d/d/b"]), TARGETS, max_size=6))
@example({"d/a": b"..", "d/b": b"a/.."})
def test_no_set_of_links_that_are_kept_leads_out(links):
    with tempfile.TemporaryDirectory() as top:
        for folder in ("out/out/out/a", "out/out/b", "out/d", "a", "out/out/out/d", "out/out/out/root/d/d"):
            os.makedirs(f"{top}/{folder}")
        root = f"{top}/out/out/out/root"
        for name, target in links.items():
            if is_inside(target, name.count("/")):
                os.symlink(target, f"{root}/{name}")
        for name in links:
            assert (where(f"{root}/{name}") + "/").startswith(root + "/")


def where(path):
    """Return what the kernel finds there; for what leads nowhere, the path."""
    try:
        descriptor = os.open(path, os.O_PATH)
    except OSError:
        return path
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("target", "depth", "kept"),
    [
        (b"x", 0, True),
        (b"../x", 1, True),
        (b"./../x", 1, True),
        (b"../x", 0, False),
        (b"x/../y", 1, False),
        (b"/x", 5, False),
        (b"..\\x", 5, False),
        (b"\xff", 0, True),
    ],
)
def test_a_link_is_kept_where_it_can_only_lead_below_the_top(target, depth, kept):
    assert is_inside(target, depth) is kept
