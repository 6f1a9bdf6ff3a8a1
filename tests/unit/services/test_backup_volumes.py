"""Which way is taken to a volume."""

import os
from pathlib import Path

import pytest

from agentainerd.errors import Unavailable
from agentainerd.model.backups import BackedVolume, Omissions
from agentainerd.services.backup_engine import EngineTarget
from agentainerd.services.backup_places import VolumePlan
from agentainerd.services.backup_volumes import FolderTarget, VolumePlaces


@pytest.fixture
def places(world):
    return world.services.backups._places


def plan(destination, is_new=True):
    return VolumePlan(0, BackedVolume("/srv/a"), destination, is_new=is_new, image="echo")


def test_a_daemon_that_is_not_root_or_not_on_the_engines_host_goes_by_the_engine(world, tmp_path):
    for is_local in (True, False):
        places = VolumePlaces(world.engine, world.services.volumes, world.supervisor.spawn, is_local=is_local)
        is_direct = is_local and os.geteuid() == 0
        kind = FolderTarget if is_direct else EngineTarget

        assert isinstance(places.target(plan(str(tmp_path / "x")), "m", Omissions()), kind)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root goes to folders itself")
def test_a_volume_whose_folder_is_not_to_be_seen_goes_by_the_engine(places, world, monkeypatch):
    world.engine.create_volume("cache")
    assert isinstance(places.target(plan("cache", is_new=False), "m", Omissions()), FolderTarget)

    monkeypatch.setattr(type(world.engine), "volume_folder", lambda *_given: "/not/on/this/host")

    assert isinstance(places.target(plan("cache", is_new=False), "m", Omissions()), EngineTarget)


def test_what_is_there(places, world, tmp_path):
    world.engine.create_volume("cache")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    (tmp_path / "empty").mkdir()

    there = [source for source in ("cache", "other", "full", "empty", "nothing")
             if places.has(source if source in ("cache", "other") else str(tmp_path / source))]  # fmt: skip

    assert there == ["cache", "full"]


def test_room_is_counted_for_each_file_system(places, tmp_path):
    plans = [
        plan(str(tmp_path / "a")),
        VolumePlan(1, BackedVolume("x"), str(tmp_path / "b"), is_new=True, image="echo"),
    ]
    places.check_room(plans, {0: 1, 1: 1})
    free = os.statvfs(Path(tmp_path)).f_bavail * os.statvfs(tmp_path).f_frsize

    with pytest.raises(Unavailable) as failure:
        places.check_room(plans, {0: free // 2 + 10**9, 1: free // 2 + 10**9})

    assert failure.value.code == "NO_SPACE"
