"""Accepting a loss where there is little to accept; what it does to a journal is in test_guard.py."""

import shutil

import pytest

from agentainerd.errors import Failed, Unavailable
from agentainerd.store import aof, losses, marks
from agentainerd.store.marks import Mark

pytestmark = pytest.mark.redis
MARK = Mark("0123456789abcdef" * 2, 3, 4)


def never():
    pytest.fail("there is no own server to look for")


def test_folder_without_a_journal_has_nothing_to_accept(tmp_path):
    assert list(losses.accept(tmp_path, never)) == []


def test_journal_of_an_external_server_is_its_mark_alone(tmp_path):
    marks.write(tmp_path, MARK)

    [said] = losses.accept(tmp_path, never)

    assert marks.read(tmp_path) is None
    [aside] = (tmp_path / aof.ASIDE).iterdir()
    assert str(aside) in said
    assert "epoch 3 batch 4" in aside.read_text()


def test_mark_that_is_damaged_itself_is_given_up(tmp_path):
    marks.path(tmp_path).write_text("nonsense")

    assert list(losses.accept(tmp_path, never))
    assert marks.read(tmp_path) is None


def test_folder_that_can_not_be_written_is_said(tmp_path):
    marks.write(tmp_path, MARK)
    (tmp_path / aof.ASIDE).write_text("a file is in the way")

    with pytest.raises(Unavailable) as error:
        list(losses.accept(tmp_path, never))

    assert error.value.code == "STATE_NOT_WRITABLE"
    assert marks.read(tmp_path) == MARK


def test_server_that_does_not_start_is_no_reason_to_give_anything_up(host):
    host.start().accept()
    host.stop()

    with pytest.raises(Failed) as error:
        list(losses.accept(host.state, lambda: shutil.which("false")))

    assert error.value.code == "REDIS_START_FAILED"
    assert marks.read(host.state) is not None
    assert aof.manifest(host.journal_dir).exists()
