"""Restoring on the services: beside what is there, over it, or not at all."""

import os
import shutil
from pathlib import Path

import pytest

from agentainerd.errors import AgentainerError, Conflict, InvalidParameter, NotFound, Unavailable
from agentainerd.services.backup_places import LiveFolder, NewFolder
from agentainerd.services.backup_plans import RestoreOptions
from agentainerd.services.backups import BackupOptions
from tests.fakes.volumes import fill, look
from tests.fakes.world import ADMIN
from tests.unit.services.test_backup_archive import HOSTILE, forge

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners are root's to set")


def outcome(job):
    *_, last = list(job)
    job.close()
    return last["result"]


@pytest.fixture
def data(tmp_path):
    return fill(tmp_path / "data")


@pytest.fixture
def web(world, data):
    world.engine.create_volume("cache")
    Path(world.engine.volume_folder("cache"), "warm").write_text("yes")
    return world.deploy(
        volumes=[
            {"host_path": str(data), "container_path": "/data"},
            {"host_path": "cache", "container_path": "/cache", "read_only": True},
        ],
        env_vars={"MODE": "fast"},
        cpu_limit=500_000_000,
        auto_restart=True,
    )


@pytest.fixture
def backup(world, web):
    return outcome(world.services.backups.create(BackupOptions("daily"), ADMIN))["id"]


def restore(world, ref="daily", **options):
    return outcome(world.services.restores.restore(ref, RestoreOptions(**options), ADMIN))


def refused(world, kind, **options):
    with pytest.raises(kind) as failure:
        restore(world, **options)
    return failure.value


@as_root
def test_beside_what_is_there(world, web, backup, data):
    before = look(data)

    done = restore(world)

    copy = world.agent("web-restored")
    assert done["agents"] == [{"name": "web-restored", "id": copy.id, "from": "web", "is_new": True}]
    places = [volume.host_path for volume in copy.spec.volumes]
    assert places[0].startswith(f"{data}-restored-") and places[1].startswith("cache-restored-")
    assert look(Path(places[0])) == before == look(data)
    assert Path(world.engine.volume_folder(places[1]), "warm").read_text() == "yes"
    assert (copy.spec.env_vars, copy.spec.cpu_limit, copy.spec.auto_restart) == ({"MODE": "fast"}, 500_000_000, True)
    assert copy.spec.volumes[1].read_only is True
    assert copy.state.value == "created"
    assert done["omitted"] == 2
    assert "pipe" in done["omissions"][0]["reason"] + done["omissions"][1]["reason"]


@as_root
def test_on_a_host_that_has_nothing_all_is_as_it_was(world, web, backup, data):
    before = look(data)
    world.services.agents.remove("web", ADMIN)
    shutil.rmtree(data)
    world.engine.remove_volume("cache")

    done = restore(world)

    assert [volume["destination"] for volume in done["volumes"]] == [str(data), "cache"]
    assert look(data) == before
    assert world.agent("web").spec == web.spec
    assert world.agent("web").id != web.id


def test_again_and_again_never_over_what_is_there(world, web, backup):
    names = [restore(world)["agents"][0]["name"] for _ in range(3)]

    assert names == ["web-restored", "web-restored-2", "web-restored-3"]
    assert len({agent.spec.volumes[0].host_path for agent in world.agents.all()}) == 4


@as_root
def test_in_place_everything_is_as_it_was(world, web, backup, data):
    before = look(data)
    (data / "plain").write_text("spoilt")
    (data / "new").write_text("came later")
    shutil.rmtree(data / "deep")
    os.chmod(data, 0o777)
    Path(world.engine.volume_folder("cache"), "cold").write_text("no")
    world.services.agents.remove("web", ADMIN)
    again = world.deploy(
        volumes=[
            {"host_path": str(data), "container_path": "/data"}, {"host_path": "cache", "container_path": "/cache"},
        ],
        env_vars={"MODE": "slow"},
    )  # fmt: skip

    done = restore(world, in_place=True)

    assert done["agents"] == [{"name": "web", "id": again.id, "from": "web", "is_new": False}]
    assert look(data) == before
    assert os.listdir(world.engine.volume_folder("cache")) == ["warm"]
    assert world.agent("web").spec == web.spec


def test_in_place_keeps_the_secrets_that_are_there(world, tmp_path):
    world.deploy(env_vars={"API_KEY": "hush-hush", "MODE": "fast"}, token="open-sesame")
    outcome(world.services.backups.create(BackupOptions("daily"), ADMIN))

    done = restore(world, in_place=True)

    assert done["omitted"] == 0
    spec = world.agent("web").spec
    assert (spec.env_vars, spec.token) == ({"API_KEY": "hush-hush", "MODE": "fast"}, "open-sesame")


def test_secrets_that_are_missing_are_named(world):
    world.deploy(env_vars={"API_KEY": "hush-hush"}, token="open-sesame")
    outcome(world.services.backups.create(BackupOptions("daily"), ADMIN))

    done = restore(world)

    assert [each["reason"] for each in done["omissions"]] == [
        "the value of API_KEY is not in the backup",
        "its token is not in the backup: anybody may call it",
    ]


@pytest.mark.parametrize("verb", ["start", "pause"])
def test_in_place_is_refused_while_the_agent_runs(world, web, backup, data, verb):
    world.services.agents.start("web", ADMIN, wait_s=5)
    if verb == "pause":
        world.services.agents.pause("web", ADMIN)
    before = look(data)

    assert refused(world, Conflict, in_place=True).code == "AGENT_RUNNING"

    assert look(data) == before


def test_an_empty_folder_that_an_agent_has_is_not_free(world, tmp_path):
    """Its container would go on with a folder that is not there any more."""
    folder = tmp_path / "data"
    folder.mkdir()
    world.up(volumes=[{"host_path": str(folder), "container_path": "/data"}])
    outcome(world.services.backups.create(BackupOptions("daily"), ADMIN))
    before = folder.stat().st_ino

    done = restore(world)

    assert done["volumes"][0]["destination"] != str(folder)
    assert folder.stat().st_ino == before
    assert refused(world, Conflict, in_place=True).code == "AGENT_RUNNING"


def test_in_place_a_volume_that_is_gone_is_made_again(world, web, backup, data):
    before = look(data)
    shutil.rmtree(data)
    world.engine.remove_volume("cache")

    done = restore(world, in_place=True)

    assert [volume["is_new"] for volume in done["volumes"]] == [True, True]
    assert os.listdir(world.engine.volume_folder("cache")) == ["warm"]
    if os.geteuid() == 0:
        assert look(data) == before


def test_in_place_an_empty_folder_of_another_running_agent_is_left_alone(world, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "x").write_text("x")
    volumes = [{"host_path": str(folder), "container_path": "/data"}]
    world.deploy(volumes=volumes)
    outcome(world.services.backups.create(BackupOptions("daily"), ADMIN))
    (folder / "x").unlink()
    world.up("other", volumes=volumes)

    assert refused(world, Conflict, in_place=True).code == "AGENT_RUNNING"

    assert os.listdir(folder) == []


def test_in_place_is_refused_while_another_agent_has_the_volume(world, web, backup, data):
    world.up("other", volumes=[{"host_path": str(data), "container_path": "/in"}])

    error = refused(world, Conflict, in_place=True)

    assert error.code == "AGENT_RUNNING"
    assert "other" in error.message


def test_only_the_agents_that_are_named(world, web, backup):
    world.deploy("second")
    outcome(world.services.backups.create(BackupOptions("both"), ADMIN))

    assert [agent["from"] for agent in restore(world, "both", agents=["second"])["agents"]] == ["second"]
    assert refused(world, NotFound, agents=["nobody"]).code == "AGENT_NOT_IN_BACKUP"


def test_agents_depend_on_the_restored_ones(world):
    world.deploy("db")
    world.deploy("app", dependencies=["db"])
    outcome(world.services.backups.create(BackupOptions("daily", agents=["app", "db"]), ADMIN))

    restore(world)

    assert world.agent("app-restored").spec.dependencies == ("db-restored",)


def test_a_copy_does_not_belong_to_the_deployment_of_the_first(world):
    world.deploy(deployment="stack")
    outcome(world.services.backups.create(BackupOptions("daily"), ADMIN))

    restore(world)

    assert world.agent("web-restored").spec.deployment == ""


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("case", list(HOSTILE)[:12])
def test_a_hostile_archive_that_came_into_the_folder_is_not_restored(world, web, backup, data, case, in_place):
    """Somebody has exchanged the file of a backup: nothing of it is written anywhere."""
    path = world.state_dir / "backups" / f"{backup}.tar.gz"
    manifest = world.services.backups.get(backup).manifest
    path.write_bytes(forge(*HOSTILE[case], manifest=manifest))
    before = (look(data), sorted(os.listdir(data.parent)), set(world.engine._volumes))

    assert refused(world, AgentainerError, in_place=in_place).code == "BACKUP_DAMAGED"

    assert (look(data), sorted(os.listdir(data.parent)), set(world.engine._volumes)) == before
    assert names_of(world) == ["web"]


def test_what_is_restored_is_what_the_file_says(world, web, backup, data):
    """Its summary, which is beside it, is for lists only."""
    world.deploy("other")
    outcome(world.services.backups.create(BackupOptions("second", agents=["other"]), ADMIN))
    folder = world.state_dir / "backups"
    second = world.services.backups.get("second").id
    (folder / f"{backup}.tar.gz").write_bytes((folder / f"{second}.tar.gz").read_bytes())

    assert [agent["from"] for agent in restore(world)["agents"]] == ["other"]


def names_of(world):
    return sorted(agent.name for agent in world.agents.all())


def test_nothing_is_changed_where_an_image_is_missing(world, web, backup, data):
    world.engine.remove_image("echo")
    before = sorted(os.listdir(data.parent))

    refused(world, NotFound)

    assert sorted(os.listdir(data.parent)) == before
    assert names_of(world) == ["web"]


def test_nothing_is_changed_where_the_archive_is_damaged(world, web, backup, data):
    path = world.state_dir / "backups" / f"{backup}.tar.gz"
    content = bytearray(path.read_bytes())
    content[-30] ^= 1
    path.write_bytes(content)
    before = (look(data), sorted(os.listdir(data.parent)))

    for in_place in (False, True):
        assert refused(world, AgentainerError, in_place=in_place).code == "BACKUP_DAMAGED"

    assert (look(data), sorted(os.listdir(data.parent))) == before
    assert names_of(world) == ["web"]


def test_nothing_is_changed_where_a_folder_is_closed_to_agents(make_world, tmp_path):
    world = make_world()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x").write_text("x")
    world.deploy(volumes=[{"host_path": str(tmp_path / "data"), "container_path": "/data"}])
    outcome(world.services.backups.create(BackupOptions("daily"), ADMIN))
    world.services.volumes.roots = (str(tmp_path / "elsewhere"),)

    assert refused(world, InvalidParameter).code == "VOLUME_DENIED"

    assert names_of(world) == ["web"]


@pytest.mark.parametrize("in_place", [False, True])
def test_what_fails_half_way_is_undone(world, web, backup, data, in_place, monkeypatch):
    before = (look(data), sorted(os.listdir(data.parent)), set(world.engine._volumes))
    kind = LiveFolder if in_place else NewFolder
    real = kind.receive

    def fail(self, entry, pieces):
        if entry.path == "sparse":
            raise OSError(28, "No space left on device")
        real(self, entry, pieces)

    monkeypatch.setattr(kind, "receive", fail)

    assert "no space" in refused(world, Unavailable, in_place=in_place).message

    assert (look(data), sorted(os.listdir(data.parent)), set(world.engine._volumes)) == before
    assert names_of(world) == ["web"]


@pytest.mark.parametrize("in_place", [False, True])
def test_what_fails_at_the_end_is_undone(world, web, backup, data, in_place, monkeypatch):
    before = (look(data), sorted(os.listdir(data.parent)), set(world.engine._volumes))

    def fail(*_given, **_named):
        raise Unavailable("Redis is away")

    monkeypatch.setattr(type(world.services.agents), "deploy", fail)
    monkeypatch.setattr(LiveFolder, "commit", fail)

    refused(world, Unavailable, in_place=in_place)

    assert (look(data), sorted(os.listdir(data.parent)), set(world.engine._volumes)) == before
    assert names_of(world) == ["web"]


def test_an_exchange_that_breaks_off_is_moved_back(world, web, backup, data, monkeypatch):
    before = look(data)
    real, calls = os.rename, []

    def fail(*given, **named):
        if "src_dir_fd" in named:
            calls.append(given)
            if len(calls) == 15:
                raise OSError(5, "Input/output error")
        return real(*given, **named)

    monkeypatch.setattr(os, "rename", fail)

    refused(world, Unavailable, in_place=True)

    assert look(data) == before


def test_what_is_put_there_meanwhile_is_not_written_over(world, web, backup, data, monkeypatch):
    shutil.rmtree(data)
    world.services.agents.remove("web", ADMIN)
    real = NewFolder.commit

    def intrude(self):
        (data / "mine").mkdir(parents=True)
        real(self)

    monkeypatch.setattr(NewFolder, "commit", intrude)

    assert refused(world, Conflict).code == "VOLUME_OCCUPIED"

    assert os.listdir(data) == ["mine"]
    assert names_of(world) == []


@as_root
def test_a_volume_that_is_one_file(world, tmp_path):
    path = tmp_path / "settings.ini"
    path.write_text("before")
    os.chmod(path, 0o640)
    world.deploy(volumes=[{"host_path": str(path), "container_path": "/settings.ini"}])
    outcome(world.services.backups.create(BackupOptions("daily"), ADMIN))

    copy = restore(world)["volumes"][0]["destination"]
    path.write_text("after")
    restore(world, in_place=True)

    assert Path(copy).read_text() == path.read_text() == "before"
    assert os.stat(path).st_mode & 0o777 == 0o640
    assert sorted(each.name for each in tmp_path.iterdir() if "partial" in each.name or "restore-" in each.name) == []


def test_a_volume_that_was_never_there_is_no_obstacle(world):
    world.deploy(volumes=[{"host_path": "never", "container_path": "/data"}])
    outcome(world.services.backups.create(BackupOptions("daily"), ADMIN))

    done = restore(world)

    assert done["omitted"] == 1
    assert world.agent("web-restored").spec.volumes[0].host_path.startswith("never-restored-")


@as_root
def test_a_folder_that_was_gone_when_it_was_backed_up_is_empty(world, tmp_path):
    (tmp_path / "data").mkdir()
    world.deploy(volumes=[{"host_path": str(tmp_path / "data"), "container_path": "/data"}])
    (tmp_path / "data").rmdir()
    outcome(world.services.backups.create(BackupOptions("daily"), ADMIN))

    done = restore(world)

    assert done["omitted"] == 1
    assert os.listdir(done["volumes"][0]["destination"]) == []
