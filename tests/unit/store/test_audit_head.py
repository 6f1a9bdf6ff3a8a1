"""The key and the last link of the audit log's chain."""

import pytest

from agentainerd.model.audit import Link
from agentainerd.store.audit_head import ChainHead

LINK = Link(7, "ab" * 16)


@pytest.fixture
def head(tmp_path):
    made = ChainHead(str(tmp_path))
    assert made.open() is False
    return made


def test_the_last_link_comes_back_also_after_a_restart(head, tmp_path):
    assert (head.is_there, head.read()) == (False, None)

    head.write(Link(6, "cd" * 16))
    head.write(LINK)

    again = ChainHead(str(tmp_path))
    assert again.open() is False
    assert (again.is_there, again.read(), again.key) == (True, LINK, head.key)


def test_writing_it_changes_no_length(head, tmp_path):
    sizes = set()
    for seq in (1, 99, 10**11):
        head.write(Link(seq, "ab" * 16))
        sizes.add((tmp_path / "audit.head").stat().st_size)

    assert len(sizes) == 1


@pytest.mark.parametrize("text", ["", "7", "000000000007 " + "ab" * 16 + " " + "0" * 64, "x y z", "7 7 é", "\0" * 111])
def test_what_nobody_with_the_key_wrote_is_none(head, tmp_path, text):
    head.write(LINK)
    (tmp_path / "audit.head").write_text(text)

    assert head.read() is None


def test_a_link_that_was_cut_or_changed_is_none(head, tmp_path):
    head.write(LINK)
    path = tmp_path / "audit.head"
    whole = path.read_text()
    for text in (whole.replace("000000000007", "000000000006"), whole[:60], whole.replace("abab", "abac", 1)):
        path.write_text(text)
        assert head.read() is None


def test_a_key_that_is_gone_is_told_where_there_was_a_chain(head, tmp_path):
    head.write(LINK)
    (tmp_path / "audit.key").unlink()

    again = ChainHead(str(tmp_path))

    assert again.open() is True
    assert again.read() is None
    assert oct((tmp_path / "audit.key").stat().st_mode & 0o777) == "0o600"
