"""A world with a data plane, a scripted provider behind it, and an agent that may ask it: all of the gateway, in one process."""

import json
import socket
from typing import TYPE_CHECKING

import pytest

from agentainerd.model.model_usage import Usage
from agentainerd.model.providers import Price, Provider
from agentainerd.proxy.server import DataPlane, ProxyOptions
from tests.fakes.models import KEY, MODEL, ModelServer, Turn
from tests.fakes.planes import Answered, anybody
from tests.fakes.world import World

if TYPE_CHECKING:
    import openai

USER = {"role": "user", "content": "hello"}
PRICES = {MODEL: Price(input=2.0, output=8.0, cached=1.0)}


class ModelWorld:
    """`world` with the agent `name`, which uses the model of `server`; `token` is the agent's."""

    def __init__(self, world: World, server: ModelServer, name: str = "web"):
        self.name = name
        self.world = world
        self.server = server
        self.models = world.services.models
        self.agent = world.up(name, model=f"fake/{MODEL}")
        self.plane = DataPlane(
            world.routes,
            world.journal,
            ProxyOptions(judge=anybody),
            gateway_socket="/nonexistent",
            ticket=lambda request_id: "",
        )
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        self.address = listener.getsockname()
        self.plane.serve(listener)
        self.token = world.services.tokens.model_token(self.agent.id)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}/llm/v1"

    @property
    def home(self) -> str:
        """The address of the agent's container, which its calls come from."""
        return str(self.world.route(self.name).targets[0].address[0])

    def client(self, **options) -> "openai.OpenAI":
        import httpx2
        import openai  # here: it takes most of a second, and every test loads this file

        transport = httpx2.HTTPTransport(local_address=self.home)
        given = {"http_client": openai.DefaultHttpxClient(transport=transport), "max_retries": 0, **options}
        return openai.OpenAI(**{"base_url": self.url, "api_key": self.token, **given})

    def ask(self, text: str | None = None, **options):
        """Ask and return the answer; its text must be `text`, where that is given."""
        with self.client() as client:
            answer = client.chat.completions.create(**{"model": f"fake/{MODEL}", "messages": [USER], **options})
        assert text is None or answer.choices[0].message.content == text
        return answer

    def stream(self, **options) -> list:
        with self.client() as client:
            return list(
                client.chat.completions.create(
                    **{"model": f"fake/{MODEL}", "messages": [USER], "stream": True, **options}
                )
            )

    def raw(self, path: str, body: object, *, fields: dict | None = None, source: str = "") -> Answered:
        """Send one request in bytes of our own, from an address of our own."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"POST /llm/v1{path} HTTP/1.1", "Host: localhost", "Connection: close", f"Content-Length: {len(data)}"]
        given = {"Authorization": f"Bearer {self.token}", **(fields or {})}
        lines += [f"{name}: {value}" for name, value in given.items()]
        with socket.create_connection(self.address, timeout=10, source_address=(source or self.home, 0)) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + data)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        return Answered(answer)

    def spent(self) -> dict[str, Usage]:
        """What is stored, by model; waits for nothing."""
        sums: dict[str, Usage] = {}
        for each in self.models.usage.since(0):
            sums[each.model] = sums.get(each.model, Usage()).plus(each.usage)
        return sums

    def close(self) -> None:
        self.plane.stop_accepting()
        self.plane.drain(0.2)


def provider(server: ModelServer, name: str = "fake", **fields) -> Provider:
    given = {"models": (MODEL,), "prices": PRICES, **fields}
    return Provider(name, server.base_url, KEY, **given)


@pytest.fixture
def make_models(make_world):
    """`make_models(*turns, rules=..., **models)`: a ModelWorld whose configuration's section `models` is as given."""
    made: list[ModelWorld] = []
    servers: list[ModelServer] = []

    def make(*turns: Turn, rules=None, **models) -> ModelWorld:
        server = ModelServer(turns, rules=rules).__enter__()
        servers.append(server)
        models.setdefault("providers", (provider(server),))
        made.append(ModelWorld(make_world(models=models), server, f"web{len(made) or ''}"))
        return made[-1]

    yield make
    for each in made:
        each.close()
    for server in servers:
        server.__exit__()


def text_of(chunks: list) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
