"""All services on a real Redis and the fake engine, without listeners: what a daemon has between its sockets.

`world` has the loops' bodies but runs none of them: a test calls `world.services.<...>.run_once`. Events of the engine are
followed, and replay is woken by readiness and by the journal, as in the daemon.
"""

import shutil
import tempfile
import time
import uuid
from pathlib import Path

import msgspec
import pytest
from gevent.pool import Pool
from werkzeug.test import Client

from agentainerd.api.access import AccessOptions, Door
from agentainerd.api.app import App
from agentainerd.api.exchange import ApiRequest
from agentainerd.config import Config, PathsConfig
from agentainerd.model.agents import AgentSpec
from agentainerd.model.requests import Reason, Record
from agentainerd.proxy.origins import Origins
from agentainerd.proxy.replay import Replayer
from agentainerd.proxy.routing import Gate, RouteTable
from agentainerd.proxy.watch import Sweeper
from agentainerd.services.audit import Actor
from agentainerd.services.services import Stores, build
from agentainerd.store.agents import AgentStore
from agentainerd.store.connection import RedisClient
from agentainerd.store.journal import RedisJournal
from agentainerd.store.requests import RequestStore
from agentainerd.store.spool import Spool
from agentainerd.supervisor import Supervisor
from tests.conftest import wait_until
from tests.fakes.engine import FakeEngine
from tests.fakes.redis import RedisProcess

ADMIN = Actor("tester", "test")
PEER = (4242, 0, 0)


class World:
    """`config` may be given in parts: World(..., security={"volume_roots": ("/srv",)})."""

    def __init__(self, folder: Path, redis_url: str, engine: FakeEngine, **sections):
        self.state_dir = folder / "state"
        self.state_dir.mkdir(exist_ok=True)
        (folder / "run").mkdir(exist_ok=True)
        self.config = make_config(folder, **sections)
        self.engine = engine
        self.supervisor = Supervisor()
        self.routes = RouteTable()
        self.redis = RedisClient(redis_url)
        self.spool = Spool(self.state_dir / "spool")
        self.agents = AgentStore(self.redis)
        self.requests = RequestStore(self.redis, self.spool)
        self.fenced = []
        self.journal = RedisJournal(
            self.redis,
            self.spool,
            state_dir=self.state_dir,
            spawn=self.supervisor.spawn,
            on_fenced=lambda: self.fenced.append(1),
            min_free_bytes=0,
        )
        self.recovered = self.journal.open()
        self.sweeper = Sweeper()
        self.pumps = Pool(100)
        self.supervisor.spawn("sweeper", self.sweeper.run)
        self.replayer = Replayer(self.routes, self.sweeper, self.pumps)
        self.facts = {"listen": ["127.0.0.1:8081"], "warnings": []}
        self.services = build(
            self.config,
            Stores(self.redis, self.agents, self.requests, self.journal, self.spool),
            engine,
            self.routes,
            supervisor=self.supervisor,
            send=self.replayer.send,
            port=8081,
            facts=lambda: self.facts,
        )
        self.services.audit.open()
        self.services.named_tokens.load()
        self.services.tokens.open()
        self.services.shared_redis.on_wanted = lambda: self.services.shared_redis.doors(engine.ensure_networks())

    def begin(self) -> "World":
        """Load the agents and follow the engine, as the daemon does when it starts."""
        self.services.state_sync.load()
        self.services.state_sync.watch()
        self.services.state_sync.run_once(time.time())
        return self

    def end(self) -> None:
        """Stop as a daemon does that is killed: nothing is tidied up, agents run on."""
        self.supervisor.stop(2.0)
        self.journal.close(1.0)
        self.services.audit.close()
        self.services.shared_redis.close()
        self.pumps.kill()
        for route in self.routes.routes():
            for target in route.targets:
                target.drop_idle()
        self.redis.close()

    # Agents

    def spec(self, name: str = "web", **fields) -> AgentSpec:
        return msgspec.convert({"name": name, "image": "echo", **fields}, AgentSpec)

    def deploy(self, name: str = "web", **fields):
        return self.services.agents.deploy(self.spec(name, **fields), ADMIN)

    def up(self, name: str = "web", **fields):
        """Deploy, start, and wait until it is ready."""
        agent = self.deploy(name, **fields)
        return self.services.agents.start(agent.id, ADMIN, wait_s=5)

    def agent(self, ref: str = "web"):
        return self.services.agents.get(ref)

    def state(self, ref: str = "web") -> str:
        return self.agent(ref).state.value

    def route(self, ref: str = "web"):
        return self.routes.find(ref.encode())

    def is_ready(self, ref: str = "web") -> bool:
        route = self.route(ref)
        return route is not None and route.gate is Gate.OPEN

    def wait_ready(self, ref: str = "web") -> None:
        wait_until(lambda: self.is_ready(ref), what=f"readiness of {ref}")

    def wait_state(self, state: str, ref: str = "web") -> None:
        wait_until(lambda: self.state(ref) == state, what=f"{ref} being {state}")

    # Requests

    def record(self, agent, target: str = "/", *, method: str = "GET", body: bytes = b"", **fields) -> Record:
        now = time.time()
        lines = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sesame\r\nX-Twice: a\r\nX-Twice: b\r\n"
        return Record(
            str(uuid.uuid4()),
            agent.id,
            head=lines.encode(),
            method=method.encode(),
            target=f"/agent/{agent.name}{target}".encode(),
            received_at=now,
            expires_at=now + 3600,
            body=body,
            body_bytes=fields.pop("body_bytes", len(body)),
            client="192.0.2.1",
            policy=agent.spec.replay_policy,
            **fields,
        )

    def queue(self, agent, target: str = "/", **fields) -> str:
        """Make a request pending, as the data plane does; return its id."""
        due_at = fields.pop("due_at", 0.0)
        record = self.record(agent, target, **fields)
        self.journal.accept(record, reason=Reason.RETRY_WAIT if due_at else Reason.QUEUED, due_at=due_at)
        return record.id

    def summary(self, request_id: str):
        return self.requests.locate(request_id).summary

    def wait_request(self, request_id: str, state: str):
        wait_until(lambda: self.summary(request_id).state == state, what=f"request being {state}")
        return self.summary(request_id)

    def log_of(self, name: str) -> str:
        return (self.state_dir / name).read_text()

    # API

    def client(self, door: Door = Door.CONTROL, **options) -> "ApiClient":
        return ApiClient(App(self.services, door=door, options=AccessOptions(Origins().judge, **options)), door)


class ApiClient(Client):
    """A werkzeug client of one door; `call` returns (status, body as JSON)."""

    def __init__(self, app: App, door: Door):
        super().__init__(app)
        self.door = door

    def open(self, *args, **kwargs):
        base = dict(kwargs.pop("environ_base", {}))
        if self.door is Door.CONTROL:
            base["agentainer.peer"] = PEER
        headers = dict(kwargs.pop("headers", {}))
        if self.door is Door.GATEWAY:
            headers.setdefault("X-Forwarded-For", "192.0.2.7")
        return super().open(*args, environ_base=base, headers=headers, **kwargs)

    def call(self, method: str, path: str, **kwargs):
        response = self.open(path, method=method, **kwargs)
        with response:
            return response.status_code, msgspec.json.decode(response.get_data())


def make_config(folder: Path, **sections) -> Config:
    config = Config()
    changed = {"paths": PathsConfig(str(folder / "state"), str(folder / "run"))}
    for name, fields in sections.items():
        changed[name] = type(getattr(config, name))(
            **{
                **{key: getattr(getattr(config, name), key) for key in getattr(config, name).__dataclass_fields__},
                **fields,
            }
        )
    return Config(**changed)


@pytest.fixture(scope="session")
def shared_redis():
    folder = Path(tempfile.mkdtemp(prefix="redis-"))
    server = RedisProcess(folder).start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def make_world(tmp_path, shared_redis, fake_engine):
    """`make_world(**config_sections)`: a world that has begun; a second one of the same test is a daemon that came back."""
    client = RedisClient(shared_redis.url)
    client.call("FLUSHALL")
    client.close()
    worlds = []

    def make(*, begin: bool = True, **sections) -> World:
        worlds.append(World(tmp_path, shared_redis.url, fake_engine, **sections))
        return worlds[-1].begin() if begin else worlds[-1]

    yield make
    for made in worlds:
        made.end()


@pytest.fixture
def world(make_world) -> World:
    return make_world()


__all__ = ["ADMIN", "ApiRequest", "World"]
