import pytest

from agentainerd.errors import NotSupported
from agentainerd.store import redis_binary
from agentainerd.store.redis_binary import find_binary

REDIS_6 = "Redis server v=6.2.14 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=1"
REDIS_7 = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1"
VALKEY_9 = "Valkey server v=9.1.2 sha=00000000:1 malloc=libc bits=64 build=1"


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Makes server programs on PATH, which has nothing else on it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(redis_binary, "_FOLDERS", ())
    monkeypatch.setattr(redis_binary, "find_spec", lambda name: None)

    def make(name, says):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho '{says}'\n")
        program.chmod(0o755)
        return str(program)

    return make


def test_valkey_on_path_comes_before_redis(path):
    path("redis-server", REDIS_7)
    valkey = path("valkey-server", VALKEY_9)

    assert (find_binary().path, find_binary().version) == (valkey, "Valkey 9.1.2")


def test_redis_on_path_is_taken(path):
    redis = path("redis-server", REDIS_7)

    assert (find_binary().path, find_binary().version) == (redis, "Redis 7.0.15")


def test_configured_program_beats_all_others(path, tmp_path):
    path("valkey-server", VALKEY_9)
    mine = path("mine", REDIS_7)

    assert find_binary(mine).path == mine


def test_too_old_program_is_passed_over(path):
    path("valkey-server", REDIS_6)
    redis = path("redis-server", REDIS_7)

    assert find_binary().path == redis


def test_only_a_too_old_program_says_so(path):
    path("redis-server", REDIS_6)

    with pytest.raises(NotSupported) as error:
        find_binary()

    assert error.value.code == "REDIS_TOO_OLD"
    assert "6.2.14" in error.value.message


def test_no_program_says_what_to_install(path):
    with pytest.raises(NotSupported) as error:
        find_binary()

    assert error.value.code == "REDIS_MISSING"
    assert "redis-server" in error.value.hint
    assert "agentainer[embedded]" in error.value.hint


@pytest.mark.parametrize("says", ["", "hello"])
def test_configured_program_that_is_none_is_refused(path, says):
    mine = path("mine", says)

    with pytest.raises(NotSupported) as error:
        find_binary(mine)

    assert error.value.code == "REDIS_MISSING"
    assert mine in error.value.message


def test_configured_program_that_is_missing_or_too_old_is_refused(path, tmp_path):
    with pytest.raises(NotSupported) as missing:
        find_binary(str(tmp_path / "nothing"))
    with pytest.raises(NotSupported) as old:
        find_binary(path("mine", REDIS_6))

    assert (missing.value.code, old.value.code) == ("REDIS_MISSING", "REDIS_TOO_OLD")


def test_program_of_the_package_is_the_last_resort(path, monkeypatch):
    from importlib.util import find_spec

    monkeypatch.setattr(redis_binary, "find_spec", find_spec)

    found = find_binary()

    assert found.path.endswith("valkey-server")
    assert found.version.startswith("Valkey ")
