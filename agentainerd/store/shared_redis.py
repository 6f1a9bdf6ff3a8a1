"""The Redis server of the agents: a child of the daemon like the journal's, with data, memory and users of its own.

Agents come over TCP, each as a user of its own (users.acl in its folder, written by the server itself), who may use its own
keys and the shared ones and nothing else; docs/decisions/0010-shared-redis.md has why each command is in or out. The daemon
comes over a Unix socket. There is no other user: the default one is off.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from redis.exceptions import ResponseError

from agentainerd import offload
from agentainerd.errors import Failed, Unavailable
from agentainerd.model.agents import SHARED_NAME
from agentainerd.store.committer import Spawn
from agentainerd.store.connection import RedisClient
from agentainerd.store.redis_process import STOP_TIMEOUT_S, Hooks, Place, RedisProcess, quoted

FOLDER = "shared-redis"  # in the state folder
SOCKET = "shared.sock"  # in the runtime folder
CHANNELS = "events:*"
RULES = (
    *("-@all", "+@read", "+@write", "+@pubsub", "+@transaction", "+@connection", "+time", "+acl|whoami"),
    *("-@dangerous", "-@admin", "-@scripting"),
    *("-keys", "-scan", "-randomkey", "-dbsize", "-pubsub"),
    *("-client|tracking", "-client|caching", "-client|trackinginfo", "-client|getredir"),
)
"""What an agent may do with what it may touch. All but the first line is about commands that need no key, or harm others."""
_ADMIN = "agentainerd"
_USERS = "users.acl"
_KEY = "key"
_SECRET_BYTES = 32
_SCAN_COUNT = 1000

_CONFIGURATION = """\
# Written by agentainerd at every start.
port 0
protected-mode yes
unixsocket {socket}
unixsocketperm 600
aclfile {users}
dir {folder}
logfile {log}
daemonize no
supervised no
databases 1
maxclients 4000
tcp-keepalive 60
io-threads 1
save ""
appendonly yes
appendfsync everysec
aof-load-truncated yes
aof-use-rdb-preamble yes
maxmemory {maxmemory}
maxmemory-policy noeviction
maxmemory-clients 25%
proto-max-bulk-len 32mb
client-query-buffer-limit 64mb
client-output-buffer-limit normal 64mb 32mb 30
client-output-buffer-limit pubsub 16mb 4mb 30
enable-debug-command no
enable-module-command no
enable-protected-configs no
lazyfree-lazy-user-del yes
"""


class SharedRedisServer:
    """One server on `<state_dir>/shared-redis`, its log at `<state_dir>/shared-redis.log`, its socket in `runtime_dir`.

    It runs between `start` and `stop`, which may be called again, and are for the main thread. All other methods ask the server,
    and raise Unavailable where it does not answer. `binary` finds the program.
    """

    def __init__(
        self, binary: Callable[[], str], *, state_dir: Path, runtime_dir: Path, maxmemory_bytes: int, spawn: Spawn
    ) -> None:
        self.addresses: tuple[str, ...] = ()
        """Where it listens for agents."""
        self._binary = binary
        self._folder = state_dir / FOLDER
        self._socket = runtime_dir / SOCKET
        self._log = state_dir / (FOLDER + ".log")
        self._configuration = runtime_dir / (FOLDER + ".conf")
        self._maxmemory_bytes = maxmemory_bytes
        self._spawn = spawn
        self._password = secrets.token_hex(_SECRET_BYTES)
        self._client = RedisClient(f"unix://{_ADMIN}:{self._password}@{quote(str(self._socket))}")
        self._process: RedisProcess | None = None
        self._port = 0

    @property
    def is_started(self) -> bool:
        """It runs, or is started again."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Process id of the server that runs now."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the server, and return when it has read its data and answers; agents can't reach it until `listen`.

        Raises:
            Failed: it does not start (SHARED_REDIS_START_FAILED). NotSupported: there is no program to start.
        """
        if self._process is not None:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = Place("shared redis", self._folder, self._log, self._configuration, self._socket)
        hooks = Hooks(self._prepare, self._explain, on_restart=self._listen_again)
        process = RedisProcess(self._binary(), place, hooks, self._client, self._spawn)
        process.start()
        self._process = process

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End the server, if it runs: what it holds is on the disk."""
        process, self._process = self._process, None
        self.addresses = ()
        if process is not None:
            process.stop(timeout_s)

    def listen(self, addresses: Sequence[str], port: int) -> None:
        """Listen for agents on these addresses of this host, and on no others.

        Raises:
            Unavailable: one of them is taken (code SHARED_REDIS_PORT_TAKEN); it listens where it did before.
        """
        try:
            self._client.call(
                "CONFIG", "SET", *(("port", port, "bind", " ".join(addresses)) if addresses else ("port", 0))
            )
        except ResponseError as exc:
            raise Unavailable(
                f"the shared Redis can't listen on port {port} of {', '.join(addresses)}: {exc}",
                code="SHARED_REDIS_PORT_TAKEN",
                hint="something else has that port there: set shared_redis.port to a free one, and restart agentainerd",
            ) from exc
        self.addresses, self._port = tuple(addresses), port

    def password(self, agent_id: str) -> str:
        """Return the password of an agent: always the same for one agent, and to be told from no other."""
        return hmac.new(self._key(), agent_id.encode(), hashlib.sha256).hexdigest()

    def put_users(self, names: Mapping[str, str]) -> None:
        """Let agents in (their names by id): with their passwords, to the keys under their names and the shared ones."""
        if names:
            self._client.calls([*(self._set_user(agent_id, name) for agent_id, name in names.items()), ("ACL", "SAVE")])

    def users(self) -> dict[str, str]:
        """Return the agents that are let in: their ids, and the names under which they have keys."""
        found = {}
        for line in self._client.call("ACL", "LIST"):
            _, user, *rules = line.decode().split()
            names = [rule[1:-2] for rule in rules if rule.startswith("~") and rule.endswith(":*")]
            if user not in (_ADMIN, "default") and names:
                found[user] = names[0]
        return found

    def suspend_user(self, agent_id: str) -> None:
        """Let an agent in no more for now, and end the connections that it has; its keys are kept."""
        self._client.call("ACL", "SETUSER", agent_id, "off")
        self._client.call("CLIENT", "KILL", "USER", agent_id)
        self._client.call("ACL", "SAVE")

    def drop_user(self, agent_id: str) -> None:
        """Let an agent in no more, and end the connections that it has."""
        self._client.call("ACL", "DELUSER", agent_id)
        self._client.call("ACL", "SAVE")

    def drop_keys(self, name: str) -> int:
        """Remove the keys under a name; return how many there were."""
        cursor, dropped = b"0", 0
        while True:
            cursor, keys = self._client.call("SCAN", cursor, "MATCH", f"{name}:*", "COUNT", _SCAN_COUNT)
            if keys:
                dropped += self._client.call("UNLINK", *keys)
            if cursor == b"0":
                return dropped

    def memory_bytes(self) -> int:
        """Return how much memory its data takes, of `maxmemory_bytes`."""
        return int(self._client.info("memory")["used_memory"])

    def close(self) -> None:
        """End it with the daemon."""
        self.stop()
        self._client.close()

    # ----

    def _set_user(self, agent_id: str, name: str) -> tuple[str, ...]:
        digest = hashlib.sha256(self.password(agent_id).encode()).hexdigest()
        keys = (f"~{name}:*", f"~{SHARED_NAME}:*", f"&{CHANNELS}")
        return ("ACL", "SETUSER", agent_id, "reset", "on", f"#{digest}", *keys, *RULES)

    def _prepare(self) -> str:
        offload.run(self._write_users)
        return _CONFIGURATION.format(
            socket=quoted(self._socket),
            users=quoted(self._folder / _USERS),
            folder=quoted(self._folder),
            log=quoted(self._log),
            maxmemory=self._maxmemory_bytes,
        )

    def _write_users(self) -> None:
        """Write who may come in: ourselves, with the password of this run, and the agents that the last run knew."""
        path = self._folder / _USERS
        known = path.read_text().splitlines() if path.exists() else []
        agents = [line for line in known if line.startswith("user agent-")]
        digest = hashlib.sha256(self._password.encode()).hexdigest()
        lines = ["user default off resetpass", f"user {_ADMIN} on #{digest} ~* &* +@all", *agents]
        _write_private(path, "\n".join(lines).encode() + b"\n")

    def _explain(self, what: str, lines: list[str]) -> Failed:
        said = lines[-1] if lines else "it said nothing"
        return Failed(f"shared redis {what}: {said}", code="SHARED_REDIS_START_FAILED", hint=f"see {self._log}")

    def _listen_again(self) -> None:
        with contextlib.suppress(Unavailable):  # then the loop of the networks does it
            addresses, self.addresses = self.addresses, ()
            if addresses:
                self.listen(addresses, self._port)

    def _key(self) -> bytes:
        """Return the key that passwords are made of, and make it where there is none."""
        path = self._folder / _KEY
        if not path.exists():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            offload.run(_write_private, path, secrets.token_bytes(_SECRET_BYTES))
        return path.read_bytes()


def _write_private(path: Path, content: bytes) -> None:
    """Put a file in place, whole, on the disk, and readable by its owner only."""
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
