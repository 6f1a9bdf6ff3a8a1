"""Backups that leave and come: what was exported is imported, and nothing else is taken in."""

import io
import os

import msgspec
import pytest

from agentainerd.errors import AgentainerError, Conflict, InvalidParameter
from agentainerd.model.agents import AgentSpec, Volume
from agentainerd.model.backups import FORMAT, BackedAgent, BackedVolume, Manifest
from agentainerd.services.backup_archive import ArchiveWriter
from agentainerd.services.backup_progress import Watch
from agentainerd.services.backups import BackupOptions
from tests.fakes.world import ADMIN
from tests.unit.services import test_backup_archive


def outcome(job):
    *_, last = list(job)
    job.close()
    return last["result"]


def create(world):
    return outcome(world.services.backups.create(BackupOptions("daily"), ADMIN))


@pytest.fixture
def web(world, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x").write_text("x" * 1000)
    return world.deploy(volumes=[{"host_path": str(tmp_path / "data"), "container_path": "/data"}])


def exported(world, ref="daily"):
    export = world.services.exchange.export(ref, ADMIN)
    data = b"".join(export)
    export.close()
    assert len(data) == export.backup.size
    return data


def take(world, data):
    return outcome(world.services.exchange.take(io.BytesIO(data), ADMIN))


def test_what_was_exported_is_imported(world, web):
    made = create(world)
    data = exported(world)
    world.services.backups.delete("daily", ADMIN)

    assert take(world, data) == made

    assert outcome(world.services.backups.verify("daily"))["sha256"] == made["sha256"]
    assert exported(world) == data


def test_a_backup_that_is_here_is_not_imported_again(world, web):
    create(world)
    data = exported(world)

    with pytest.raises(Conflict) as failure:
        take(world, data)

    assert failure.value.code == "BACKUP_EXISTS"
    assert len(os.listdir(world.state_dir / "backups")) == 2


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_what_is_no_backup_is_not_imported(world, web, cut):
    create(world)
    data = exported(world)
    world.services.backups.delete("daily", ADMIN)

    with pytest.raises(AgentainerError) as failure:
        take(world, data[:cut])

    assert failure.value.code == "BACKUP_DAMAGED"
    assert os.listdir(world.state_dir / "backups") == []


HOSTILE = {
    "an id that climbs": {"id": "../../../etc/cron.d/x"},
    "a name that moves the cursor": {"name": "\x1b[2J"},
    "a host that does": {"host": "\x1b[2J"},
    "a time that is none": {"created_at": 1e300},
    "an agent's id that is none": {"agents": (BackedAgent("x", AgentSpec(name="web", image="echo")),)},
    "an agent's name that is none": {"agents": (BackedAgent("agent-" + "0" * 16, AgentSpec(name="../x", image="echo")),)},
    "a volume of a system folder": {
        "agents": (
            BackedAgent("agent-" + "0" * 16, AgentSpec(name="web", image="echo", volumes=(Volume("/etc", "/data"),))),
        ),
        "volumes": (BackedVolume("/etc"),),
    },
    "a volume whose name is a path": {
        "agents": (
            BackedAgent("agent-" + "0" * 16, AgentSpec(name="web", image="echo", volumes=(Volume("../x", "/data"),))),
        ),
        "volumes": (BackedVolume("../x"),),
    },
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_manifest_that_says_what_can_not_be_is_refused(world, case):
    manifest = Manifest(
        format=FORMAT, id="backup-1763712345-3fa91c", name="daily", created_at=1.0, version="0", host="h"
    )  # fmt: skip
    out = io.BytesIO()
    ArchiveWriter(out.write, msgspec.structs.replace(manifest, **HOSTILE[case]), Watch()).finish()

    with pytest.raises(AgentainerError) as failure:
        take(world, out.getvalue())

    assert failure.value.code == "BACKUP_DAMAGED"
    assert os.listdir(world.state_dir / "backups") == []


@pytest.mark.parametrize("case", test_backup_archive.HOSTILE)
def test_a_hostile_archive_is_not_taken_in(world, case):
    with pytest.raises(AgentainerError) as failure:
        take(world, test_backup_archive.forge(*test_backup_archive.HOSTILE[case]))

    assert failure.value.code == "BACKUP_DAMAGED"
    assert os.listdir(world.state_dir / "backups") == []


def test_a_caller_that_breaks_off_leaves_nothing(world):
    class Broken:
        def read(self, size):
            raise InvalidParameter("body", "broke off")

    with pytest.raises(InvalidParameter):
        world.services.exchange.take(Broken(), ADMIN)

    assert os.listdir(world.state_dir / "backups") == []
