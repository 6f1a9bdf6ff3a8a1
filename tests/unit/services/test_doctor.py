"""What an examination finds: on a healthy world, and on one where each part is wrong in turn."""

import os
import resource
import time
from dataclasses import replace

import pytest

from agentainerd import clock, defaults
from agentainerd.model.providers import Provider
from agentainerd.services import doctor as module
from agentainerd.services.doctor import DoctorService
from tests.fakes.model_worlds import provider
from tests.fakes.models import ModelServer
from tests.fakes.world import ADMIN


@pytest.fixture
def sources(world):
    """Where the examination looks."""
    return world.services.doctor.sources


@pytest.fixture
def examine(world):
    """Return {check: [findings]} of the world."""
    world.facts |= {"isolation": "enforced", "hot_path": "compiled", "listen": ["127.0.0.1:8081"]}

    def look() -> dict[str, list[dict]]:
        found: dict[str, list[dict]] = {}
        for finding in world.services.doctor.examine():
            found.setdefault(finding["check"], []).append(finding)
        return found

    return look


def wrong(found: dict[str, list[dict]]) -> list[tuple[str, str]]:
    return [(check, one["level"]) for check, all_of_it in found.items() for one in all_of_it if one["level"] != "ok"]


@pytest.fixture
def quiet_host(monkeypatch):
    """A host on which nothing is wrong, whatever the one is like that runs the tests."""
    monkeypatch.setattr(module, "ROOM_BYTES", 0)
    monkeypatch.setattr(module, "SLOW_SYNC_S", 60.0)
    monkeypatch.setattr(module, "INODE_SHARE", 0.0)


def test_every_check_says_something_and_nothing_is_wrong_where_nothing_is(
    world, sources, examine, quiet_host, monkeypatch
):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (10**6, 10**6))
    monkeypatch.setattr(module, "CHECKS", tuple(one for one in module.CHECKS if one[0] != "cgroups"))
    os.chmod(sources.config.paths.state_dir, 0o700)
    world.facts["shared_redis"] = {"running": True, "agents": 1, "listen": ["172.18.0.1:6379"], "memory_bytes": 1}

    found = examine()

    assert list(found) == [name for name, _ in module.CHECKS]
    assert wrong(found) == []


def test_an_engine_that_is_away_is_what_was_found(world, examine):
    world.engine.go_down("the engine was stopped")

    engine = examine()["engine"]

    assert [one["level"] for one in engine] == ["error"]
    assert "stopped" in engine[0]["message"]


def test_what_the_engine_misses_and_its_clock_are_told(world, examine, monkeypatch):
    info = replace(world.engine.info(), warnings=("No swap limit support",), clock=time.time() - 90)
    monkeypatch.setattr(world.engine, "info", lambda: info)

    found = examine()

    assert "No swap limit support" in found["engine"][1]["message"]
    assert (found["clock"][0]["level"], found["clock"][0]["message"]) == (
        "warning",
        "the engine's clock is 90 s behind",
    )


def test_a_redis_that_is_nearly_full_or_failed_to_write_is_told(sources, examine, monkeypatch):
    told = {"redis_version": "7.0.15", "used_memory": "90", "maxmemory": "100", "aof_last_write_status": "err"}
    monkeypatch.setattr(type(sources.redis), "info", lambda self, section: told)

    levels = [one["level"] for one in examine()["redis"]]

    assert levels == ["ok", "warning", "error"]


def test_a_disk_that_is_full_or_slow_is_told(examine, monkeypatch):
    monkeypatch.setattr(defaults, "MIN_FREE_DISK_BYTES", 2**62)
    monkeypatch.setattr(module, "SLOW_SYNC_S", 0.0)

    space, sync = examine()["disk"][0], examine()["disk"][-1]

    assert (space["level"], "make room" in space["hint"]) == ("error", True)
    assert (sync["level"], "every durable request waits for one" in sync["hint"]) == ("warning", True)


def test_what_is_open_to_others_is_told_with_the_command_that_closes_it(sources, examine):
    state_dir = sources.config.paths.state_dir
    os.chmod(state_dir, 0o755)

    found = examine()["permissions"]

    assert [(one["level"], one["hint"]) for one in found] == [("error", f"chmod 0700 {state_dir}")]


def test_paths_without_a_token_are_told(make_world):
    world = make_world(security={"open_prefixes": ("/api/v1", "/api/agents")})

    [finding] = [one for one in world.services.doctor.examine() if one["level"] != "ok" and one["check"] == "ports"]

    assert "may use /api/v1, /api/agents without a token" in finding["message"]


def test_a_network_that_is_open_an_address_that_is_public_and_few_descriptors_are_told(world, examine, monkeypatch):
    world.facts |= {"isolation": "there is no iptables"}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 256))

    found = examine()

    assert "there is no iptables" in found["network"][-1]["message"]
    assert (found["limits"][0]["level"], found["limits"][0]["message"]) == ("warning", "256 open files")


def test_the_shared_redis_is_told_of_where_agents_asked_for_it(world, sources, examine):
    most = sources.config.shared_redis.maxmemory_bytes
    shared = {"running": True, "agents": 2, "listen": ["172.18.0.1:6379"], "memory_bytes": most // 2}
    world.facts["shared_redis"] = {"running": False}
    assert "shared redis" not in examine()

    seen = []
    for changes in ({}, {"memory_bytes": most}, {"listen": []}, {"running": False, "memory_bytes": 0}):
        world.facts["shared_redis"] = {**shared, **changes}
        [finding] = examine()["shared redis"]
        seen.append((finding["level"], bool(finding["hint"])))

    assert seen == [("ok", False), ("warning", True), ("error", True), ("error", True)]


def test_a_clock_that_was_set_is_told(examine, monkeypatch):
    began = clock.now()
    monkeypatch.setattr(clock, "now", lambda: began - 3600)

    assert examine()["clock"][-1]["message"].startswith("it was set by +3600 s since the start")


def test_a_container_without_an_agent_is_told(world, examine):
    world.agents.remove(world.up().id)
    world.services.state_sync.run_once(time.time())

    loops = examine()["loops"]

    assert [one["level"] for one in loops] == ["ok", "warning"]
    assert loops[1]["hint"].startswith("docker rm -f agentainer-agent-")


def test_a_check_that_the_system_refuses_is_a_finding(sources, monkeypatch):
    def refused(sources):
        raise PermissionError(13, "Permission denied", "/sys/fs/cgroup")
        yield

    monkeypatch.setattr(module, "CHECKS", (("cgroups", refused),))

    assert DoctorService(sources).examine() == [
        {"check": "cgroups", "level": "error", "message": "/sys/fs/cgroup: Permission denied", "hint": ""}
    ]


def test_changes_that_cannot_be_recorded_are_an_error(world, examine):
    assert examine()["audit"][0]["level"] == "ok"
    world.services.audit.trouble = "the audit log cannot be written: No space left on device"

    (finding,) = examine()["audit"]

    assert (finding["level"], "No space left" in finding["message"]) == ("error", True)
    assert finding["hint"]


def test_tokens_that_expire_soon_are_named_before_they_do(world, examine):
    for name, days in (("ci", 3), ("long", 30), ("ever", 0)):
        world.services.named_tokens.create(ADMIN, name, ["read"], days * 86400.0)

    (finding,) = examine()["tokens"]

    assert (finding["level"], finding["message"]) == ("warning", "the token 'ci' expires in 2 days")
    assert "token rotate ci" in finding["hint"]
    world.services.named_tokens.revoke(ADMIN, "ci")
    assert [each["level"] for each in examine()["tokens"]] == ["ok"]


def test_providers_are_connected_to_and_asked_for_their_key(make_models):
    with ModelServer() as server:
        gone = Provider("openai", "http://127.0.0.1:1/v1")
        models = make_models(providers=(provider(server), gone))

        found = [each for each in models.world.services.doctor.examine() if each["check"] == "models"]

    assert [each["level"] for each in found] == ["warning", "warning", "ok"]
    assert "can't be reached at http://127.0.0.1:1/v1: Connection refused" in found[0]["message"]
    assert "OPENAI_API_KEY" in found[1]["hint"]
    assert found[2]["message"] == "fake can be reached"
    assert server.received == []
