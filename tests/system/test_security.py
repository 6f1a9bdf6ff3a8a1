"""What a client on the network can do to a real daemon, and what it can't. Nothing here needs an engine."""

import base64
import hashlib
import json
import re
import signal
import socket
from pathlib import Path

import psutil
import pytest
import yaml

from agentainerd import defaults
from tests.fakes.agents import receive_all
from tests.fakes.daemons import DaemonProcess
from tests.unit.api.test_paths import spellings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def daemon(start_daemon) -> DaemonProcess:
    return start_daemon(engine=False)


REBOUND = [("evil.example", None, "HOST_NOT_ALLOWED"), ("localhost", "http://evil.example", "ORIGIN_NOT_ALLOWED")]


def fields_of(daemon, host, origin) -> dict[str, str]:
    token = {"Authorization": f"Bearer {daemon.token}"}
    return {**token, "Host": host, **({"Origin": origin} if origin else {})}


@pytest.mark.parametrize(("host", "origin", "code"), REBOUND)
def test_a_page_that_had_its_name_rebound_does_not_reach_the_api(daemon, host, origin, code):
    status, said, _ = daemon.http("GET", "/agents", headers=fields_of(daemon, host, origin))

    assert (status, said["code"]) == (403, code)


@pytest.mark.parametrize(("host", "origin", "code"), REBOUND)
def test_a_page_that_had_its_name_rebound_does_not_learn_which_agents_there_are(daemon, host, origin, code):
    fields = fields_of(daemon, host, origin)
    del fields["Authorization"]

    status, said, _ = daemon.http("GET", "/agent/web/", headers=fields)

    assert (status, said["code"]) == (403, code)


def test_names_that_are_allowed_are_taken_at_once_after_a_reload(daemon, eventually):
    fields = fields_of(daemon, "agents.example.com", "https://app.example.com")
    assert daemon.http("GET", "/agents", headers=fields)[0] == 403
    (daemon.folder / "config.yaml").write_text(
        'server:\n  allowed_hosts: ["*.example.com"]\n  allowed_origins: ["https://app.example.com"]\n'
    )

    daemon.signal(signal.SIGHUP)

    eventually(lambda: daemon.http("GET", "/agents", headers=fields)[0] == 200)
    other = fields_of(daemon, "agents.example.com", "https://other.example.net")
    assert daemon.http("GET", "/agents", headers=other)[1]["code"] == "ORIGIN_NOT_ALLOWED"


def test_probes_of_health_are_answered_under_any_name(daemon):
    assert daemon.http("GET", "/livez", headers={"Host": "evil.example"})[0] == 200


def test_the_client_behind_a_trusted_proxy_is_the_one_that_is_told_of(start_daemon, eventually):
    daemon = start_daemon(engine=False, config="server:\n  trusted_proxies: [127.0.0.0/8]\n")

    daemon.http("GET", "/agents", headers={"Authorization": "Bearer wrong", "X-Forwarded-For": "203.0.113.5"})

    def told() -> list[str]:
        lines = [json.loads(line) for line in (daemon.state_dir / "audit.log").read_text().splitlines()]
        return [line["address"] for line in lines if line["action"] == "log_in"]

    eventually(told, what="the entry of the audit log")
    assert told() == ["203.0.113.5"]


def raw(daemon: DaemonProcess, head: str, body: bytes = b"") -> int:
    """Send bytes as they are, and return the status of the answer."""
    with socket.create_connection(("127.0.0.1", daemon.port), 10) as connection:
        connection.sendall(head.encode("latin-1") + body)
        return int(receive_all(connection, 10).split(b" ", 2)[1])


def credentials(token: str) -> dict[str, tuple[list[str], bool | int]]:
    """Return header lines by what they try, and whether they open; a number: the status of what is no HTTP."""
    other = "agt_" + "x" * (len(token) - 4)
    bearer = f"Authorization: Bearer {token}"
    basic = base64.b64encode(f"{token}:".encode()).decode()
    opens = {
        "the token": [bearer],
        "no scheme, as the original took it": [f"Authorization: {token}"],
        "a query token beside it": [bearer],
        "spaces around it": [f"Authorization:   Bearer   {token}   "],
        "a tab around it": [f"Authorization:\tBearer {token}\t"],
        "no space behind the colon": [f"Authorization:Bearer {token}"],
        "named in Connection": [bearer, "Connection: close, Authorization"],
        "behind many fields": [*(f"X-{number}: {number}" for number in range(60)), bearer],
        "with a cookie": [bearer, "Cookie: token=wrong"],
        "with another field of that kind": [bearer, f"X-Authorization: Bearer {other}"],
    }
    opens |= {
        f"scheme {scheme}": [f"Authorization: {scheme} {token}"] for scheme in ("bearer", "BEARER", "bEaReR", "Bearer ")
    }
    opens |= {
        f"field {name}": [f"{name}: Bearer {token}"] for name in ("authorization", "AUTHORIZATION", "aUTHORIZATION")
    }
    wrong = [
        "", "Bearer", "Bearer ", "Bearer      ", f"Bearer {other}", f"Bearer {token[:-1]}", f"Bearer {token}x", f"Bearer x{token}",
        f"Bearer {token[:20]}", f"Bearer {token[4:]}", f"Bearer {token.upper()}", f"Bearer {token.lower()}", f"Bearer {token.swapcase()}",
        f"Bearer {token[::-1]}", f"Bearer {token} {token}", f"Bearer {token},{token}", f"Bearer {token}, Bearer {token}",
        f"Bearer {token};", f"Bearer {token}=", f'Bearer "{token}"', f"Bearer '{token}'", f"Bearer <{token}>", f"Bearer {token}/",
        f"Bearer Bearer {token}", f"Bearer: {token}", f"Bearer={token}", f"Bearer{token}", f"Bearer\t{token}", f"Bearer,{token}",
        f"Basic {basic}", f"Basic {token}", f"Token {token}", f"Digest {token}", f"Negotiate {token}", f"ApiKey {token}",
        f"Bearer {basic}", f"Bearer {token.encode().hex()}", f"Bearer {hashlib.sha256(token.encode()).hexdigest()}",
        f"Bearer {'%'.join(['', *(f'{ord(sign):02x}' for sign in token)])}", f"Bearer {token[:10]}\xa0{token[10:]}", f"Bearer {token}\xe9",
        f"Bearer {token}\xc2\xad", f"Bearer {token[:-1]}\xd0\xb0", "Bearer " + "x" * 8192, "Bearer " + token * 180, "Bearer agt_",
        "Bearer agentainer-default-token", "Bearer null", "Bearer undefined", "Bearer None", "Bearer true", "Bearer 0", "Bearer *",
        "Bearer {}", "Bearer []", "Bearer ' OR '1'='1", "Bearer %00", "Bearer %s%s%n", "Bearer ../../token", "Bearer $(cat token)",
        "Bearer admin", "Bearer root", "Bearer =", "Bearer -", "Bearer \\x00", "Bearer {{7*7}}", "Bearer ${jndi:ldap://x}", "Bearer @token",
        "Bearer nil", "Bearer 1",
        "null", "None", "*", "token", "Bearer " + "0" * 47, "Bearer " + "agt_" + "0" * 43, "Bearer " + "agt_" + "z" * 43,
    ]  # fmt: skip
    tries: dict[str, tuple[list[str], bool | int]] = {name: (lines, True) for name, lines in opens.items()}
    tries |= {f"value {value[:60]!r}": ([f"Authorization: {value}"], False) for value in wrong}
    elsewhere = (
        "X-Authorization", "Proxy-Authorization", "X-Api-Key", "X-Auth-Token", "X-Agentainer-Token", "Authorization_", "X_Authorization",
        "Http-Authorization", "HTTP_AUTHORIZATION", "Authorisation", "X-Forwarded-Authorization", "X-Original-Authorization", "Token",
    )  # fmt: skip
    tries |= {f"field {name}": ([f"{name}: Bearer {token}"], False) for name in elsewhere}
    tries |= {
        "no field": ([], False),
        "a cookie": ([f"Cookie: token={token}"], False),
        "a cookie of that name": ([f"Cookie: Authorization=Bearer {token}"], False),
        "twice": ([bearer, bearer], 400),
        "right, then wrong": ([bearer, f"Authorization: Bearer {other}"], 400),
        "wrong, then right": ([f"Authorization: Bearer {other}", bearer], 400),
        "empty, then right": (["Authorization:", bearer], 400),
        "in two cases": ([bearer, f"AUTHORIZATION: Bearer {token}"], 400),
        "a NUL in it": ([f"Authorization: Bearer {token}\0"], 400),
        "a NUL before it": ([f"Authorization: \0Bearer {token}"], 400),
        "a space before the colon": ([f"Authorization : Bearer {token}"], 400),
        "folded": ([f"Authorization: Bearer\r\n {token}"], 400),
        "a bare LF in it": ([f"Authorization: Bearer x\nAuthorization: Bearer {token}"], 400),
        "a bare CR in it": ([f"Authorization: Bearer {token}\r"], 400),
        "20 KiB": (["Authorization: Bearer " + "x" * 20_480], 431),
    }
    return tries


def test_of_120_ways_to_say_who_one_is_only_the_token_opens(daemon):
    cases = credentials(daemon.token)
    assert len(cases) >= 120
    wrong = {}
    for number, (name, (lines, opens)) in enumerate(cases.items()):
        head = "\r\n".join(["GET /agents HTTP/1.1", "Host: localhost", "Connection: close", *lines, "", ""])
        expected = {200} if opens is True else {401, 429} if opens is False else {opens}
        if "Bearer\t" in head:  # a sign that may be refused as HTTP
            expected.add(400)
        if (status := raw(daemon, head)) not in expected:
            wrong[name] = status
        if number % 20 == 19:  # however often others from here were wrong
            assert daemon.http("GET", "/agents", headers={"Authorization": f"Bearer {daemon.token}"})[0] == 200

    assert wrong == {}


ELSEWHERE = [
        ("GET /agents?token=TOKEN HTTP/1.1\r\nHost: localhost\r\n", "", {401}),
        ("GET /agents?Authorization=Bearer%20TOKEN HTTP/1.1\r\nHost: localhost\r\n", "", {401}),
        ("GET http://u:TOKEN@localhost/agents HTTP/1.1\r\nHost: localhost\r\n", "", {400}),
        ("GET http://TOKEN@localhost/agents HTTP/1.1\r\nHost: TOKEN@localhost\r\n", "", {400}),
        ("POST /agents HTTP/1.1\r\nHost: localhost\r\nContent-Length: LENGTH\r\n", '{"token": "TOKEN", "Authorization": "Bearer TOKEN"}', {401}),
        (
            "POST /agents HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n",
            "2\r\n{}\r\n0\r\nAuthorization: Bearer TOKEN\r\n\r\n",
            {401},
        ),
        ("GET /agents HTTP/1.0\r\nAuthorization: Bearer nope\r\n", "", {401, 403}),
    ]  # fmt: skip


def test_a_token_anywhere_else_does_not_open(daemon):
    wrong = {}
    for head, body, statuses in ELSEWHERE:
        content = body.replace("TOKEN", daemon.token).encode()
        text = head.replace("TOKEN", daemon.token).replace("LENGTH", str(len(content)))
        if (status := raw(daemon, text + "Connection: close\r\n\r\n", content)) not in statuses:
            wrong[head] = status

    assert wrong == {}


def test_requests_to_the_api_leave_no_connections_behind(daemon):
    """Each open one holds one of MAX_API_CONNECTIONS places."""
    before = psutil.Process(daemon.pid).num_fds()

    answers = [daemon.http("GET", "/agents")[0] for _ in range(defaults.MAX_API_CONNECTIONS + 20)]

    assert set(answers) == {401}
    assert psutil.Process(daemon.pid).num_fds() < before + 20


def test_no_spelling_of_any_path_gets_past_the_data_plane_to_another_route(daemon):
    """The table of tests/unit/api/test_paths.py through sockets, without a token: 401 says that a route was found."""
    document = yaml.safe_load((ROOT / "agentainerd/api/openapi.yaml").read_text())
    paths = [path for path, item in document["paths"].items() if path != "/" and item.get("x-served-by") != "proxy"]
    wrong = {}
    for template in paths:
        for path in spellings(re.sub(r"{\w+}", "web", template))[::4]:
            if any(sign <= " " or sign in "#\x7f" for sign in path):
                continue
            status = raw(daemon, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            if status not in (200, 400, 401, 404, 405, 429, 503):
                wrong[path] = status

    assert wrong == {}
    assert "internal error" not in daemon.log
    assert "Traceback" not in daemon.log


AGENT_PATHS = [
        "/agent", "/agent/", "/agent//", "/agent/..", "/agent/../agents", "/agent/%2e%2e/agents", "/agent/web%2f..", "/agent/web/..%2fx",
        "/agent/%77eb/", "/agent/WEB/", "/agent/web;x/", "/agent/web%00/", "/agent%2fweb/", "//agent/web/", "/x/../agent/web/", "/agent/.",
        "/Agent/web/", "/agent/" + "a" * 64 + "/", "/agent/web%20/", "/agent/-/", "/agent/*/", "/agent/web\\/",
    ]  # fmt: skip


def test_no_spelling_of_an_agents_path_is_the_apis_or_an_internal_error(daemon):
    found = {
        path: raw(daemon, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        for path in AGENT_PATHS
    }

    # 503: there is no engine, so the agents are not known
    assert {path: status for path, status in found.items() if status not in (400, 404, 503)} == {}
