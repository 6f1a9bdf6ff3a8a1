"""Calls to models on the wire: what a provider gets and what becomes of its answer, byte by byte, with a gate that is a stub."""

import json
import socket

import pytest

from agentainerd import defaults
from agentainerd.proxy.model_gate import ModelCall, ModelReply, ModelWay, refusal
from agentainerd.proxy.origins import Origins
from agentainerd.proxy.providers import ProviderTarget
from tests.fakes.agents import RawAgent, answer, receive_all

PATH = "/llm/v1/chat/completions"
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: provider\r\nAuthorization: Bearer sk-1\r\n"


class Gate:
    """Lets everything pass to `providers`, one after the other; `asked` and `ended` are what it was told."""

    def __init__(self, plane, *providers: RawAgent):
        self.asked, self.ended = [], []
        self.targets = [ProviderTarget(*provider.address, None) for provider in providers]
        plane.routes.models.on_ask, plane.routes.models.on_end = self.ask, self.ended.append

    def ask(self, ask):
        self.asked.append(ask)
        self.ways = [
            ModelWay(f"p{number}/m", target, HEAD, ask.body, hides_usage=False)
            for number, target in enumerate(self.targets)
        ]
        return ModelCall(list(self.ways))


@pytest.fixture
def provider():
    made = RawAgent()
    yield made
    made.close()


@pytest.fixture
def gate(plane, provider):
    return Gate(plane, provider)


def test_a_provider_gets_what_the_gate_says_and_nothing_of_the_client(plane, provider, gate):
    fields = {
        "Authorization": "Bearer ours", "Cookie": "a=b", "X-Agentainer-Run-Id": "run-1", "X_Agentainer_Session_Id": "s",
        "X-Agentainer-Session-Id": "s-1",
    }  # fmt: skip

    assert plane.ask("POST", PATH, fields=fields, body=b"{}").status == 200

    assert provider.requests == [HEAD + b"Content-Length: 2\r\n\r\n{}"]
    (asked,) = gate.asked
    assert (asked.method, asked.path, asked.token, asked.peer) == ("POST", "/chat/completions", "ours", "127.0.0.1")
    assert (asked.run_id, asked.session_id) == ("run-1", "s-1")
    assert [(call.status, call.is_whole, call.model) for call in gate.ended] == [(200, True, "p0/m")]


def test_what_says_whose_account_it_is_stays_here(plane, provider, gate):
    fields = b"Set-Cookie: __cf=1\r\nopenai-organization: acme\r\nX-RateLimit-Remaining: 5\r\n"
    provider.script = lambda connection, request: connection.sendall(answer(b"{}", fields=fields))

    got = plane.ask("POST", PATH, body=b"{}")

    assert "set-cookie" not in got.fields
    assert "openai-organization" not in got.fields
    assert got.fields["x-ratelimit-remaining"] == "5"
    assert got.fields["x-agentainer-model"] == "p0/m"


def test_bodies_come_in_chunks_and_are_waited_for_and_have_a_limit(plane, provider, gate, monkeypatch):
    monkeypatch.setattr(defaults, "MAX_MODEL_BODY_BYTES", 1000)
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    chunked = plane.send(f"{head}Transfer-Encoding: chunked\r\n\r\n3\r\n{{ }}\r\n0\r\n\r\n".encode())
    with plane.connect() as connection:
        connection.sendall(f"{head}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n".encode())
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert receive_all(connection).startswith(b"HTTP/1.1 200 ")

    assert chunked.startswith(b"HTTP/1.1 200 ")
    assert [request.rpartition(b"\r\n\r\n")[2] for request in provider.requests] == [b"{ }", b"{}"]
    large = plane.ask("POST", PATH, body=b"x" * 1001)
    assert (large.status, large.json["error"]["code"]) == (413, "request_too_large")
    assert len(gate.asked) == 2


def test_a_kept_connection_that_the_provider_closed_is_no_failure(plane, provider, gate):
    def once(connection, request):
        if len(provider.requests) == 2:
            connection.shutdown(socket.SHUT_RDWR)  # it had closed it, and did not look
        else:
            connection.sendall(answer(b"{}"))

    provider.script = once

    assert [plane.ask("POST", PATH, body=b"{}").status for _ in range(2)] == [200, 200]
    assert provider.connections == 2
    assert len(gate.ended) == 2


def test_a_new_connection_without_an_answer_is_one(plane, provider, gate):
    provider.script = lambda connection, request: connection.shutdown(socket.SHUT_RDWR)

    got = plane.ask("POST", PATH, body=b"{}")

    assert (got.status, got.json["error"]["code"]) == (502, "provider_unavailable")
    assert len(provider.requests) == 1


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])
def test_what_is_no_answer_is_passed_over(plane, provider, said):
    with_garbage = RawAgent(lambda connection, request: connection.sendall(said))
    gate = Gate(plane, with_garbage, provider)

    got = plane.ask("POST", PATH, body=b"{}")
    with_garbage.close()

    assert (got.status, got.fields["x-agentainer-model"]) == (200, "p1/m")
    assert len(gate.ended) == 1


def test_a_stream_that_ends_with_its_connection_is_a_whole_one(plane, provider, gate):
    def unframed(connection, request):
        connection.sendall(
            b'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {"usage": {"total_tokens": 7}}\n\n'
        )
        connection.shutdown(socket.SHUT_RDWR)

    provider.script = unframed

    got = plane.ask("POST", PATH, body=b"{}")

    assert (got.status, got.body) == (200, b'data: {"usage": {"total_tokens": 7}}\n\n')
    assert gate.ended[0].is_whole
    assert gate.ended[0].usage.startswith(b'{"total_tokens": 7}')


def test_silence_ends_with_a_timeout_once_and_for_all(plane, provider, gate, monkeypatch):
    monkeypatch.setattr(defaults, "PROVIDER_TIMEOUT_S", 0.1)
    provider.script = lambda connection, request: None

    got = plane.ask("POST", PATH, body=b"{}")

    assert (got.status, got.json["error"]["code"]) == (504, "provider_timeout")
    assert (len(provider.requests), len(gate.ended), gate.ended[0].is_whole) == (1, 1, False)


def test_the_gate_answers_itself_where_it_wants_to(plane, provider, gate):
    plane.routes.models.on_ask = lambda ask: ModelReply(200, json.dumps({"path": ask.path}).encode())
    assert plane.ask("GET", "/llm/v1/models?x=1").json == {"path": "/models?x=1"}

    plane.routes.models.on_ask = lambda ask: refusal(429, "slower", "rate_limit_exceeded", retry_after_s=3)
    got = plane.ask("POST", PATH, body=b"{}")
    assert (got.status, got.fields["retry-after"], got.json["error"]["message"]) == (429, "3", "slower")
    assert provider.requests == []


def test_only_our_names_are_served_and_a_daemon_without_models_says_so(make_plane):
    plane = make_plane(judge=Origins().judge)

    assert plane.ask("POST", PATH, body=b"{}").json["error"]["code"] == "no_models"
    assert (
        plane.send(f"GET {PATH} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".encode())[9:12] == b"403"
    )


def test_a_client_that_leaves_takes_the_call_with_it(plane, provider, gate, eventually):
    begun = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"
    provider.script = lambda connection, request: connection.sendall(begun)
    with plane.connect() as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        while b"abcde" not in connection.recv(65536):
            pass
        assert [way.body for way in gate.ways] == [b""]  # a stream takes minutes: what was asked is not kept that long

    eventually(lambda: gate.ended)
    assert not gate.ended[0].is_whole
    assert "left" in gate.ended[0].reason
    eventually(lambda: gate.targets[0].in_flight == 0)
