"""Which folders of the host an agent may mount."""

import os
import socket

import pytest

from agentainerd.errors import InvalidParameter
from agentainerd.model.agents import Volume
from agentainerd.services.volumes import VolumePolicy


@pytest.fixture
def home(tmp_path):
    for name in ("state", "run", "data", "data/sub", "other"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def policy(home):
    return VolumePolicy([str(home / "state"), str(home / "run")], [])


def resolve(policy, path) -> str:
    return policy.resolve([Volume(str(path), "/data")])[0].host_path


def refusal(policy, path) -> str:
    with pytest.raises(InvalidParameter) as failure:
        resolve(policy, path)
    return failure.value.code


def test_a_folder_is_taken_and_named_volumes_are_left_alone(policy, home):
    assert resolve(policy, home / "data") == str(home / "data")
    assert policy.resolve([Volume("cache", "/cache")])[0].host_path == "cache"


@pytest.mark.parametrize("path", ["state", "state/journal", "run", "."])
def test_the_daemons_own_folders_and_those_that_hold_them_are_closed(policy, home, path):
    assert refusal(policy, home / path) == "VOLUME_DENIED"


@pytest.mark.parametrize(
    "path",
    ["/", "/etc", "/proc/1", "/sys", "/dev", "/run", "/var/run", "/var/run/docker.sock", "/boot", "/var/lib/docker"],
)
def test_folders_of_the_system_are_closed(policy, path):
    assert refusal(policy, path) in ("VOLUME_DENIED", "VOLUME_SOURCE_MISSING")


@pytest.mark.parametrize("target", ["state", "/etc", "/"])
def test_a_link_is_what_it_leads_to(policy, home, target):
    (home / "innocent").symlink_to(home / target)

    assert refusal(policy, home / "innocent") == "VOLUME_DENIED"


def test_a_link_on_the_way_is_followed_too(policy, home):
    (home / "way").symlink_to(home / "data")

    assert resolve(policy, home / "way" / "sub") == str(home / "data" / "sub")


def test_what_is_not_there_is_told(policy, home):
    assert refusal(policy, home / "none") == "VOLUME_SOURCE_MISSING"


def test_sockets_pipes_and_devices_are_closed_and_files_are_not(policy, home):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "data" / "s.sock"))
        assert refusal(policy, home / "data" / "s.sock") == "VOLUME_DENIED"
    os.mkfifo(home / "data" / "pipe")
    assert refusal(policy, home / "data" / "pipe") == "VOLUME_DENIED"
    (home / "data" / "file").write_text("x")
    assert resolve(policy, home / "data" / "file")


def test_with_roots_everything_else_is_closed(policy, home):
    policy.roots = (str(home / "data"),)

    assert resolve(policy, home / "data") == str(home / "data")
    assert resolve(policy, home / "data" / "sub") == str(home / "data" / "sub")
    assert refusal(policy, home / "other") == "VOLUME_DENIED"
    (home / "data" / "out").symlink_to(home / "other")
    assert refusal(policy, home / "data" / "out") == "VOLUME_DENIED"
    (home / "database").mkdir()
    assert refusal(policy, home / "database") == "VOLUME_DENIED"  # its name only begins like a root's
