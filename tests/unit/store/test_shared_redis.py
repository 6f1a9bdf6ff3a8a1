"""The agents' own Redis: who may do what on it, what survives, and where it listens. On Redis and on Valkey."""

import os
import shutil
import signal
import stat
import tempfile
from pathlib import Path

import pytest
import redis as redis_py
from redis.backoff import NoBackoff
from redis.retry import Retry

from agentainerd.errors import Failed, Unavailable
from agentainerd.store.shared_redis import SharedRedisServer
from agentainerd.supervisor import Supervisor
from tests.fakes.daemons import free_port
from tests.fakes.redis import find_server

pytestmark = pytest.mark.redis
NO_RETRY = Retry(NoBackoff(), 0)
WEB, OTHER = "agent-00000000000000aa", "agent-00000000000000bb"
HERE, ALSO_HERE = "127.0.0.8", "127.0.0.9"

OF_ITS_CONNECTION = {
    "acl|whoami", "asking", "auth", "client|capa", "client|getname", "client|help", "client|id", "client|import-source", "client|info",
    "client|no-touch", "client|reply", "client|setinfo", "client|setname", "discard", "echo", "exec", "hello", "multi", "ping",
    "punsubscribe", "quit", "readonly", "readwrite", "reset", "select", "unsubscribe", "unwatch", "wait", "waitaof",
}  # fmt: skip
OF_ALL_SERVERS = {
    "command|count", "command|docs", "command|getkeys", "command|getkeysandflags", "command|help", "command|info", "command|list",
    "lolwut", "time",
}  # fmt: skip
WITHOUT_A_KEY = OF_ITS_CONNECTION | OF_ALL_SERVERS
"""What an agent may call without naming a key. Whatever a newer server has beside these is to be looked at by a person."""

REFUSED = [
    ("KEYS", "*"), ("KEYS", "web:*"), ("SCAN", "0"), ("SCAN", "0", "MATCH", "web:*"), ("RANDOMKEY",), ("DBSIZE",),
    ("CONFIG", "GET", "*"), ("CONFIG", "SET", "maxmemory", "0"), ("CONFIG", "REWRITE"), ("CONFIG", "RESETSTAT"),
    ("FLUSHALL",), ("FLUSHDB",), ("SWAPDB", "0", "0"), ("SHUTDOWN", "NOSAVE"), ("SAVE",), ("BGSAVE",), ("BGREWRITEAOF",),
    ("DEBUG", "SLEEP", "1"), ("MONITOR",), ("INFO",), ("SLOWLOG", "GET"), ("LATENCY", "LATEST"), ("LASTSAVE",),
    ("MEMORY", "STATS"), ("MEMORY", "PURGE"), ("MEMORY", "DOCTOR"),
    ("CLIENT", "LIST"), ("CLIENT", "KILL", "TYPE", "normal"), ("CLIENT", "PAUSE", "1"), ("CLIENT", "UNBLOCK", "1"),
    ("CLIENT", "NO-EVICT", "on"), ("CLIENT", "TRACKING", "on", "BCAST"), ("CLIENT", "TRACKING", "on"), ("CLIENT", "TRACKINGINFO"),
    ("ACL", "LIST"), ("ACL", "USERS"), ("ACL", "GETUSER", WEB), ("ACL", "SETUSER", WEB, "allkeys"), ("ACL", "LOG"), ("ACL", "SAVE"),
    ("EVAL", "return 1", "0"), ("EVAL", "return redis.call('get', 'other:x')", "0"), ("SCRIPT", "LOAD", "return 1"), ("SCRIPT", "FLUSH"),
    ("FUNCTION", "LIST"), ("FUNCTION", "FLUSH"), ("FCALL", "x", "0"),
    ("MODULE", "LIST"), ("MODULE", "LOAD", "/x.so"), ("REPLICAOF", "127.0.0.1", "1"), ("PSYNC", "?", "-1"), ("SYNC",),
    ("MIGRATE", "127.0.0.1", "1", "web:x", "0", "1"), ("CLUSTER", "INFO"), ("FAILOVER",), ("ROLE",),
    ("RESTORE", "web:x", "0", "x"), ("SORT", "web:l"), ("SORT", "web:l", "BY", "other:*", "GET", "other:*"), ("SORT_RO", "web:l"),
    ("PUBSUB", "CHANNELS"), ("PUBSUB", "NUMSUB", "events:x"), ("PUBSUB", "NUMPAT"), ("PUBLISH", "logs:stream", "x"),
    ("PUBLISH", "__keyspace@0__:x", "x"), ("SUBSCRIBE", "secret"), ("PSUBSCRIBE", "*"), ("PSUBSCRIBE", "events*"), ("SSUBSCRIBE", "other"),
    ("GET", "other:x"), ("SET", "other:x", "1"), ("DEL", "other:x"), ("EXISTS", "other:x"), ("TYPE", "other:x"), ("TTL", "other:x"),
    ("OBJECT", "ENCODING", "other:x"), ("MEMORY", "USAGE", "other:x"), ("DUMP", "other:x"), ("WATCH", "other:x"), ("TOUCH", "other:x"),
    ("RENAME", "web:x", "other:y"), ("RENAME", "other:x", "web:y"), ("COPY", "other:x", "web:x"), ("MGET", "web:x", "other:x"),
    ("SUNIONSTORE", "web:s", "other:s"), ("BLPOP", "other:l", "1"), ("XREAD", "STREAMS", "other:x", "0"), ("GET", "webx"), ("GET", "web"),
    ("GET", "websites:x"), ("GET", "sharedx"), ("GET", "x"), ("BITOP", "NOT", "web:x", "other:x"), ("LMPOP", "1", "other:l", "LEFT"),
    ("XGROUP", "CREATE", "other:x", "g", "0"), ("PFMERGE", "web:p", "other:p"), ("GEOSEARCHSTORE", "web:g", "other:g", "FROMMEMBER", "x", "BYRADIUS", "1", "m"),
]  # fmt: skip


class Home:
    """A server on folders of its own, and clients of it."""

    def __init__(self, kind):
        self.folder = Path(tempfile.mkdtemp(prefix="shared-"))
        (self.folder / "run").mkdir()
        (self.folder / "state").mkdir()
        self.binary = find_server(kind)
        self.supervisor = Supervisor()
        self.servers = []
        self.port = free_port()

    def server(self, **options) -> SharedRedisServer:
        made = SharedRedisServer(
            lambda: self.binary,
            **{
                "state_dir": self.folder / "state",
                "runtime_dir": self.folder / "run",
                "maxmemory_bytes": 32 * 1024 * 1024,
                "spawn": self.supervisor.spawn,
                **options,
            },
        )
        self.servers.append(made)
        return made

    def started(self, **options) -> SharedRedisServer:
        made = self.server(**options)
        made.start()
        made.listen([HERE], self.port)
        return made

    def client(self, server, agent_id, *, password="", address=HERE):
        return redis_py.Redis(
            host=address, port=self.port, username=agent_id, password=password or server.password(agent_id),
            decode_responses=True, socket_timeout=5, retry=NO_RETRY,
        )  # fmt: skip

    def close(self):
        for server in self.servers:
            server.close()
        self.supervisor.stop(1)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(params=["redis", "valkey"])
def home(request):
    home = Home(request.param)
    yield home
    home.close()


@pytest.fixture
def server(home):
    made = home.started()
    made.put_users({WEB: "web", OTHER: "other"})
    return made


@pytest.fixture
def web(home, server):
    client = home.client(server, WEB)
    yield client
    client.close()


@pytest.fixture
def other(home, server):
    client = home.client(server, OTHER)
    yield client
    client.close()


def test_an_agent_has_its_own_keys_and_those_that_are_shared(web, other):
    web.set("web:a", "1")
    web.hset("shared:h", "x", "2")
    with web.pipeline() as pipe:
        pipe.watch("web:a")
        pipe.multi()
        pipe.incr("web:a")
        pipe.expire("web:a", 100)
        assert pipe.execute() == [2, True]
    web.xadd("web:stream", {"k": "v"})

    assert other.hget("shared:h", "x") == "2"
    assert other.hset("shared:h", "y", "3") == 1
    with pytest.raises(redis_py.exceptions.NoPermissionError):
        other.get("web:a")


def test_events_reach_whoever_listens(web, other):
    listener = other.pubsub()
    listener.psubscribe("events:*")
    assert listener.get_message(timeout=5)["type"] == "psubscribe"

    assert web.publish("events:order", "created") == 1

    message = listener.get_message(timeout=5)
    assert (message["channel"], message["data"]) == ("events:order", "created")
    listener.close()


@pytest.mark.parametrize("command", REFUSED, ids=" ".join)
def test_what_is_refused(one_home, command):
    web, other = one_home
    other.set("other:x", "secret")

    with pytest.raises(redis_py.exceptions.ResponseError) as refused:
        web.execute_command(*command)

    said = str(refused.value)
    assert isinstance(refused.value, redis_py.exceptions.NoPermissionError) or "command not allowed" in said, said


@pytest.fixture(scope="module", params=["redis", "valkey"])
def one_home(request):
    """One server for all that is refused: nothing is changed there."""
    home = Home(request.param)
    made = home.started()
    made.put_users({WEB: "web", OTHER: "other"})
    clients = home.client(made, WEB), home.client(made, OTHER)
    yield clients
    for client in clients:
        client.close()
    home.close()


def keyless(rows):
    """Commands and subcommands that need not name a key, each with the least number of words that it takes."""
    for row in rows:
        name, arity, flags, first_key, subcommands = (
            row[0].decode(),
            row[1],
            {bytes(flag) for flag in row[2]},
            row[3],
            row[9],
        )
        if subcommands:
            yield from keyless(subcommands)
        elif not first_key and b"movablekeys" not in flags:
            yield name, abs(arity)


def test_no_other_command_works_without_a_key(home, server):
    """Whatever names a key is held by the keys that an agent may use; this is about the rest, on every server's own list."""
    admin = server._client
    found = dict(keyless(admin.call("COMMAND")))
    assert len(found) > 100

    allowed = {
        name
        for name, words in found.items()
        if admin.call("ACL", "DRYRUN", WEB, *(command := name.split("|")), *["x"] * (words - len(command))) == b"OK"
    }

    assert sorted(allowed - WITHOUT_A_KEY) == []
    assert {"ping", "multi", "time"} <= allowed


def test_nobody_comes_in_without_the_right_password(home, server):
    for name, password in (
        (WEB, "wrong"),
        (WEB, server.password(OTHER)),
        ("agent-00000000000000cc", "x"),
        ("agentainerd", "x"),
    ):
        with pytest.raises(redis_py.exceptions.AuthenticationError):
            home.client(server, name, password=password).ping()
    with pytest.raises(redis_py.exceptions.AuthenticationError):
        redis_py.Redis(host=HERE, port=home.port, retry=NO_RETRY).ping()
    web = home.client(server, WEB)
    with pytest.raises(redis_py.exceptions.AuthenticationError):
        web.execute_command("AUTH", "default", "")
    with pytest.raises(redis_py.exceptions.AuthenticationError):
        redis_py.Redis(unix_socket_path=str(home.folder / "run/shared.sock"), retry=NO_RETRY).ping()
    web.close()


def test_a_full_server_refuses_writes_and_throws_nothing_away(home, server, web):
    web.set("web:first", "kept")
    with pytest.raises(redis_py.exceptions.OutOfMemoryError):
        for number in range(64):
            web.set(f"web:{number}", "x" * 1_000_000)

    assert web.get("web:first") == "kept"
    assert web.delete("web:0") == 1
    assert 0 < server.memory_bytes() < 40_000_000


def test_values_that_are_too_large_are_refused(web):
    with pytest.raises(redis_py.exceptions.RedisError):
        web.set("web:x", "x" * 40_000_000)

    assert web.get("web:x") is None


def test_a_server_that_dies_comes_back_with_data_users_and_addresses(home, server, web, eventually):
    web.set("web:a", "1")
    eventually(lambda: (server._client.info("persistence"))["aof_pending_bio_fsync"] == "0")
    killed = server.pid

    os.kill(killed, signal.SIGKILL)

    def is_back():
        try:
            return server.pid not in (None, killed) and web.get("web:a") == "1"
        except redis_py.exceptions.RedisError:
            return False

    eventually(is_back)
    assert server.addresses == (HERE,)


def test_the_next_run_knows_the_same_users(home, server, web):
    web.set("web:a", "1")
    password = server.password(WEB)
    server.close()

    again = home.started()

    assert again.password(WEB) == password
    assert again.users() == {WEB: "web", OTHER: "other"}
    client = home.client(again, WEB)
    assert client.get("web:a") == "1"
    client.close()


def test_a_user_that_is_dropped_is_out_at_once(home, server, web, other):
    web.set("web:a", "1")
    web.set("shared:a", "1")
    other.set("other:a", "1")

    assert server.drop_keys("web") == 1
    server.drop_user(WEB)

    with pytest.raises(redis_py.exceptions.ConnectionError):
        web.ping()
    assert server.users() == {OTHER: "other"}
    assert other.get("shared:a") == "1"
    assert other.get("other:a") == "1"
    assert b"user " + WEB.encode() not in (home.folder / "state/shared-redis/users.acl").read_bytes()


def test_it_listens_where_it_is_told_and_nowhere_else(home, server):
    def answers(address):
        try:
            with home.client(server, WEB, address=address) as client:
                return client.ping()
        except redis_py.exceptions.ConnectionError:
            return False

    assert [answers(address) for address in (HERE, ALSO_HERE, "127.0.0.1")] == [True, False, False]
    server.listen([HERE, ALSO_HERE], home.port)
    assert [answers(address) for address in (HERE, ALSO_HERE, "127.0.0.1")] == [True, True, False]
    with pytest.raises(Unavailable) as taken:
        server.listen([HERE, "192.0.2.77"], home.port)
    assert taken.value.code == "SHARED_REDIS_PORT_TAKEN"
    assert answers(HERE)
    server.listen([], home.port)
    assert not answers(HERE)


def test_what_it_makes_is_closed_to_others(home, server):
    server.put_users({WEB: "web"})
    made = [*home.folder.rglob("state/shared-redis/*"), home.folder / "run/shared.sock"]
    files = [path for path in made if not path.is_dir()]

    assert {"key", "users.acl", "shared.sock"} <= {path.name for path in files}
    assert stat.S_IMODE((home.folder / "state/shared-redis").stat().st_mode) == 0o700
    assert stat.S_IMODE((home.folder / "state/shared-redis/key").stat().st_mode) == 0o600
    assert stat.S_IMODE((home.folder / "run/shared.sock").stat().st_mode) == 0o600


def test_a_server_that_cannot_start_says_why(home):
    with pytest.raises(Failed) as failed:
        home.started(maxmemory_bytes="many")

    assert failed.value.code == "SHARED_REDIS_START_FAILED"
    assert "maxmemory" in str(failed.value.details["log"])
