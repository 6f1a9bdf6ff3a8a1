import pytest
from redis.exceptions import BusyLoadingError, ReadOnlyError, ResponseError

from agentainerd.errors import NotSupported, Unavailable
from agentainerd.store import scripts
from agentainerd.store.connection import (
    Durability,
    RedisClient,
    check_durability,
    check_version,
    is_transient,
    pairs,
    socket_url,
)
from tests.fakes.daemons import free_port
from tests.fakes.redis import RedisProcess
from tests.fakes.stores import Store


@pytest.fixture
def client(flushed_redis):
    client = RedisClient(flushed_redis.url)
    yield client
    client.close()


def test_server_that_is_not_there_is_unavailable(tmp_path):
    client = RedisClient(socket_url(str(tmp_path / "nothing.sock")))

    with pytest.raises(Unavailable) as error:
        client.call("PING")

    assert error.value.code == "REDIS_UNAVAILABLE"
    assert error.value.retry_after_s
    client.close()


@pytest.mark.redis
def test_path_of_a_socket_may_have_any_character(redis_folder):
    server = RedisProcess(redis_folder / "a b%?#").start()

    assert server.url.endswith("/a%20b%25%3F%23/redis.sock")
    server.stop()


@pytest.mark.redis
def test_answers_are_plain(client):
    assert client.call("HSET", "h", "a", 1, "b", 2) == 2
    assert pairs(client.call("HGETALL", "h")) == {b"a": b"1", b"b": b"2"}
    assert client.calls([("GET", "none"), ("HLEN", "h")]) == [None, 2]
    assert client.calls([]) == []
    assert client.info("server")["redis_version"]


@pytest.mark.redis
def test_script_is_given_to_a_server_that_does_not_know_it(client):
    script = scripts.load("due", flags="no-writes")
    client.call("SCRIPT", "FLUSH")

    assert client.run(script, 0) == []


@pytest.mark.redis
def test_wrong_command_is_a_bug_and_not_an_outage(client):
    with pytest.raises(ResponseError):
        client.call("NONSENSE")


@pytest.mark.redis
def test_full_server_says_so(own_client):
    server, client = own_client
    client.call("CONFIG", "SET", "maxmemory", 1)

    with pytest.raises(Unavailable) as error:
        client.call("SET", "a", "b")

    assert error.value.code == "REDIS_FULL"


@pytest.mark.redis
def test_hung_server_is_unavailable_in_time_and_is_asked_only_once(own_client):
    server, _ = own_client
    client = RedisClient(server.url, timeout_s=0.2)
    client.call("SET", "n", 0)
    server.freeze()

    with pytest.raises(Unavailable):
        client.call("INCR", "n")
    server.thaw()

    assert client.call("GET", "n") in (b"0", b"1")
    client.close()


@pytest.mark.redis
def test_client_goes_on_after_a_restart_of_the_server(own_client):
    server, client = own_client
    client.call("SET", "a", "b")
    server.kill()
    server.start()

    assert client.call("GET", "a") == b"b"


@pytest.fixture
def own_client(redis_server):
    client = RedisClient(redis_server.url)
    yield redis_server, client
    client.close()


@pytest.mark.redis
def test_durable_server_has_no_warnings(client):
    assert check_durability(client) == Durability("always", ())
    assert check_version(client).split()[0] in ("redis", "valkey")


@pytest.mark.redis
def test_each_weak_setting_is_named_with_its_consequence(own_client):
    _, client = own_client
    client.call("CONFIG", "SET", "appendfsync", "everysec")
    client.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")

    found = check_durability(client)
    first, second = found.warnings

    assert found.word == "everysec"

    assert "appendfsync is 'everysec'" in first
    assert "maxmemory-policy is 'allkeys-lru'" in second


@pytest.mark.redis
def test_server_that_hides_its_settings_is_said_to_be_unknown(own_client):
    _, client = own_client
    client.call("ACL", "SETUSER", "default", "-config")

    found = check_durability(client)
    [warning] = found.warnings

    assert found.word == "unknown"

    assert "not known" in warning


def test_old_server_is_not_supported(monkeypatch, tmp_path):
    client = RedisClient(socket_url(str(tmp_path / "s")))
    monkeypatch.setattr(client, "info", lambda section: {"redis_version": "6.2.14"})

    with pytest.raises(NotSupported) as error:
        check_version(client)

    assert error.value.code == "REDIS_TOO_OLD"
    client.close()


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (BusyLoadingError("Redis is loading"), True),
        (ReadOnlyError("You can't write", status_code="READONLY"), True),
        (ResponseError("MISCONF Errors writing to the AOF file: No space left on device"), True),
        (ResponseError("WRONGTYPE Operation against a key"), False),
    ],
)
def test_errors_that_pass_are_told_from_those_that_stay(error, transient):
    assert is_transient(error) is transient


@pytest.mark.redis
def test_external_server_over_tcp_with_password_and_database(redis_folder, folder):
    port = free_port()
    server = RedisProcess(redis_folder, requirepass="s3cret", port=port)
    server.url = f"redis://:s3cret@127.0.0.1:{port}/3"
    server.start()
    store = Store(server, folder)

    record = store.accept()

    assert [one.id for one in store.claim()] == [record.id]
    assert store.client.call("CLIENT", "INFO").split(b" db=")[1].startswith(b"3 ")
    wrong = RedisClient(f"redis://:wrong@127.0.0.1:{port}/3")
    with pytest.raises(Unavailable) as error:
        wrong.call("PING")
    assert "s3cret" not in str(error.value) and "wrong" not in str(error.value)
    wrong.close()
    store.close()
    server.stop()
