"""What the daemon tells of itself."""

import time

import pytest

from agentainerd.errors import Unavailable
from agentainerd.services import system as module
from agentainerd.version import VERSION
from tests.fakes.world import ADMIN


@pytest.fixture
def system(world):
    return world.services.system


def test_version_and_ping(system):
    assert system.version() == {"version": VERSION}
    assert system.ping()["version"] == VERSION


def test_it_is_ready_when_every_part_answers(system):
    assert system.readiness() == {"engine": "ok", "redis": "ok", "journal": "ok", "routes": "ok"}


def test_it_says_which_part_is_missing_and_asks_once_a_second_at_most(world, system, monkeypatch):
    monkeypatch.setattr(module, "READINESS_TTL_S", 0.0)
    world.engine.go_down("the engine was stopped")
    world.routes.complete = False
    assert "stopped" in system.readiness()["engine"]
    assert system.readiness()["routes"] != "ok"

    monkeypatch.setattr(module, "READINESS_TTL_S", 60.0)
    asked = world.engine.calls["ping"]
    for _ in range(10):
        system.readiness()
    assert world.engine.calls["ping"] == asked


def test_info_counts_agents_and_tells_facts_and_warnings(world, system):
    world.facts |= {"isolation": "enforced", "warnings": ["something is weak"]}
    world.up("one")
    world.deploy("two")

    told = system.info()

    assert told["agents"] == {"total": 2, "ready": 1, "created": 1, "running": 1}
    assert (told["isolation"], told["warnings"]) == ("enforced", ["something is weak"])
    assert told["journal"]["available"] is True
    assert told["redis"]["external"] is False
    assert told["token"] == "made by agentainerd"
    assert "agt_" not in str(told)


def test_info_of_a_daemon_without_an_engine_says_why_instead(world, system):
    world.engine.go_down("the engine was stopped")

    told = system.info()

    assert "stopped" in told["engine"]["error"]
    assert any("stopped" in warning for warning in told["warnings"])


def test_info_without_redis_says_why_instead(world, system, monkeypatch):
    world.redis.close()
    monkeypatch.setattr(world.redis, "info", _away)
    monkeypatch.setattr(world.agents, "all", _away)

    told = system.info()

    assert "away" in told["redis"]["error"]
    assert told["agents"]["total"] == 0


def _away(*_):
    raise Unavailable("Redis is away", hint="start it")


def test_an_audit_log_that_cannot_be_written_is_a_warning(world, system):
    world.services.audit.close()
    (world.state_dir / "audit.log").unlink(missing_ok=True)
    (world.state_dir / "audit.log").mkdir()
    with pytest.raises(Unavailable):
        world.services.audit.record(ADMIN, "x", "y")

    assert any("audit log" in warning for warning in system.info()["warnings"])


def test_orphans_are_listed(world, system):
    agent = world.up()
    world.agents.remove(agent.id)
    world.services.state_sync.run_once(time.time())

    (orphan,) = system.info()["orphans"]

    assert orphan["agent_id"] == agent.id
    assert len(orphan["container_id"]) <= 12


def test_loops_tell_their_last_error(world, system, eventually):
    def fail(now):
        raise RuntimeError("odd")

    world.supervisor.loop("odd", fail, 60)
    eventually(lambda: any(loop["failures"] for loop in system.info()["loops"]))

    (loop,) = (loop for loop in system.info()["loops"] if loop["name"] == "odd")
    assert (loop["failures"], loop["last_success_at"]) == (1, None)
    assert "odd" in loop["last_error"]


def test_df_counts_spool_images_and_logs(world, system):
    file = world.spool.create("one")
    file.write(b"x" * 1000)
    file.seal()
    (world.state_dir / "redis.log").write_text("y" * 50)
    for folder, size in (("logs", 70), ("shared-redis/appendonlydir", 90)):
        (world.state_dir / folder).mkdir(parents=True)
        (world.state_dir / folder / "file").write_bytes(b"z" * size)
    world.deploy("one")
    world.deploy("two")

    told = system.df()

    assert told["spool"] == {"bytes": 1000, "files": 1}
    assert {"name": "redis.log", "bytes": 50} in told["logs"]
    assert {"name": "logs/", "bytes": 70} in told["logs"]
    assert told["shared_redis"] == {"bytes": 90}
    assert [image["agents"] for image in told["images"]] == ["one, two"]
    assert told["free_bytes"] > 0


def test_df_names_an_image_that_is_gone(world, system):
    world.deploy("one")
    world.engine.remove_image("echo")

    (image,) = system.df()["images"]

    assert image["bytes"] == 0
    assert "not found" in image["image"]
