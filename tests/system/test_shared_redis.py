"""The Redis that agents share, from inside their containers: the documented programs work, and nothing else does."""

import os
import shutil
import textwrap
from pathlib import Path

import psutil
import pytest
import redis

from tests.fakes.daemons import free_port
from tests.fakes.docker import run_inside

pytestmark = [
    pytest.mark.docker,
    pytest.mark.redis,
    pytest.mark.skipif(os.geteuid() != 0, reason="the firewall needs root"),
]
REDIS = {"redis": True}
PAGE = (Path(__file__).parents[2] / "docs/shared-redis.md").read_text()
PUBLISHER = """
import json, os, redis
r = redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
def publish_event(event_type, data):
    return r.publish(f"events:{event_type}", json.dumps(data))
"""
SUBSCRIBER = """
import json, os, redis
r = redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
me = os.environ["AGENT_NAME"]
def listen_for_events():
    pubsub = r.pubsub()
    pubsub.psubscribe("events:*")
    for message in pubsub.listen():
        if message["type"] == "psubscribe":
            r.set(f"{me}:listens", 1)
        if message["type"] == "pmessage":
            r.rpush(f"{me}:seen", json.dumps([message["channel"], json.loads(message["data"])]))
listen_for_events()
"""
ASK = """
import json, os, redis
r = redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True, socket_timeout=10)
answers = []
for command in COMMANDS:
    try:
        answers.append(r.execute_command(*command))
    except Exception as error:
        answers.append(type(error).__name__)
print(json.dumps(answers))
"""
KNOCK = """
import json, socket
def knock(host, port):
    try:
        with socket.create_connection((host, port), 2) as channel:
            channel.sendall(b"PING\\r\\n")
            return channel.recv(100).decode().split()[0]
    except OSError as error:
        return type(error).__name__
print(json.dumps([knock(host, PORT) for host in HOSTS]))
"""


class Host:
    """A daemon, and agents that sleep until a test runs something inside them."""

    def __init__(self, daemon, sandbox, client, image, port, library):
        self.daemon, self.sandbox, self.client = daemon, sandbox, client
        self.image, self.port, self.library = image, port, library
        self.containers = {}

    @property
    def gateway(self):
        return self.gateway_of(self.sandbox.network)

    @property
    def isolated_gateway(self):
        return self.gateway_of(self.sandbox.isolated_network)

    def gateway_of(self, network):
        return self.client.inspect_network(network)["IPAM"]["Config"][0]["Gateway"]

    def shared(self):
        return self.must("GET", "/system/info")["shared_redis"]

    def must(self, method, path, body=None):
        status, said = self.daemon.control(method, path, body)
        assert status < 300, said
        return said.get("data")

    def up(self, name, program="import time; time.sleep(1e9)", **fields):
        spec = {
            "name": name, "image": self.image, "services": REDIS, "command": ["/usr/bin/python3", "-c", program],
            "volumes": [{"host_path": str(self.library), "container_path": "/lib/extra", "read_only": True}],
            "env_vars": {"PYTHONPATH": "/lib/extra"}, **fields,
        }  # fmt: skip
        self.must("POST", "/agents", spec)
        self.containers[name] = self.must("POST", f"/agents/{name}/start")["container_id"]

    def inside(self, name, program, **values):
        for word, value in values.items():
            program = program.replace(word, repr(value))
        return run_inside(self.client, self.containers[name], program)

    def ask(self, name, *commands):
        return self.inside(name, ASK, COMMANDS=[command.split() for command in commands])

    def knock(self, name, *hosts):
        return self.inside(name, KNOCK, HOSTS=list(hosts) or ["host.docker.internal"], PORT=self.port)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A folder with redis-py, for containers that have none; its asyncio part, which nobody uses here, wants another package."""
    folder = tmp_path_factory.mktemp("library")
    shutil.copytree(Path(redis.__file__).parent, folder / "redis")
    (folder / "async_timeout.py").write_text("timeout = None\n")
    return folder


@pytest.fixture
def host(start_daemon, docker_sandbox, docker_client, agent_image, library):
    port = free_port()
    daemon = start_daemon(sandbox=docker_sandbox, environment={"AGENTAINER_SHARED_REDIS_PORT": str(port)})
    yield Host(daemon, docker_sandbox, docker_client, agent_image, port, library)
    docker_sandbox.remove_containers()


def test_the_documented_publisher_and_subscriber_work_across_both_networks(host, eventually):
    host.up("subscriber", SUBSCRIBER)
    host.up("inside", SUBSCRIBER, network_egress=False)
    host.up("publisher")
    for name in ("subscriber", "inside"):
        eventually(lambda name=name: host.ask(name, f"GET {name}:listens") == ["1"], what=f"{name} listening")

    assert host.inside("publisher", PUBLISHER + 'print(publish_event("order", {"id": 7}))') == 2

    for name in ("subscriber", "inside"):
        seen = eventually(lambda name=name: host.ask(name, f"LRANGE {name}:seen 0 -1")[0], what=f"{name} hearing of it")
        assert seen == ['["events:order", {"id": 7}]']


def test_what_another_agent_keeps_and_all_that_is_for_administrators_is_closed(host):
    host.up("web")
    host.up("other", network_egress=False)
    assert host.ask("other", "SET other:x secret", "SET shared:x hello") == [True, True]

    answers = host.ask(
        "web", "GET shared:x", "SET web:x mine", "GET web:x",
        "GET other:x", "DEL other:x", "CONFIG GET *", "FLUSHALL", "KEYS *", "KEYS other:*", "SCAN 0", "RANDOMKEY", "DBSIZE",
        "MONITOR", "CLIENT LIST", "CLIENT TRACKING on BCAST", "PUBSUB CHANNELS", "ACL LIST", "SHUTDOWN", "SUBSCRIBE private",
    )  # fmt: skip

    assert answers[:3] == ["hello", True, "mine"]
    assert set(answers[3:]) == {"NoPermissionError"}
    assert host.ask("other", "GET other:x") == ["secret"]
    shown = str(host.must("GET", "/agents/web")) + str(host.must("GET", "/agents"))
    assert "redis://" not in shown
    assert host.must("GET", "/agents/web")["services"] == {"redis": True}


def test_the_door_is_open_where_an_agent_asked_and_to_one_address(host, eventually):
    host.up("plain", services={})
    host.up("inside", services={}, network_egress=False)
    assert host.knock("plain") == host.knock("inside") == ["TimeoutError"]

    host.up("web")

    assert host.knock("plain") == ["-NOAUTH"]
    assert host.knock("inside") == ["TimeoutError"]
    (address,) = host.shared()["listen"]
    assert address == f"{host.gateway}:{host.port}"
    assert host.knock("plain", host.gateway, host.isolated_gateway) == ["-NOAUTH", "TimeoutError"]

    host.must("DELETE", "/agents/web")

    eventually(lambda: host.shared() == {"running": False})
    eventually(lambda: host.knock("plain") == ["TimeoutError"], what="the door being closed")


def test_state_outlives_the_daemon(host, start_daemon, eventually):
    host.up("web")
    assert host.ask("web", "SET web:x kept") == [True]

    assert host.daemon.stop() == 0
    assert host.ask("web", "GET web:x") == ["ConnectionError"]
    host.daemon = start_daemon(
        like=host.daemon, sandbox=host.sandbox, environment={"AGENTAINER_SHARED_REDIS_PORT": str(host.port)}
    )

    eventually(lambda: host.ask("web", "GET web:x") == ["kept"], limit_s=30)
    assert host.must("GET", "/agents/web")["status"] == "running"


def test_its_password_is_in_the_container_and_nowhere_else(host):
    host.up("web")
    url = host.inside("web", "import json, os; print(json.dumps(os.environ['REDIS_URL']))")
    password = url.partition("@")[0].rpartition(":")[2]
    assert len(password) == 64
    assert host.ask("web", "CONFIG GET *") == ["NoPermissionError"]

    shown = [
        str(host.must("GET", path))
        for path in ("/agents/web", "/agents", "/system/info", "/events", "/audit", "/system/logs")
    ]
    files = [path for folder in (host.daemon.state_dir, host.daemon.runtime_dir) for path in folder.rglob("*")]
    texts = [path.read_bytes() for path in files if path.is_file()]
    lines = [" ".join(process.cmdline()) for process in psutil.Process(host.daemon.pid).children(recursive=True)]

    assert any(b"agentainerd on #" in text for text in texts)
    for text in (*shown, *lines, host.daemon.log, *(text.decode("latin-1") for text in texts)):
        assert password not in text


def test_the_page_has_these_programs():
    for program in (PUBLISHER, SUBSCRIBER):
        assert textwrap.indent(program.strip(), "    ") in PAGE
