import pytest

from agentainerd.errors import Failed
from agentainerd.store import aof

COMMAND = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n"


@pytest.fixture
def journal(tmp_path):
    folder = tmp_path / "journal" / "appendonlydir"
    folder.mkdir(parents=True)
    (folder / "appendonly.aof.manifest").write_text(
        "file appendonly.aof.2.base.rdb seq 2 type b\n"
        "file appendonly.aof.3.incr.aof seq 3 type i\n"
        "file appendonly.aof.4.incr.aof seq 4 type i\n"
    )
    (folder / "appendonly.aof.3.incr.aof").write_bytes(COMMAND + bytes(10))
    (folder / "appendonly.aof.4.incr.aof").write_bytes(COMMAND)
    return tmp_path / "journal"


def last(journal):
    return journal / "appendonlydir" / "appendonly.aof.4.incr.aof"


def test_zero_bytes_at_the_end_of_the_last_file_are_cut_off_and_kept_aside(journal, tmp_path):
    last(journal).write_bytes(COMMAND + bytes(200_000))

    assert aof.repair(journal, tmp_path / "aside") == 200_000

    assert last(journal).read_bytes() == COMMAND
    [copy] = (tmp_path / "aside").iterdir()
    assert copy.read_bytes() == COMMAND + bytes(200_000)


def test_file_of_nothing_but_zero_bytes_is_emptied(journal, tmp_path):
    last(journal).write_bytes(bytes(100_000))

    assert aof.repair(journal, tmp_path / "aside") == 100_000
    assert last(journal).read_bytes() == b""


def test_whole_file_is_left_alone(journal, tmp_path):
    assert aof.repair(journal, tmp_path / "aside") == 0
    assert not (tmp_path / "aside").exists()
    earlier = journal / "appendonlydir" / "appendonly.aof.3.incr.aof"
    assert earlier.read_bytes() == COMMAND + bytes(10), "only the last file can have been cut off"


def test_files_without_their_list_are_damage(journal, tmp_path):
    aof.manifest(journal).unlink()

    with pytest.raises(Failed) as error:
        aof.repair(journal, tmp_path / "aside")

    assert error.value.code == "JOURNAL_DAMAGED"


def test_new_folder_has_nothing_to_repair(tmp_path):
    assert aof.repair(tmp_path, tmp_path / "aside") == 0
