"""Backups on the services: made, listed, checked, deleted, and what is in them."""

import json
import os

import pytest

from agentainerd.errors import AgentainerError, Conflict, InvalidParameter, NotFound
from agentainerd.services.backups import BackupOptions
from tests.conftest import wait_until
from tests.fakes.volumes import fill
from tests.fakes.world import ADMIN


def outcome(job):
    """Read a job to its end; return its result."""
    *progress, last = list(job)
    job.close()
    assert all("progress" in each for each in progress)
    return last["result"]


def create(world, name="daily", **options):
    return outcome(world.services.backups.create(BackupOptions(name, **options), ADMIN))


@pytest.fixture
def web(world, tmp_path):
    """An agent with a folder, and with a volume of the engine."""
    fill(tmp_path / "data")
    world.engine.create_volume("cache")
    with open(os.path.join(world.engine.volume_folder("cache"), "warm"), "w") as file:
        file.write("yes")
    return world.deploy(
        volumes=[
            {"host_path": str(tmp_path / "data"), "container_path": "/data"},
            {"host_path": "cache", "container_path": "/cache"},
        ],
        env_vars={"API_KEY": "hush-hush", "MODE": "fast"},
        token="open-sesame",
    )


def test_a_backup_has_agents_and_volumes(world, web, tmp_path):
    made = create(world, description="what for")

    assert made["name"] == "daily"
    assert [agent["name"] for agent in made["agents"]] == ["web"]
    assert made["volumes"] == [{"source": str(tmp_path / "data"), "named": False}, {"source": "cache", "named": True}]
    assert made["files"] == 9
    assert made["omitted"] == 2
    assert {each["path"] for each in made["omissions"]} == {"pipe", "socket"}
    assert world.services.backups.get(made["id"]).manifest.description == "what for"
    assert outcome(world.services.backups.verify("daily"))["id"] == made["id"]


def test_no_secret_is_in_the_file_or_in_what_is_said_of_it(world, web):
    import gzip

    made = create(world)

    folder = world.state_dir / "backups"
    text = gzip.decompress((folder / f"{made['id']}.tar.gz").read_bytes())
    said = json.dumps(made).encode() + (folder / f"{made['id']}.json").read_bytes()
    assert b"hush-hush" not in text + said
    assert b"open-sesame" not in text + said
    assert b"fast" in text
    assert made["secrets"] == "left out"
    assert made["agents"][0]["secrets"] == ["API_KEY", "token"]


def test_only_the_agents_that_are_named(world, web):
    world.deploy("other")

    assert [agent["name"] for agent in create(world, agents=["other"])["agents"]] == ["other"]
    assert len(create(world, agents=[web.id, "web"])["agents"]) == 1
    assert len(create(world)["agents"]) == 2


def test_a_volume_of_two_agents_is_there_once(world, tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("a", "b"):
        world.deploy(name, volumes=[{"host_path": str(tmp_path / "data"), "container_path": "/data"}])

    assert len(create(world)["volumes"]) == 1


def test_a_volume_that_is_not_there_yet_is_named(world):
    world.deploy(volumes=[{"host_path": "never", "container_path": "/data"}])

    made = create(world)

    assert made["omissions"] == [{"where": "never", "path": ".", "reason": "there is no such volume (yet)"}]


def test_an_agent_that_is_not_there_is_an_error_before_anything_is_done(world):
    with pytest.raises(NotFound):
        world.services.backups.create(BackupOptions("x", agents=["nobody"]), ADMIN)
    with pytest.raises(InvalidParameter):
        world.services.backups.create(BackupOptions("a/b"), ADMIN)

    assert not (world.state_dir / "backups").exists()


def test_a_running_agent_stands_still_only_while_it_is_copied(world, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    world.up(volumes=[{"host_path": str(tmp_path / "data"), "container_path": "/data"}])
    world.deploy("idle")
    seen = []
    read = type(world.services.backups._places).read
    monkeypatch.setattr(
        type(world.services.backups._places), "read",
        lambda self, *given, **named: (seen.append((world.state(), world.state("idle"))), read(self, *given, **named)),
    )  # fmt: skip

    made = create(world, pause=True)

    assert seen == [("paused", "created")]
    assert (world.state(), world.state("idle")) == ("running", "created")
    assert made["paused"] is True
    world.wait_ready()


def test_a_daemon_that_died_while_agents_stood_still_lets_them_go_on(world, make_world, tmp_path):
    (tmp_path / "data").mkdir()
    agent = world.up(volumes=[{"host_path": str(tmp_path / "data"), "container_path": "/data"}])
    (world.state_dir / "backups").mkdir()
    world.services.backups._note_paused({agent.id, "agent-00000000000000ff"})
    world.services.agents.pause("web", ADMIN)
    world.end()

    again = make_world()
    again.services.backups.recover()

    assert again.state() == "running"
    assert os.listdir(again.state_dir / "backups") == []


def test_agents_go_on_also_when_the_backup_fails(world, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    world.up(volumes=[{"host_path": str(tmp_path / "data"), "container_path": "/data"}])

    def fail(*_given, **_named):
        raise Conflict("no", code="NO")

    monkeypatch.setattr(type(world.services.backups._places), "read", fail)
    with pytest.raises(Conflict):
        create(world, pause=True)

    assert world.state() == "running"
    assert os.listdir(world.state_dir / "backups") == []


def test_a_backup_whose_caller_leaves_is_given_up(world, tmp_path):
    (tmp_path / "data").mkdir()
    with open(tmp_path / "data/large", "wb") as file:
        for _ in range(200):
            file.write(os.urandom(2**20))
    world.deploy(volumes=[{"host_path": str(tmp_path / "data"), "container_path": "/data"}])

    job = world.services.backups.create(BackupOptions("x"), ADMIN)
    assert "progress" in next(iter(job))
    job.close()

    wait_until(lambda: os.listdir(world.state_dir / "backups") == [], what="the end of the backup")
    assert world.services.backups.all() == []


def test_names_find_a_backup_where_only_one_has_it(world):
    first, second = create(world, "a"), create(world, "b")
    create(world, "b")

    assert world.services.backups.get("a").id == first["id"]
    assert world.services.backups.get(second["id"]).id == second["id"]
    with pytest.raises(Conflict) as failure:
        world.services.backups.get("b")
    assert failure.value.code == "BACKUP_AMBIGUOUS"
    with pytest.raises(NotFound):
        world.services.backups.get("../x")


def test_deleting(world):
    made = create(world)

    assert world.services.backups.delete("daily", ADMIN).id == made["id"]

    assert world.services.backups.all() == []
    assert os.listdir(world.state_dir / "backups") == []


def test_damage_is_found(world, web):
    made = create(world)
    path = world.state_dir / "backups" / f"{made['id']}.tar.gz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    with pytest.raises(AgentainerError) as failure:
        outcome(world.services.backups.verify(made["id"]))

    assert failure.value.code == "BACKUP_DAMAGED"


def test_a_daemon_that_starts_finds_what_is_there_and_tidies_up(world, web):
    made = create(world)
    folder = world.state_dir / "backups"
    (folder / f"{made['id']}.json").unlink()
    (folder / "backup-1763712345-3fa91c.partial").write_bytes(b"half")
    (folder / "backup-1763712345-3fa91d.tar.gz").write_bytes(b"none")

    world.services.backups.recover()

    assert [backup.id for backup in world.services.backups.all()] == [made["id"]]
    assert not (folder / "backup-1763712345-3fa91c.partial").exists()


def test_what_is_done_is_in_the_audit_log(world):
    create(world)
    world.services.backups.delete("daily", ADMIN)

    assert "create_backup" in world.log_of("audit.log")
    assert "delete_backup" in world.log_of("audit.log")
