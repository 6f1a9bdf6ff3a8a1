"""What a client says in our name, and what an agent says to its neighbours' clients, goes nowhere.

An agent may believe: X-Agentainer-* and X-Forwarded-*, that no control token reaches it, and that its path is its own.
"""

import base64
import hashlib
import itertools

import pytest

from tests.fakes.agents import RawAgent, answer
from tests.fakes.planes import AGENT_ID, Answered
from tests.hostile.oracle import frame

OURS = {
    b"x-agentainer-request-id", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-prefix",
    b"via", b"traceparent", b"host", b"content-length",
}  # fmt: skip
SPOOFED = [
    *("X-Agentainer-Request-ID", "X-Agentainer-Replay", "X-Agentainer-Attempt", "X-Agentainer-Received-At"),
    *("X-Agentainer-Maybe-Duplicate", "X-Agentainer-Journal", "X-Agentainer-Anything-Else", "X-Forwarded-For", "X-Forwarded-Proto"),
    *("X-Forwarded-Host", "X-Forwarded-Prefix", "X-Forwarded-Port", "X-Forwarded-Server", "X-Forwarded-Uri", "X-Real-IP", "Forwarded"),
    *("Proxy-Authorization", "Proxy-Connection", "Keep-Alive", "TE", "Trailer"),
]  # fmt: skip
SIGNS = "-_.~!"


def spellings(name: str) -> list[str]:
    """Return a name with every sign for its hyphens, alone and mixed, in four cases."""
    parts = name.split("-")
    mixed = "".join(
        part + sign
        for part, sign in itertools.zip_longest(
            parts, itertools.islice(itertools.cycle("_-."), len(parts) - 1), fillvalue=""
        )
    )
    words = {sign.join(parts) for sign in SIGNS} | {mixed}
    return sorted({form for word in words for form in (word, word.lower(), word.upper(), word.swapcase())})


def ask(plane, fields: list[str], *, path: str = "/agent/web/", host: str = "localhost") -> Answered:
    head = "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", *fields, "", ""])
    return Answered(plane.send(head.encode("latin-1")))


def seen(plane) -> list:
    return [message for request in plane.agent.requests for message in frame(request).messages]


@pytest.mark.parametrize("name", SPOOFED)
def test_no_spelling_of_a_field_of_ours_comes_from_a_client(plane, name):
    fields = [f"{spelling}: evil" for spelling in spellings(name)]

    for start in range(0, len(fields), 40):
        batch = fields[start : start + 40]
        got = ask(plane, [*batch, *batch])  # each twice
        assert got.status == 200

    for message in seen(plane):
        assert b"evil" not in b"".join(value for _, value in message.fields)
        for ours in OURS - {b"content-length"}:
            assert len(message.values(ours)) == 1, ours
        assert message.values(b"x-forwarded-for") == [b"127.0.0.1"]
        assert message.values(b"x-forwarded-proto") == [b"http"]
        assert message.values(b"x-forwarded-host") == [b"localhost"]
        assert message.values(b"x-forwarded-prefix") == [b"/agent/web"]


def test_what_an_agent_gets_of_ours_is_not_the_clients_to_remove(plane):
    names = ", ".join([*(name.decode() for name in OURS), "x-agentainer-request-id", "transfer-encoding", "connection"])

    ask(plane, [f"Connection: {names}", "Content-Length: 0", "X-Forwarded-Host: evil"])
    ask(
        plane,
        [f"Connection: close, {names.upper()}", "traceparent: 00-11111111111111111111111111111111-2222222222222222-01"],
    )

    for message in seen(plane):
        for ours in OURS - {b"content-length"}:
            assert len(message.values(ours)) == 1, ours
        assert message.values(b"host") == [b"localhost"]
        assert message.values(b"x-forwarded-host") == [b"localhost"]
        assert not message.values(b"connection")


def test_fields_that_a_client_names_in_connection_stay_here(plane):
    ask(
        plane,
        [
            "Connection: X-One,x-TWO ,\tx-three",
            "X-One: 1",
            "X-Two: 2",
            "X-Three: 3",
            "X-Four: 4",
            "Connection: x-five",
            "X-Five: 5",
        ],
    )

    (message,) = seen(plane)
    assert [name for name, _ in message.fields if name.startswith((b"x-one", b"x-t", b"x-f")) and name not in OURS] == [
        b"x-four"
    ]


def test_a_trace_of_the_clients_is_kept_and_else_made(plane):
    own = "00-11111111111111111111111111111111-2222222222222222-01"
    ask(plane, [f"traceparent: {own}", "tracestate: a=b"])
    got = ask(plane, [])

    first, second = seen(plane)
    assert first.values(b"traceparent") == [own.encode()]
    assert first.values(b"tracestate") == [b"a=b"]
    request_id = got.fields["x-agentainer-request-id"]
    assert second.values(b"traceparent")[0].split(b"-")[1].decode() == request_id.replace("-", "")


# ---- paths

STRANGE_REFS = [
    *("%77eb", "we%62", "web%2f", "web%2F..", "web%00", "web%20", "web%5c", "%2e%2e", "%2e", "..", ".", "web;x", "web;", "web\\"),
    *("WEB", "Web", "web.", ".web", "web+", "web=", "web&", "web,", "web'", 'web"', "web*", "web~", "web!", "web$", "web@", "web:80"),
    *("web-", "-web", "web_", "web%", "web%2", "web%zz", "we", "webb", "w" * 64, "w" * 4000, AGENT_ID.upper(), AGENT_ID + "0", AGENT_ID[:-1]),
    *("localhost", "web.localhost", "[web]", "{web}", "<web>", "web|", "web^", "web`"),
]  # fmt: skip


@pytest.mark.parametrize("ref", STRANGE_REFS)
@pytest.mark.parametrize("behind", ["/", "", "?x", "/../web/", "/x"])
def test_an_agent_is_named_letter_by_letter_or_not_at_all(plane, ref, behind):
    got = ask(plane, [], path=f"/agent/{ref}{behind}")

    assert (got.status, got.json["code"]) == (404, "AGENT_NOT_FOUND")
    assert not plane.agent.requests


@pytest.mark.parametrize(
    "path",
    [
        *("//agent/web/", "/./agent/web/", "/x/../agent/web/", "/%61gent/web/", "/agent%2fweb/", "/Agent/web/", "/AGENT/web/", "/agents/web/"),
        *("/agent;x/web/", "/agent\\web/", "/agent?/web/", "/agent", "/%2fagent/web/", "/agent%00/web/", "/.//agent/web/", "\\agent\\web\\"),
    ],
)  # fmt: skip
def test_only_one_path_leads_to_agents(plane, path):
    got = ask(plane, [], path=path)

    assert got.status in (400, 503)  # 503: the control API, which does not run here, was asked
    assert not plane.agent.requests


@pytest.mark.parametrize("ref", ["", "/", "?x"])
def test_no_agent_has_no_name(plane, ref):
    assert ask(plane, [], path=f"/agent/{ref}").status == 404


@pytest.mark.parametrize(
    "rest",
    [
        *("/%2e%2e/%2e%2e/etc/passwd", "/../../agent/other/", "/..%2f..%2f", "//x", "/;a=b/;", "/%00", "/a%0d%0aX:%20y", "/\\..\\x", "/?", "/??"),
        *("/?a&a=&=b&%26", "/%", "/%zz", "/x?y/../z", "/" + "a" * 8000, '/"<>[]^`{|}~', "/http://b/", "/.", "/./", "/x/..", "/agent/web/x"),
    ],
)  # fmt: skip
def test_what_is_behind_the_name_is_the_agents_byte_for_byte(plane, rest):
    ask(plane, [], path=f"/agent/web{rest}")
    ask(plane, [], path=f"/agent/{AGENT_ID}{rest}")
    ask(plane, [], path=rest, host="web.localhost")

    assert [message.target for message in seen(plane)] == [rest.encode()] * 3


@pytest.mark.parametrize(
    "host",
    [
        "web.localhost.evil",
        "webXlocalhost",
        "web.localhost@evil",
        "evil.web.localhost",
        ".localhost",
        "web..localhost",
        "web.localhost:80:80",
    ],
)
def test_only_its_own_host_leads_to_an_agents_root(plane, host):
    assert ask(plane, [], path="/", host=host).status in (400, 403, 404, 421, 503)
    assert not plane.agent.requests


# ---- cookies

COOKIES = {
    "a=b": "/agent/web/",
    "a=b; Path=/": "/agent/web/",
    "a=b; Path=/x": "/agent/web/x",
    "a=b;path=/x": "/agent/web/x",
    "a=b;\tPATH\t=\t/x": "/agent/web/",
    "a=b ; pAtH=/x ; Secure": "/agent/web/x",
    "a=b; Path=": "/agent/web/",
    "a=b; Path": "/agent/web/",
    "a=b; Path=x": "/agent/web/",
    'a=b; Path="/"': "/agent/web/",
    "a=b; Path=/agent/other/": "/agent/web/agent/other/",
    "a=b; Path=/../other/": "/agent/web/../other/",
    "a=b; Path=/x; Path=/y": "/agent/web/y",
    "a=b; Path=/x; path=": "/agent/web/x",
    "a=b; ; ;Path=/x;": "/agent/web/x",
    "a=b; Domain=localhost": "/agent/web/",
    "a=b; DOMAIN = .localhost ;Path=/": "/agent/web/",
    "a=b; domain": "/agent/web/",
    "a; Path=/": "/agent/web/",
    "=b; Path=/": "/agent/web/",
    "Path=/; Path=/": "/agent/web/",
    "; Path=/": "/agent/web/",
    "a=b,c=d; Path=/": "/agent/web/",
}


def browsers_view(cookie: str) -> dict[str, str]:
    """Return the attributes as RFC 6265 5.2 reads them: split at `;`, the last of each name counts."""
    attributes = {}
    for part in cookie.split(";")[1:]:
        name, _, value = part.partition("=")
        attributes[name.strip(" \t").lower()] = value.strip(" \t")
    return attributes


@pytest.mark.parametrize("cookie", COOKIES)
def test_a_cookie_is_for_its_agents_path(make_plane, cookie):
    plane = make_plane(agent=RawAgent(lambda c, r: c.sendall(answer(fields=f"Set-Cookie: {cookie}\r\n".encode()))))

    attributes = browsers_view(ask(plane, []).fields["set-cookie"])

    assert attributes["path"] == COOKIES[cookie]
    assert "domain" not in attributes


@pytest.mark.parametrize(
    "cookie", ["a=b; Domain=localhost", "a=b; Path=/x; dOmAiN = .localhost; Secure", "a=b;domain=localhost;domain=x"]
)
def test_a_cookie_set_at_an_agents_own_host_is_not_for_its_neighbours(make_plane, cookie):
    plane = make_plane(agent=RawAgent(lambda c, r: c.sendall(answer(fields=f"Set-Cookie: {cookie}\r\n".encode()))))

    attributes = browsers_view(ask(plane, [], path="/", host="web.localhost").fields["set-cookie"])

    assert "domain" not in attributes
    assert attributes.get("path") == browsers_view(cookie).get("path")


def test_a_repeated_answers_cookie_is_for_its_agents_path_too(make_plane):
    fields = b"Set-Cookie: a=b; Path=/; Domain=localhost\r\n"
    plane = make_plane(agent=RawAgent(lambda c, r: c.sendall(answer(fields=fields))))

    first, second = (ask(plane, ["Idempotency-Key: one"]) for _ in range(2))

    assert second.fields["idempotent-replayed"] == "true"
    assert second.fields["set-cookie"] == first.fields["set-cookie"] == "a=b; Path=/agent/web/"


def test_other_spellings_of_set_cookie_set_none(make_plane):
    fields = b"Set_Cookie: a=b\r\nset.cookie: a=b\r\nSet~Cookie: a=b\r\n"
    plane = make_plane(agent=RawAgent(lambda c, r: c.sendall(answer(fields=fields))))

    assert b"a=b" not in ask(plane, []).raw


# ---- control tokens

TOKEN = b"agt_root"
CREDENTIALS = [
    *("Bearer agt_root", "bearer agt_root", "BEARER agt_root", "bEaReR agt_root", "Bearer  agt_root", "Bearer     agt_root", "agt_root"),
    *("Bearer agt_root ", "  Bearer agt_root", "Bearer agt_root\t", "Bearer\tagt_root", "Bearer \tagt_root", "Bearer\t agt_root"),
]  # fmt: skip
OTHER_SCHEMES = [
    *("Token agt_root", "Basic " + base64.b64encode(b"user:agt_root").decode(), "Basic " + base64.b64encode(b"agt_root:").decode()),
    *("Bearer, agt_root", "Bearer Bearer agt_root", "ApiKey agt_root"),
]  # fmt: skip


@pytest.fixture
def guarded(plane):
    plane.routes.control_token_digests = frozenset([hashlib.sha256(TOKEN).digest()])
    return plane


@pytest.mark.parametrize("credentials", [*CREDENTIALS, *OTHER_SCHEMES])
@pytest.mark.parametrize("gate", ["open", "closed"])
def test_a_control_token_reaches_no_agent_however_it_is_written(guarded, credentials, gate):
    if gate == "closed":
        guarded.route.close()

    got = ask(guarded, [f"Authorization: {credentials}"])

    assert got.status == 400, got.raw
    assert not guarded.agent.requests
    assert not guarded.journal.pending


def test_a_second_authorization_hides_no_control_token(guarded):
    for fields in (
        ["Authorization: Bearer x", "Authorization: Bearer agt_root"],
        ["Authorization: Bearer agt_root", "AUTHORIZATION: x"],
    ):
        assert ask(guarded, fields).status == 400
    assert ask(guarded, ["Authorization_: Bearer agt_root", "Proxy-Authorization: Bearer agt_root"]).status == 200
    assert ask(guarded, ["Authorization: Bearer x", "Authorization_: y", "Connection: authorization"]).status == 200

    assert not [request for request in guarded.agent.requests if b"Proxy-Auth" in request]


# ---- upgrades that would open a way around

H2C = ["h2c", "H2C", "h2c ", "h2", "h2c-14", "HTTP/2.0", "websocket, h2c", "h2c,websocket", "h2c, h2"]


@pytest.mark.parametrize("protocols", H2C)
def test_http2_is_never_offered_to_an_agent(plane, protocols):
    head = "GET /agent/web/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: x\r\n"
    with plane.connect() as connection:
        connection.sendall(f"{head}Upgrade: {protocols}\r\n\r\n".encode())
        connection.recv(65536)

    (message,) = seen(plane)
    offered = b", ".join(message.values(b"upgrade")).lower()
    assert offered == (b"websocket" if "websocket" in protocols else b"")
    assert not message.values(b"http2-settings")


@pytest.mark.parametrize(
    "head",
    [
        "GET /agent/web/x HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "GET /agent/web/x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nUpgrade: websocket\r\n\r\n",
        "GET /agent/web/x HTTP/1.0\r\nHost: a\r\nConnection: upgrade, keep-alive\r\nUpgrade: websocket\r\n\r\n",
    ],
)
def test_an_upgrade_that_is_not_asked_for_properly_is_none(plane, head):
    """RFC 9110 7.8: Upgrade counts with `Connection: upgrade` only, and not in HTTP/1.0."""
    raw = plane.send(head.encode() + b"GET /agent/web/y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

    assert raw.startswith(b"HTTP/1.1 200")
    assert not [message for message in seen(plane) if message.values(b"upgrade") or message.values(b"connection")]
    assert seen(plane)[0].target == b"/x"
