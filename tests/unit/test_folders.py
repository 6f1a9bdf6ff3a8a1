import os
import stat
import subprocess
import sys

import pytest

from agentainerd.errors import Unavailable
from agentainerd.folders import FolderLock, prepare_runtime, prepare_state


def mode_of(path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_the_state_folder_is_made_closed_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        prepare_state(str(tmp_path / "a" / "state"))
    finally:
        os.umask(before)

    assert mode_of(tmp_path / "a" / "state") == 0o700


def test_the_runtime_folder_lets_a_group_through_only_for_root(tmp_path, monkeypatch):
    me = os.geteuid()
    before = os.umask(0o077)
    try:
        monkeypatch.setattr("os.geteuid", lambda: 0)
        prepare_runtime(str(tmp_path / "root"))
        if me == 0:
            monkeypatch.setattr("os.geteuid", lambda: 1000)
            os.mkdir(tmp_path / "own", 0o700)
            os.chown(tmp_path / "own", 1000, -1)
            prepare_runtime(str(tmp_path / "own"))
    finally:
        os.umask(before)

    assert mode_of(tmp_path / "root") == 0o755


def test_a_folder_that_is_there_keeps_its_mode_and_is_complained_about(tmp_path, caplog):
    (tmp_path / "state").mkdir(mode=0o755)

    prepare_state(str(tmp_path / "state"))

    assert mode_of(tmp_path / "state") == 0o755
    assert "others can look into the state folder" in caplog.text


def test_a_folder_that_others_can_write_in_is_refused(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)

    with pytest.raises(Unavailable, match=r"others can write in it \(mode 0777\)") as failure:
        prepare_runtime(str(tmp_path / "state"))

    assert "--runtime-dir" in failure.value.hint


def test_a_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    (tmp_path / "state").mkdir()
    owner = os.stat(tmp_path / "state").st_uid
    if owner == 0:
        os.chown(tmp_path / "state", 4321, -1)
        owner = 4321
    else:
        monkeypatch.setattr("os.geteuid", lambda: owner + 1)

    with pytest.raises(Unavailable, match=f"it belongs to uid {owner}"):
        prepare_state(str(tmp_path / "state"))


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "state").write_text("x")

    with pytest.raises(Unavailable, match="it is not a folder"):
        prepare_state(str(tmp_path / "state"))

    with pytest.raises(Unavailable, match="cannot be used: File exists"):
        prepare_state(str(tmp_path / "state" / "below"))


def test_one_folder_has_one_lock(tmp_path):
    first = FolderLock(str(tmp_path), "state")

    with pytest.raises(Unavailable) as failure:
        FolderLock(str(tmp_path), "state")

    assert failure.value.code == "ALREADY_RUNNING"
    assert f"the state folder {tmp_path} is in use by pid {os.getpid()} (" in failure.value.message
    first.release()
    FolderLock(str(tmp_path), "state").release()


def test_a_killed_holder_leaves_no_lock(tmp_path):
    code = "import sys; from agentainerd.folders import FolderLock; FolderLock(sys.argv[1], 'state'); print(flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        holder.stdout.readline()
        with pytest.raises(Unavailable, match=f"pid {holder.pid}"):
            FolderLock(str(tmp_path), "state")
        holder.kill()

    FolderLock(str(tmp_path), "state").release()


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    target = tmp_path / "precious"
    target.write_text("kept")
    os.symlink(target, tmp_path / "lock")

    with pytest.raises(Unavailable, match="cannot be used"):
        FolderLock(str(tmp_path), "state")

    assert target.read_text() == "kept"
