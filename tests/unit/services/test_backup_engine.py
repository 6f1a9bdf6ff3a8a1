"""Volumes that only the engine gets to: as the daemon under systemd, which is not root."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from agentainerd.errors import AgentainerError, Unavailable
from agentainerd.model.backups import BackedVolume, Omissions
from agentainerd.services.backup_places import VolumePlan
from agentainerd.services.backup_plans import RestoreOptions
from agentainerd.services.backups import BackupOptions
from tests.fakes.containers import FakeStream
from tests.fakes.volumes import fill, look
from tests.fakes.world import ADMIN

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners are root's to set")


@pytest.fixture
def outside(world):
    """A daemon that is not root."""
    world.services.backups._places.is_direct = False
    return world


def outcome(job):
    *_, last = list(job)
    job.close()
    return last["result"]


def create(world, **options):
    return outcome(world.services.backups.create(BackupOptions("daily", **options), ADMIN))


def restore(world, **options):
    return outcome(world.services.restores.restore("daily", RestoreOptions(**options), ADMIN))


def seen(folder):
    """What the engine keeps of a folder: times have whole seconds (of links none, in the fake), holes are filled."""
    return {
        name: (
            mode,
            uid,
            gid,
            0 if isinstance(content, str) else mtime // 10**9,
            links,
            content[0] if isinstance(content, tuple) else content,
        )
        for name, (mode, uid, gid, mtime, links, content) in look(folder).items()
    }


@pytest.fixture
def data(tmp_path):
    folder = fill(tmp_path / "data")
    (folder / "socket").unlink()
    os.utime(folder / "empty", ns=(0, 10**9))  # what was before 1970 is the fake engine's weakness
    return folder


@pytest.fixture
def web(outside, data):
    outside.engine.create_volume("cache")
    Path(outside.engine.volume_folder("cache"), "warm").write_text("yes")
    return outside.deploy(
        volumes=[
            {"host_path": str(data), "container_path": "/data"}, {"host_path": "cache", "container_path": "/cache"},
        ]
    )  # fmt: skip


@as_root
def test_a_mix_of_everything_comes_back_or_is_named(outside, web, data):
    made = create(outside)
    assert [(each["path"], each["reason"]) for each in made["omissions"]] == [("pipe", "a pipe (FIFO) is not kept")]

    places = [volume["destination"] for volume in restore(outside)["volumes"]]

    assert seen(Path(places[0])) == seen(data)
    assert Path(outside.engine.volume_folder(places[1]), "warm").read_text() == "yes"
    assert outside.engine.calls["read_volume"] == 2
    assert outside.engine.calls["write_volume"] == 2


@as_root
def test_in_place_what_can_not_be_removed_is_named(outside, web, data):
    create(outside)
    before = seen(data)
    (data / "plain").write_text("spoilt")
    (data / "new").write_text("came later")

    done = restore(outside, in_place=True)

    assert ("new", "is not in the backup, and could not be removed") in [
        (each["path"], each["reason"]) for each in done["omissions"]
    ]
    (data / "new").unlink()
    os.utime(data, ns=(0, before["."][3] * 10**9))
    assert seen(data) == before


def test_what_is_in_use_is_said_to_be(outside, web):
    outside.services.agents.start("web", ADMIN, wait_s=5)

    assert sum("was in use" in each["reason"] for each in create(outside)["omissions"]) == 2
    assert not any("was in use" in each["reason"] for each in create(outside, pause=True)["omissions"])


def test_a_file_is_a_volume_too(outside, tmp_path):
    path = tmp_path / "settings.ini"
    path.write_text("before")
    outside.deploy(volumes=[{"host_path": str(path), "container_path": "/settings.ini"}])
    create(outside)

    copy = restore(outside)["volumes"][0]["destination"]
    path.write_text("after")
    restore(outside, in_place=True)

    assert Path(copy).read_text() == path.read_text() == "before"


def test_a_volume_that_is_not_there_is_named(outside):
    outside.deploy(volumes=[{"host_path": "never", "container_path": "/data"}])

    assert [each["reason"] for each in create(outside)["omissions"]] == ["there is no such volume (yet)"]


def odd_tar():
    """What no folder of a test can have: links to links, a device, a set-uid file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, target, mode in (
            (".", tarfile.DIRTYPE, "", 0o755),
            ("./a", tarfile.SYMTYPE, "/x", 0o777),
            ("./b", tarfile.LNKTYPE, "./a", 0o777),
            ("./c", tarfile.CHRTYPE, "", 0o600),
            ("./d", tarfile.LNKTYPE, "./c", 0o600),
            ("./e", tarfile.REGTYPE, "", 0o4755),
            ("./f", tarfile.LNKTYPE, "./e", 0o4755),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode = kind, target, mode
            archive.addfile(member)
    return packed.getvalue()


def test_odd_things_are_kept_or_named(outside, web, monkeypatch):
    monkeypatch.setattr(type(outside.engine), "read_volume", lambda *_given: FakeStream(iter([odd_tar()])))

    made = create(outside)

    reasons = {each["path"]: each["reason"] for each in made["omissions"] if each["where"] == "cache"}
    assert reasons == {
        "c": "a device is not kept",
        "d": "it is another name of what is not kept",
        "e": "its set-uid or set-gid bit is not kept",
        "f": "its set-uid or set-gid bit is not kept",
    }
    outcome(outside.services.backups.verify("daily"))


@pytest.mark.parametrize("at", [100, 512, 1300, 2048])
def test_an_engine_that_breaks_off_is_an_error(outside, web, monkeypatch, at):
    monkeypatch.setattr(type(outside.engine), "read_volume", lambda *_given: FakeStream(iter([odd_tar()[:at]])))

    with pytest.raises(Unavailable):
        create(outside)

    assert os.listdir(outside.state_dir / "backups") == []


def test_an_engine_that_goes_away_is_told_by_its_own_words(outside, web, monkeypatch):
    def dies():
        yield odd_tar()[:700]
        raise Unavailable("the engine was stopped")

    monkeypatch.setattr(type(outside.engine), "read_volume", lambda *_given: FakeStream(dies()))

    with pytest.raises(Unavailable) as failure:
        create(outside)

    assert failure.value.message == "the engine was stopped"


def test_a_volume_that_can_not_be_written_is_half_written_and_says_so(outside, web, monkeypatch):
    create(outside)

    def full(self, source, image, tar):
        next(tar)
        raise Unavailable("the engine has no space left")

    monkeypatch.setattr(type(outside.engine), "write_volume", full)

    with pytest.raises(AgentainerError) as failure:
        restore(outside)

    assert "is half written: the engine has no space left" in failure.value.message
    assert [agent.name for agent in outside.agents.all()] == ["web"]
    assert set(outside.engine._volumes) == {"cache"}


def test_what_was_never_begun_leaves_nothing_to_remove(outside, tmp_path):
    place = VolumePlan(0, BackedVolume("/srv/a"), str(tmp_path / "new"), is_new=True, image="echo")

    outside.services.backups._places.target(place, "m", Omissions()).abandon()

    assert outside.engine.calls["write_volume"] == 0
