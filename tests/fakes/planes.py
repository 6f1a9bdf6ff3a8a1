"""A data plane on a port of its own, and a client that sends bytes."""

import json
import socket

import pytest

from agentainerd.proxy.origins import Verdict
from agentainerd.proxy.routing import Route, RouteTable
from agentainerd.proxy.server import DataPlane, ProxyOptions
from agentainerd.proxy.target import Target
from tests.fakes.agents import RawAgent, receive_all
from tests.fakes.journals import MemoryJournal

AGENT_ID = "agent-0123456789abcdef"


def anybody(host, origin) -> Verdict:
    """Takes every Host and Origin, so that a test may write what it likes."""
    return Verdict.OURS


class Plane:
    """`route` is agent "web", ready, at `agent`; `journal` is in memory unless another is given."""

    def __init__(self, gateway_socket: str, journal=None, agent: RawAgent | None = None, host="127.0.0.1", **options):
        self.routes = RouteTable()
        self.routes.complete = True
        self.journal = journal or MemoryJournal()
        self.agent = agent or RawAgent()
        self.route = Route(AGENT_ID, "web")
        self.route.targets = [Target(self.agent.address)]
        self.route.open()
        self.routes.publish(self.route)
        self.data_plane = DataPlane(
            self.routes,
            self.journal,
            ProxyOptions(**{"judge": anybody} | options),
            gateway_socket=gateway_socket,
            ticket=lambda request_id: "ticket-" + request_id[:4],
        )
        listener = socket.create_server((host, 0))
        listener.setblocking(False)
        self.address = listener.getsockname()
        self.data_plane.serve(listener)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=10)

    def send(self, data: bytes) -> bytes:
        """Send and return all that comes until the data plane closes."""
        with self.connect() as connection:
            connection.sendall(data)
            return receive_all(connection)

    def ask(self, method="GET", path="/agent/web/", *, fields: dict | None = None, body: bytes | None = None):
        """One request on a connection of its own; returns an Answered."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in (fields or {}).items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        return Answered(self.send("\r\n".join([*lines, "", ""]).encode() + (body or b"")))

    def close(self):
        self.data_plane.stop_accepting()
        self.data_plane.drain(0.2)
        self.agent.close()
        for target in self.route.targets:
            target.drop_idle()


class Answered:
    """What a client got: status, fields (lower case, the last of each), body; `raw` is all of it."""

    def __init__(self, raw: bytes):
        self.raw = raw
        head, _, body = raw.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        self.status = int(lines[0].split(b" ")[1]) if lines[0] else 0
        self.fields = {}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            self.fields[name.strip().lower().decode()] = value.strip().decode()
        self.body = unchunk(body) if self.fields.get("transfer-encoding") == "chunked" else body

    @property
    def json(self):
        return json.loads(self.body)


def unchunk(body: bytes) -> bytes:
    out = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            break
        out += body[:length]
        body = body[length + 2 :]
    return out


@pytest.fixture
def make_plane(tmp_path):
    """`make_plane(agent=..., journal=..., **options)`: planes that are closed with the test."""
    planes = []

    def make(**options):
        planes.append(Plane(str(tmp_path / "gateway.sock"), **options))
        return planes[-1]

    yield make
    for plane in planes:
        plane.close()


@pytest.fixture
def plane(make_plane):
    return make_plane()
