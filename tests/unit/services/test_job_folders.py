"""Folders of jobs: what was sent, fresh for each attempt; what a container leaves in one is not believed."""

import os
import stat

import pytest

from agentainerd.errors import Unavailable
from agentainerd.model.jobs import JobFile
from agentainerd.services.job_folders import JobFolders

JOB = "0f8fad5b-d9cb-469f-a165-70867728950e"
OTHER = "7c9e6679-7425-40de-944b-e07fc1f90ae7"


@pytest.fixture
def folders(tmp_path):
    made = JobFolders(str(tmp_path / "jobs"))
    made.open()
    return made


def test_each_attempt_has_what_was_sent_and_nothing_of_the_one_before(folders):
    folders.keep(JOB, [JobFile("in/a.txt", b"1\0"), JobFile("b", b"2")])
    first = folders.prepare(JOB, "do \ud800 it")
    (first / "b").write_bytes(b"changed")
    (first / "output" / "left").write_bytes(b"")

    again = folders.prepare(JOB, "do it")

    assert again == first == folders.workspace(JOB)
    assert (again / "in/a.txt").read_bytes() == b"1\0"
    assert (again / "b").read_bytes() == b"2"
    assert (again / ".job/prompt.txt").read_text() == "do it"
    assert os.listdir(folders.output(JOB)) == []
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in (again, again / "in", again / "b", again / "output")
    }
    assert modes == {"workspace": 0o777, "in": 0o777, "b": 0o666, "output": 0o777}
    assert stat.S_IMODE(folders.root.stat().st_mode) == 0o700


def test_a_folder_that_stood_ready_becomes_a_jobs_and_stays_the_same_one(folders):
    warm = folders.prepare(OTHER, "")
    folders.keep(JOB, [JobFile("a", b"1")])
    inode = warm.stat().st_ino

    folders.adopt(OTHER, JOB, "do it")

    assert folders.workspace(JOB).stat().st_ino == inode
    assert (folders.workspace(JOB) / "a").read_bytes() == b"1"
    assert (folders.workspace(JOB) / ".job/prompt.txt").read_text() == "do it"
    assert folders.ids() == [JOB]


def test_what_is_measured_is_what_it_takes_and_no_link_is_followed(folders, tmp_path):
    large = tmp_path / "large"
    large.mkdir()
    (large / "x").write_bytes(b"x" * 2**20)
    workspace = folders.prepare(JOB, "")
    os.symlink(large, workspace / "link")
    os.mkfifo(workspace / "pipe")
    os.truncate(os.open(workspace / "sparse", os.O_CREAT | os.O_RDWR), 2**40)
    assert folders.measure(JOB) < 2**20
    (workspace / "y").write_bytes(b"y" * 2**20)

    assert 2**20 <= folders.measure(JOB) < 2**21
    assert folders.measure(JOB, limit=4096) < 2**20 + 2**16


def test_a_folder_goes_whole_and_nothing_that_it_points_to(folders, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "x").write_bytes(b"")
    workspace = folders.prepare(JOB, "")
    os.symlink(kept, workspace / "output" / "link")
    (workspace / "closed").mkdir(mode=0)

    folders.remove(JOB)
    folders.remove(JOB)

    assert folders.ids() == []
    assert (kept / "x").exists()


def test_only_folders_of_jobs_are_ours_and_a_root_of_another_is_refused(folders, tmp_path):
    (folders.root / "mine").mkdir()
    folders.prepare(JOB, "")
    assert folders.ids() == [JOB]
    os.symlink(tmp_path, tmp_path / "link")

    with pytest.raises(Unavailable, match="is not a folder of this user"):
        JobFolders(str(tmp_path / "link")).open()


def test_files_that_can_not_be_kept_leave_nothing(folders):
    with pytest.raises(OSError, match="exists|directory"):
        folders.keep(JOB, [JobFile("a", b"1"), JobFile("a/b", b"2")])

    assert folders.ids() == []
