"""What the program says when it cannot reach the daemon: each of these faults really happens here."""

import grp
import json
import os
import pwd
import socket
import stat

import pytest

from agentainerctl import failures
from agentainerctl.endpoints import Endpoint, find_endpoint
from tests.unit.ctl.fake_api import agent, begin_stream, send

HINT = "sudo systemctl start agentainerd   then: journalctl -u agentainerd -n 20   (without systemd: agentainerd)"
NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def run_without_rights(run):
    """`run` as a user without rights: root becomes nobody, after the imports (root's Python may be closed to others)."""
    if os.geteuid() != 0:
        return run, pwd.getpwuid(os.geteuid()).pw_name
    become = "import difflib, grp, os, pwd, sys, traceback, agentainerctl.commands.agents\n"
    become += f"os.setgroups([]); os.setgid({NOBODY.pw_gid}); os.setuid({NOBODY.pw_uid})\n"
    become += "from agentainerctl.cli import main\nsys.exit(main())"
    return lambda *arguments, **settings: run(*arguments, program=("-c", become), **settings), "nobody"


def test_no_daemon_names_the_endpoint_and_who_chose_it(run, tmp_path):
    ran = run("list")

    where = f"unix://{tmp_path}/agentainer.sock"
    assert ran == (
        5,
        "",
        f"error: agentainerd is not running (tried {where}, from AGENTAINER_HOST)\n"
        f"hint: check the endpoint, which is from AGENTAINER_HOST; on its host: {HINT}\n",
    )


def test_no_daemon_at_the_flags_endpoint_says_from_host(run, tmp_path):
    ran = run("list", "--host", f"unix://{tmp_path}/other.sock")

    assert ran.code == 5
    assert f"(tried unix://{tmp_path}/other.sock, from --host)" in ran.err


def test_no_daemon_in_the_runtime_folder(run, tmp_path):
    ran = run("list", env={"AGENTAINER_HOST": "", "AGENTAINER_RUNTIME_DIR": str(tmp_path)})

    assert ran.code == 5
    assert ran.err == (
        f"error: agentainerd is not running (tried unix://{tmp_path}/agentainer.sock, from AGENTAINER_RUNTIME_DIR)\n"
        f"hint: {HINT}\n"
    )


def test_the_default_of_a_user_is_both_sockets(tmp_path):
    endpoint = find_endpoint({"XDG_RUNTIME_DIR": str(tmp_path)}, is_root=False)

    error = failures.unreachable(endpoint, FileNotFoundError())

    tried = f"unix://{tmp_path}/agentainer/agentainer.sock and unix:///run/agentainer/agentainer.sock"
    assert error.message == f"agentainerd is not running (tried {tried}, the default)"
    assert error.hint == HINT


def test_a_socket_that_nobody_listens_on(run, tmp_path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "agentainer.sock"))

    ran = run("list")

    assert ran.code == 5
    assert "from AGENTAINER_HOST): connection refused" in ran.err


def test_a_socket_without_permission_says_owner_mode_user_and_groups(api, run_without_rights, tmp_path):
    run, user = run_without_rights
    open_the_way(tmp_path)
    path = tmp_path / "agentainer.sock"
    path.chmod(0o000)
    owner, group = path.owner(), path.group()

    ran = run("list")

    assert ran.code == 6
    assert ran.out == ""
    assert ran.err.startswith(
        f"error: permission denied on {path} (owner {owner}:{group}, mode 0000); you are {user} (groups: "
    )


def test_a_closed_folder_on_the_way_is_named_as_such(api, run_without_rights, tmp_path):
    run, user = run_without_rights
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)

    ran = run("list", env={"AGENTAINER_HOST": f"unix://{closed}/agentainer.sock"})

    assert ran.code == 6
    assert f"(a folder on the way is closed to you); you are {user}" in ran.err
    closed.chmod(0o700)


@pytest.mark.parametrize(
    ("mode", "group", "hint"),
    [
        (0o660, "adm", "sudo usermod -aG adm {user}, then log in again"),
        (
            0o600,
            "adm",
            "sudo agentainerctl ...   or: sudo groupadd agentainer, restart agentainerd, and join that group",
        ),
        (
            0o660,
            "root",
            "sudo agentainerctl ...   or: sudo groupadd agentainer, restart agentainerd, and join that group",
        ),
    ],
)
def test_the_way_to_permission_depends_on_the_sockets_group(tmp_path, mode, group, hint):
    path = tmp_path / "agentainer.sock"
    path.touch()
    path.chmod(mode)
    if os.geteuid() == 0:
        os.chown(path, 0, grp.getgrnam(group).gr_gid)
    elif group != "adm" or mode != 0o600:
        pytest.skip("only root can give a file to another group")

    error = failures.unreachable(Endpoint("the default", socket_path=str(path)), PermissionError())

    assert error.code == "SOCKET_DENIED"
    assert error.hint == hint.format(user=pwd.getpwuid(os.geteuid()).pw_name)


def test_a_port_that_refuses(run):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        ran = run("--host", f"http://127.0.0.1:{port}", "list")

    assert ran.code == 5
    assert ran.err.startswith(
        f"error: agentainerd is not running (tried http://127.0.0.1:{port}, from --host): connection refused\n"
    )


def test_a_host_that_does_not_exist(run):
    ran = run("--host", "http://no-such-host.invalid", "list")

    assert ran.code == 5
    assert "tried http://no-such-host.invalid:8081, from --host" in ran.err


@pytest.mark.parametrize(
    "text", ["localhost", "unix://relative", "ftp://x", "http://", "http://x:99999", "http://x/path", "unix:/x"]
)
def test_what_is_no_endpoint_is_a_usage_error(run, text):
    ran = run("list", env={"AGENTAINER_HOST": text})

    assert ran.code == 2
    assert ran.err == (
        f"error: host: {text!r} is not an endpoint (from AGENTAINER_HOST)\n"
        "hint: write it as unix:///run/agentainer/agentainer.sock or http://127.0.0.1:8081\n"
    )


def test_tls_is_not_spoken(run):
    ran = run("--host", "https://example.com", "list")

    assert ran.code == 2
    assert "agentainerd speaks no TLS itself" in ran.err


def test_over_tcp_the_token_is_sent_and_over_the_socket_it_is_not(api, tcp_api, run):
    for server in (api, tcp_api):
        server.on("GET", "/agents", [])
        run("--host", server.url, "--token", "sesame-sesame", "list")

    assert tcp_api.asked[0].headers["Authorization"] == "Bearer sesame-sesame"
    assert "Authorization" not in api.asked[0].headers


def test_the_token_comes_from_flag_then_file_then_environment(tcp_api, run, tmp_path):
    tcp_api.on("GET", "/agents", [])
    (tmp_path / "token").write_text("from-the-file\n")
    env = {"AGENTAINER_HOST": tcp_api.url, "AGENTAINER_TOKEN": "from-the-environment"}

    run("list", env=env)
    run("list", "--token-file", "token", env=env)
    run("--token", "from-the-flag", "list", "--token-file", "token", env=env)

    sent = [asked.headers["Authorization"] for asked in tcp_api.asked]
    assert sent == ["Bearer from-the-environment", "Bearer from-the-file", "Bearer from-the-flag"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--token-file", "missing"), "error: token-file: cannot read missing: No such file or directory\n"),
        (("--token-file", "empty"), "error: token-file: empty is empty\n"),
        (("--token", "with space"), "error: token: has characters that no token has (from --token)\n"),
        (("--token", "line\nbreak"), "error: token: has characters that no token has (from --token)\n"),
        (("--token", "ünïcode"), "error: token: has characters that no token has (from --token)\n"),
    ],
)
def test_a_token_that_can_be_none_is_a_usage_error(run, tmp_path, arguments, expected):
    (tmp_path / "empty").write_text("")

    assert run(*arguments, "list") == (2, "", expected)


def test_a_wrong_token_says_where_it_came_from_and_never_what_it_is(tcp_api, run):
    tcp_api.on("GET", "/agents", status=401, message="Invalid authorization token", code="UNAUTHORIZED")

    ran = run("list", env={"AGENTAINER_HOST": tcp_api.url, "AGENTAINER_TOKEN": "0123456789abcdef9f2c"})

    address = tcp_api.url.removeprefix("http://")
    assert ran == (
        6,
        "",
        f"error: {address} refused the token (from AGENTAINER_TOKEN, ends in ...9f2c)\n"
        "hint: on the daemon's host: agentainerctl token show   or unset AGENTAINER_HOST to use the local socket\n",
    )


def test_a_short_token_is_not_shown_at_all(tcp_api, run):
    tcp_api.on("GET", "/agents", status=401, message="Invalid authorization token", code="UNAUTHORIZED")

    assert "ends in" not in run("--host", tcp_api.url, "--token", "secret12", "list").err


def test_a_missing_token_says_how_to_give_one(tcp_api, run):
    tcp_api.on("GET", "/agents", status=401, message="Missing authorization token", code="UNAUTHORIZED")

    ran = run("--host", tcp_api.url, "list")

    assert ran.code == 6
    assert "asks for a token, and none was given" in ran.err
    assert "AGENTAINER_TOKEN" in ran.err


@pytest.mark.parametrize(
    "answer",
    [b"<html>hello</html>", b"[]", b"", b'"text"'],
)
def test_somebody_elses_server_is_told_apart(api, run, answer):
    api.on_raw("GET", "/agents", lambda handler, _: send(handler, 200, answer))

    ran = run("list")

    assert ran.code == 5
    assert "is not agentainerd's API" in ran.err


def test_what_is_not_http_at_all(run, tmp_path):
    from gevent.server import StreamServer

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "agentainer.sock"))
    listener.listen(1)

    def greet(connection, _):
        connection.recv(65536)
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

    server = StreamServer(listener, greet)
    server.start()
    ran = run("list")
    server.stop()
    listener.close()

    assert ran.code == 5
    assert "is not agentainerd's API" in ran.err


def test_a_daemon_that_dies_before_it_answers(api, run):
    def die(handler, _):
        handler.close_connection = True

    api.on_raw("POST", "/agents/web/stop", die)

    ran = run("stop", "web")

    assert ran.code == 5
    assert ran.err.startswith("error: the connection to agentainerd (unix:///")
    assert "hint: it may or may not have been done; see: agentainerctl list" in ran.err


def test_a_daemon_that_dies_within_its_answer(api, run):
    def die(handler, _):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"success": true')
        handler.close_connection = True

    api.on_raw("GET", "/agents", die)

    ran = run("list")

    assert ran.code == 5
    assert "broke before it answered" in ran.err


def test_a_stream_that_brings_something_else_than_lines(api, run):
    def mix(handler, _):
        begin_stream(handler)
        handler.wfile.write(b"9\r\nnot json\n\r\n0\r\n\r\n")

    api.on_raw("GET", "/agents/web/logs", mix)

    assert run("logs", "web").code == 5


def test_with_json_errors_are_json_on_stderr(api, run):
    api.on("GET", "/agents/web", status=503, message="cannot reach Redis", code="REDIS_UNAVAILABLE", hint="wait")

    ran = run("inspect", "--json", "web")

    assert ran.code == 1
    assert ran.out == ""
    assert json.loads(ran.err) == {
        "success": False,
        "message": "cannot reach Redis",
        "error": "cannot reach Redis",
        "code": "REDIS_UNAVAILABLE",
        "hint": "wait",
        "exit_code": 1,
    }


@pytest.mark.parametrize("form", [("--json",), ("-o", "json"), ("-ojson",), ("--output=json",), ("--output", "json")])
def test_usage_errors_are_json_too(run, form):
    ran = run("list", "--no-such-option", *form)

    assert ran.code == 2
    assert json.loads(ran.err)["message"] == "No such option '--no-such-option'"


@pytest.mark.parametrize(("status", "expected"), [(409, 4), (503, 1)])
def test_the_status_of_an_answer_decides_the_exit_code(api, run, status, expected):
    api.on("GET", "/agents", status=status, message="no", code="X")

    assert run("list") == (expected, "", "error: no\n")


def test_messages_of_the_daemon_cannot_steer_the_terminal(api, run):
    api.on(
        "GET",
        "/agents",
        status=500,
        message="bad \x1b[2Jthing\nsecond\x07",
        code="X",
        hint="do\x1b this",
        details={"log": ["\x1b[31mred\x1b]0;t\x07"]},
    )

    err = run("list").err

    assert "\x1b" not in err
    assert "\x07" not in err
    assert r"error: bad \x1b[2Jthing" in err
    assert "  | red" in err


def test_debug_shows_the_traceback_and_nothing_else_does(run):
    assert "Traceback" not in run("list").err
    assert "Traceback (most recent call last)" in run("list", "--debug").err
    assert "Traceback (most recent call last)" in run("--debug", "list").err


def test_a_bug_is_one_line(api, run):
    api.on("GET", "/agents", [{"id": "a", "name": "b", "requests": 5}])

    ran = run("list", "-o", "wide")

    assert ran.code == 1
    assert ran.err.startswith("error: internal error: AttributeError: ")
    assert "Traceback" not in ran.err


def test_options_of_connection_stand_before_or_after_the_command(api, run):
    api.on("GET", "/agents", [agent()])
    api.on("GET", "/system/ping", {})

    assert run("--host", api.url, "list", env={"AGENTAINER_HOST": ""}).code == 0
    assert run("list", "--host", api.url, env={"AGENTAINER_HOST": ""}).code == 0
    assert run("system", "--host", api.url, "ping", env={"AGENTAINER_HOST": ""}).code == 0
    assert run("system", "ping", "--host", api.url, env={"AGENTAINER_HOST": ""}).code == 0


def test_proxies_of_the_environment_are_not_used(tcp_api, run):
    tcp_api.on("GET", "/agents", [])

    assert (
        run(
            "list",
            env={"AGENTAINER_HOST": tcp_api.url, "http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"},
        ).code
        == 0
    )


def open_the_way(path):
    for folder in [path, *path.parents]:
        mode = stat.S_IMODE(folder.stat().st_mode)
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)
