"""Named ports: closed, live, at a host of their own."""

import hashlib
import socket

import pytest

from agentainerd.proxy.routing import AgentPass, Route
from agentainerd.proxy.target import Target
from tests.fakes.agents import RawAgent, answer, receive_all
from tests.fakes.planes import AGENT_ID, Answered

HOST = "gui.web.localhost:8081"
TOKEN = "a-token-of-the-agent"  # noqa: S105
CONTROL = "a-control-token"
PASS = "a-named-token"  # noqa: S105
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def digest(token):
    return hashlib.sha256(token.encode()).digest()


class World:
    """Agent "web" with the port gui, which another program serves."""

    def __init__(self, make_plane, screen):
        self.screen = screen
        self.plane = make_plane()
        self.route, self.routes = self.plane.route, self.plane.routes
        self.route.hold_timeout_s = 0.0
        self.route.ports = {b"gui": screen.address[1]}
        self.routes.ports.key = b"k" * 32
        self.routes.control_token_digests = frozenset((digest(CONTROL), digest(PASS)))
        self.routes.agent_passes = {digest(PASS): AgentPass("t1", frozenset(("web",)), 0.0)}
        self.refused = []
        self.routes.on_token_refused = lambda client, agent, is_wrong: self.refused.append((agent, is_wrong)) or 0

    def ask(self, path="/", *, host=HOST, method="GET", body=b"", **fields):
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return Answered(self.plane.send("\r\n".join([*lines, "", ""]).encode() + body))

    def log_in(self, host=HOST):
        """Return the cookie of a new session."""
        word = self.routes.ports.login(AGENT_ID, "gui", 4_000_000_000.0)
        found = self.ask(f"/?agentainer_token={word}", host=host)
        assert found.status == 303, found.raw
        return found.fields["set-cookie"].partition(";")[0]


@pytest.fixture
def screen():
    agent = RawAgent(lambda connection, request: connection.sendall(answer(b"the screen")))
    yield agent
    agent.close()


@pytest.fixture
def world(make_plane, screen):
    return World(make_plane, screen)


def test_without_a_token_a_port_is_closed_although_its_agent_is_public(world):
    assert world.ask().status == 401
    assert world.ask("/agent/web/:gui/", host="localhost").status == 401
    assert world.ask(method="POST", body=b"x").status == 401
    assert world.ask(Cookie="agentainer_session=1.2.3").status == 401
    assert world.ask(Authorization="Bearer wrong-wrong").status == 401
    assert world.refused[-1] == ("web", True)
    assert not world.screen.requests
    assert not world.plane.agent.requests


@pytest.mark.parametrize("host,path", [(HOST, "/a?b=c"), ("localhost", "/agent/web/:gui/a?b=c")])
@pytest.mark.parametrize("token", [TOKEN, PASS])
def test_a_token_of_the_agent_opens_it_and_is_not_passed_on(world, host, path, token):
    world.route.token_digest = digest(TOKEN)
    used = []
    world.routes.on_token_used = used.append

    found = world.ask(path, host=host, Authorization=f"Bearer {token}")

    assert (found.status, found.body) == (200, b"the screen")
    (seen,) = world.screen.requests
    assert seen.startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert token.encode() not in seen
    assert b"\r\nAuthorization: Bearer %b\r\n" % world.routes.ports.token(AGENT_ID, "gui").encode() in seen
    assert seen.lower().count(b"authorization:") == 1
    assert used == (["t1"] if token == PASS else [])
    assert not world.plane.journal.live
    assert not world.plane.agent.requests


def test_a_control_token_reaches_no_port(world):
    seen = []
    world.routes.on_control_token = lambda client, agent: seen.append(agent)
    assert world.ask(Authorization=f"Bearer {CONTROL}").status == 400
    assert world.ask(f"/?agentainer_token={CONTROL}").status == 400
    assert seen == ["web", "web"]
    assert not world.screen.requests


def test_a_token_for_another_agent_or_whose_time_is_over_opens_nothing(world):
    world.routes.agent_passes = {digest(PASS): AgentPass("t1", frozenset(("other",)), 0.0)}
    assert world.ask(Authorization=f"Bearer {PASS}").json["code"] == "TOKEN_NOT_FOR_THIS_AGENT"
    world.routes.agent_passes = {digest(PASS): AgentPass("t1", frozenset(("web",)), 1.0)}
    assert world.ask(Authorization=f"Bearer {PASS}").json["code"] == "TOKEN_EXPIRED"


def test_a_login_becomes_a_cookie_and_leaves_the_address(world):
    word = world.routes.ports.login(AGENT_ID, "gui", 4_000_000_000.0)

    found = world.ask(f"/vnc.html?a=1&agentainer_token={word}&b")

    assert found.status == 303
    assert found.fields["location"] == f"//{HOST}/vnc.html?a=1&b"
    assert found.fields["referrer-policy"] == "no-referrer"
    cookie = found.fields["set-cookie"]
    assert "; HttpOnly" in cookie
    assert "; SameSite=Lax" in cookie
    assert "domain" not in cookie.lower()
    assert "Secure" not in cookie
    assert world.ask(f"/?agentainer_token={word}").json["code"] == "LOGIN_OVER"
    found = world.ask("/vnc.html", Cookie=f"other=1; {cookie.partition(';')[0]}; last=2")
    assert found.status == 200
    (seen,) = world.screen.requests
    assert b"\r\nCookie: other=1; last=2\r\n" in seen
    assert b"agentainer_session" not in seen


def test_a_path_of_two_slashes_leads_nowhere_else(world):
    word = world.routes.ports.login(AGENT_ID, "gui", 4_000_000_000.0)
    assert world.ask(f"//evil.example/?agentainer_token={word}").fields["location"] == f"//{HOST}//evil.example/"


def test_a_session_ends_with_the_token_that_began_it(world):
    found = world.ask(f"/?agentainer_token={PASS}")
    cookie = found.fields["set-cookie"].partition(";")[0]
    assert world.ask(Cookie=cookie).status == 200
    world.routes.agent_passes = {}
    assert world.ask(Cookie=cookie).status == 401


def test_a_session_is_for_one_port_of_one_agent(world):
    cookie = world.log_in()
    other = Route("agent-fedcba9876543210", "other")
    other.targets = [Target(world.screen.address)]
    other.ports = dict(world.route.ports)
    other.open()
    world.routes.publish(other)
    world.route.ports[b"jupyter"] = world.screen.address[1]

    assert world.ask(Cookie=cookie).status == 200
    assert world.ask(Cookie=cookie, host="jupyter.web.localhost:8081").status == 401
    assert world.ask(Cookie=cookie, host="gui.other.localhost:8081").status == 401
    assert world.ask("/agent/web/:gui/", host="localhost", Cookie=cookie).status == 401


@pytest.mark.parametrize(
    "fields,status",
    [
        ({"Origin": f"http://{HOST}"}, 200),
        ({"Origin": "http://evil.localhost:8081"}, 401),
        ({"Origin": "http://web.localhost:8081"}, 401),
        ({"Origin": "http://gui.web.localhost:9999"}, 401),
        ({"Origin": "null"}, 401),
        ({"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "cors"}, 200),
        ({"Sec_Fetch_Site": "none", "Sec_Fetch_Mode": "navigate"}, 200),
        ({"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "no-cors"}, 401),
        ({"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}, 200),
        ({"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"}, 401),
    ],
)
def test_pages_of_others_get_nothing_by_a_persons_cookie(world, fields, status):
    assert world.ask(Cookie=world.log_in(), **fields).status == status


def test_pages_of_others_can_not_frame_it(world):
    found = world.ask(Cookie=world.log_in())
    assert found.fields["content-security-policy"] == "frame-ancestors 'self'"


def test_a_browser_that_comes_by_the_path_is_sent_to_the_ports_own_host(world):
    found = world.ask("/agent/web/:gui/lab?x=1&agentainer_token=abc", host="127.0.0.1:8081")
    assert found.status == 303
    assert found.fields["location"] == f"//{HOST}/lab?x=1&agentainer_token=abc"
    found = world.ask("/agent/web/:gui", host="localhost:8081", Accept="text/html,*/*")
    assert found.fields["location"] == f"//{HOST}/"
    found = world.ask("/:gui/a", host="web.localhost:8081", Accept="text/html")
    assert found.fields["location"] == f"//{HOST}/a"
    assert world.ask("/agent/web/:gui/", host="10.0.0.5:8081", Accept="text/html").json["code"] == "NO_HOST_OF_ITS_OWN"
    assert not world.screen.requests


def test_bodies_pass_whole_and_in_pieces(world):
    cookie = world.log_in()
    assert world.ask("/api", method="POST", body=b"x" * 100, Cookie=cookie).status == 200
    assert world.screen.requests[-1].endswith(b"\r\n\r\n" + b"x" * 100)
    with world.plane.connect() as connection:
        head = f"PUT /f HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode() + b"3\r\nabc\r\n")
        connection.sendall(b"2\r\nde\r\n0\r\n\r\n")
        assert Answered(receive_all(connection)).status == 200


def test_sockets_pass_both_ways(make_plane):
    def echo(connection, _request):
        connection.sendall(SWITCH + b"hello")
        while data := connection.recv(65536):
            connection.sendall(data.upper())
        connection.shutdown(socket.SHUT_WR)

    screen = RawAgent(echo)
    world = World(make_plane, screen)
    cookie = world.log_in()
    ask = f"GET /ws HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: %s\r\n\r\n"
    with world.plane.connect() as connection:
        connection.sendall((ask % f"http://{HOST}").encode())
        connection.sendall(b"abc")
        connection.shutdown(socket.SHUT_WR)
        found = receive_all(connection)
    assert found.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert found.endswith(b"\r\n\r\nhelloABC")
    assert world.route.in_flight == 0
    with world.plane.connect() as connection:
        connection.sendall((ask % "http://evil.localhost:8081").encode())
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection).startswith(b"HTTP/1.1 401 ")
    screen.close()


def test_it_is_never_queued(world):
    cookie = world.log_in()
    world.route.close()
    found = world.ask(method="POST", body=b"x", Cookie=cookie)
    assert (found.status, found.json["code"]) == (503, "AGENT_NOT_RUNNING")
    assert not world.plane.journal.pending


def test_a_port_where_nothing_listens_says_so_and_does_not_take_its_agent_down(world):
    suspects = []
    world.routes.on_suspect = lambda route, target: suspects.append(target)
    cookie = world.log_in()
    world.screen.close()
    found = world.ask(Cookie=cookie)
    assert (found.status, found.json["code"]) == (503, "PORT_CLOSED")
    assert not suspects
    assert world.plane.ask().status == 200


def test_who_looks_at_an_agent_keeps_it_awake(world):
    cookie = world.log_in()
    target = world.route.targets[0]
    target.used_at -= 1000
    assert world.route.idle_s() >= 1000
    assert world.ask(Cookie=cookie).status == 200
    assert world.route.idle_s() < 100
    target.port(world.screen.address[1]).in_flight += 1
    target.port(world.screen.address[1]).used_at -= 1000
    assert world.route.idle_s() == 0.0


def test_other_paths_with_a_colon_are_the_agents_own(world):
    assert world.plane.ask(path="/agent/web/:other/x").status == 200
    assert world.plane.ask(path="/agent/web/:guido").status == 200
    assert [request.split(b" ")[1] for request in world.plane.agent.requests] == [b"/:other/x", b"/:guido"]
    assert world.ask(host="other.web.localhost").status == 404
    assert world.ask("/agent/gui.web/", host="localhost").status == 404


def test_a_screen_that_gives_no_answer_is_said_to(make_plane):
    screen = RawAgent(lambda connection, request: connection.close())
    world = World(make_plane, screen)
    assert world.ask(Cookie=world.log_in()).json["code"] == "OUTCOME_UNKNOWN"
    screen.close()
