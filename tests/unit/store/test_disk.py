import pytest

from agentainerd.errors import Unavailable
from agentainerd.store.disk import FreeSpace


def test_enough_space_passes(tmp_path):
    FreeSpace([tmp_path], 1).check()


def test_too_little_space_says_how_much_is_missing(tmp_path):
    with pytest.raises(Unavailable) as error:
        FreeSpace([tmp_path], 2**60).check()

    assert error.value.code == "NO_SPACE"
    assert "are left of" in error.value.message


def test_file_system_is_not_asked_for_every_request(tmp_path):
    space = FreeSpace([tmp_path], 1)
    space.check()
    tmp_path.rmdir()

    space.check()
