"""`deploy` and `build` as processes: what is sent, what is shown, what is said when it fails."""

import io
import json
import re
import tarfile

import pytest

from tests.unit.ctl.fake_api import agent, send

RESULT = {"result": {"image": "x", "image_id": "sha256:abc"}}
CREATED = agent(status="created", ready=False, volumes=[])


@pytest.fixture
def deployable(api):
    """Everything a deploy asks goes well."""
    api.on_lines("POST", "/images/pull", RESULT)
    api.on_lines("POST", "/images/build", RESULT)
    api.on("POST", "/agents", CREATED, status=201)
    api.on("POST", "/agents/web/start", agent())
    return api


def body(api):
    return next(asked.json for asked in api.asked if (asked.method, asked.path) == ("POST", "/agents"))


def test_output_is_the_originals(deployable, run):
    deployable.forget("POST", "/agents")
    deployable.on("POST", "/agents", agent(status="created", ready=False), status=201)

    ran = run("deploy", "--name", "web", "--image", "nginx:alpine")

    assert ran == (
        0,
        "Agent deployed successfully!\n"
        "ID: agent-00000000000000a1\n"
        "Name: web\n"
        "Image: nginx:alpine\n"
        "Status: created\n"
        "\n"
        "Access:\n"
        "  Proxy: http://localhost:8081/agent/web/\n"
        "  API:   http://localhost:8081/agents/agent-00000000000000a1\n"
        "\n"
        "Volume mappings:\n"
        "  /srv/data -> /data (ro)\n",
        "Start it with: agentainerctl start web\n",
    )


def test_only_what_was_given_is_sent(deployable, run):
    run("deploy", "-n", "web", "-i", "nginx:alpine")

    assert body(deployable) == {"name": "web", "image": "nginx:alpine"}


def test_every_option_has_its_field(deployable, run, tmp_path):
    ran = run(
        *("deploy", "-n", "web", "-i", "nginx:alpine", "-e", "LIST=a,b=c", "-e", "EMPTY=", "-e", "FROM_HERE"),
        *(
            "--secret",
            "API_KEY=s3cret",
            "--secret",
            "HIDDEN",
            "-v",
            "./data:/data:ro",
            "-v",
            "cache:/cache",
            "-v",
            "/abs:/abs:rw",
        ),
        *("-c", "500m", "-m", "1Gi", "-r", "-t", "a-token-of-its-own", "-p", "3000", "-l", "team=search", "-l", "bare"),
        *("--network-egress", "off", "--hold-timeout", "5s", "--request-timeout", "2m", "--stop-grace", "30"),
        *("--persistence", "on", "--replay-policy", "safe", "--replay-concurrency", "2", "--ordered"),
        *("--max-pending", "50", "--max-pending-size", "10M", "--", "python", "-m", "agent", "--image", "x"),
        env={"FROM_HERE": "here", "HIDDEN": "unseen"},
    )

    assert ran.code == 0
    assert body(deployable) == {
        "name": "web",
        "image": "nginx:alpine",
        "env_vars": {"LIST": "a,b=c", "EMPTY": "", "FROM_HERE": "here", "API_KEY": "s3cret", "HIDDEN": "unseen"},
        "secrets": ["API_KEY", "HIDDEN"],
        "volumes": [
            {"host_path": f"{tmp_path}/data", "container_path": "/data", "read_only": True},
            {"host_path": "cache", "container_path": "/cache", "read_only": False},
            {"host_path": "/abs", "container_path": "/abs", "read_only": False},
        ],
        "cpu_limit": 500_000_000,
        "memory_limit": 1024**3,
        "auto_restart": True,
        "token": "a-token-of-its-own",
        "port": 3000,
        "labels": {"team": "search", "bare": ""},
        "network_egress": False,
        "hold_timeout_s": 5.0,
        "request_timeout_s": 120.0,
        "stop_grace_s": 30.0,
        "persistence": True,
        "replay_policy": "safe",
        "replay_concurrency": 2,
        "ordered": True,
        "max_pending": 50,
        "max_pending_bytes": 10_000_000,
        "command": ["python", "-m", "agent", "--image", "x"],
    }


def test_a_command_line_is_split_as_a_shell_does(deployable, run):
    run("deploy", "-n", "web", "-i", "nginx", "--command", "sh -c 'echo \"a b\"'")

    assert body(deployable)["command"] == ["sh", "-c", 'echo "a b"']


def test_env_files_are_read_line_by_line_and_lose_to_env(deployable, run, tmp_path):
    (tmp_path / "one.env").write_text("# comment\n\nA=1\nB=two words # not a comment\nFROM_HERE\nQ='quoted'\n")
    (tmp_path / "two.env").write_text("A=2\nC=3")

    run(
        "deploy",
        "-n",
        "web",
        "-i",
        "nginx",
        "--env-file",
        "one.env",
        "--env-file",
        "two.env",
        "-e",
        "C=4",
        env={"FROM_HERE": "x"},
    )

    assert body(deployable)["env_vars"] == {
        "A": "2",
        "B": "two words # not a comment",
        "FROM_HERE": "x",
        "Q": "'quoted'",
        "C": "4",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-e", "=x"), "env: '=x' has no name"),
        (("-e", "NOT_SET"), "env: NOT_SET has no value and is not in the environment"),
        (("--secret", "NOT_SET"), "secret: NOT_SET has no value and is not in the environment"),
        (("--env-file", "missing"), "env-file: cannot read missing: No such file or directory"),
        (("--env-file", "bad.env"), "env-file: bad.env:2: 'no name here' is not NAME=VALUE"),
        (("--env-file", "binary.env"), "env-file: cannot read binary.env: not UTF-8 text"),
        (("-v", "nowhere"), "volume: 'nowhere' is not a volume"),
        (("-v", ":/data"), "volume: ':/data' is not a volume"),
        (("-v", "./a:/b:rx"), "volume: './a:/b:rx' is not a volume"),
        (
            ("-c", "much"),
            "Invalid value for '-c' / '--cpu': 'much' is not a number of cores; write it as 0.5, 2 or 500m",
        ),
        (("-m", "-1"), "Invalid value for '-m' / '--memory': '-1' is not a size"),
        (("-m", "0.3B"), "Invalid value for '-m' / '--memory': '0.3B' is not a whole number of bytes"),
        (("-p", "70000"), "Invalid value for '-p' / '--port': 70000 is not in the range 1<=x<=65535"),
        (("--network-egress", "maybe"), "Invalid value for '--network-egress': 'maybe' is not one of 'on', 'off'"),
        (("--command", "it's"), 'command: "it\'s" cannot be split into words: No closing quotation'),
        (("--command", "a", "--", "b"), "give the command with --command or after --, not both"),
        (("--build-arg", "A=1"), "--build-arg needs a Dockerfile as --image"),
    ],
)
def test_what_can_never_be_right_is_refused_before_anything_is_sent(api, run, tmp_path, arguments, message):
    (tmp_path / "bad.env").write_text("A=1\nno name here\n")
    (tmp_path / "binary.env").write_bytes(b"\xff\xfe")

    ran = run("deploy", "-n", "web", "-i", "nginx", *arguments)

    assert ran.code == 2
    assert ran.out == ""
    assert f"error: {message}" in ran.err
    assert api.asked == []


@pytest.mark.parametrize("arguments", [("-i", "nginx"), ("-n", "web")])
def test_name_and_image_are_required(run, arguments):
    ran = run("deploy", *arguments)

    assert ran.code == 2
    assert "error: Missing option" in ran.err


def test_a_validation_error_of_the_daemon_names_field_and_option(deployable, run):
    deployable.forget("POST", "/agents")
    deployable.on(
        "POST",
        "/agents",
        status=400,
        message="memory_limit: 5 bytes is not between 6 MiB and 1 PiB",
        code="INVALID_PARAMETER",
        details={"field": "memory_limit"},
    )

    ran = run("deploy", "-n", "web", "-i", "nginx", "-m", "5")

    assert ran == (2, "", "error: memory_limit: 5 bytes is not between 6 MiB and 1 PiB (--memory)\n")


def test_a_folder_that_is_not_there_can_be_made(deployable, run, tmp_path):
    deployable.forget("POST", "/agents")
    message = f"volumes: '{tmp_path}/data': no such file or directory"
    details = {"field": "volumes"}
    deployable.on("POST", "/agents", status=400, message=message, code="VOLUME_SOURCE_MISSING", details=details)

    ran = run("deploy", "-n", "web", "-i", "nginx", "-v", "./data:/data")

    assert ran == (2, "", f"error: {message} (--volume)\nhint: mkdir -p {tmp_path}/data\n")


def test_a_name_that_is_taken_is_a_conflict(deployable, run):
    deployable.forget("POST", "/agents")
    deployable.on("POST", "/agents", status=409, message="the name 'web' is taken", code="AGENT_NAME_TAKEN")

    assert run("deploy", "-n", "web", "-i", "nginx").code == 4


def test_a_named_volume_that_is_called_like_a_folder_is_pointed_out(deployable, run, tmp_path):
    (tmp_path / "data").mkdir()

    ran = run("deploy", "-n", "web", "-i", "nginx", "-v", "data:/data")

    assert "warning: 'data' is a named volume; for the folder write ./data:/data\n" in ran.err
    assert body(deployable)["volumes"][0]["host_path"] == "data"


def test_a_key_that_the_agent_could_read_is_warned_of_once(deployable, run):
    own = run("deploy", "-n", "web", "-i", "nginx", "-e", "OPENAI_API_KEY=sk-1", "--secret", "GEMINI_API_KEY=x")
    through = run("deploy", "-n", "web", "-i", "nginx", "--model", "openai/small", "-e", "OTHER_KEY=1")

    assert own.err.count("warning:") == 1
    assert "the agent web, and whoever may inspect its container, can read OPENAI_API_KEY, GEMINI_API_KEY" in own.err
    assert "sk-1" not in own.out + own.err
    assert "warning" not in through.err
    assert [asked.json.get("model") for asked in deployable.asked if asked.path == "/agents"] == [None, "openai/small"]


def test_the_image_is_pulled_when_missing_unless_never(deployable, run):
    run("deploy", "-n", "web", "-i", "nginx")
    run("deploy", "-n", "web", "-i", "nginx", "--pull", "always")
    run("deploy", "-n", "web", "-i", "nginx", "--pull", "never")

    pulls = [asked.json for asked in deployable.asked if asked.path == "/images/pull"]
    assert pulls == [{"image": "nginx", "policy": "missing"}, {"image": "nginx", "policy": "always"}]


def test_a_pull_says_what_changes_and_not_every_byte(api, run):
    layers = [
        {"progress": {"id": "a1", "status": "Downloading", "text": "Downloading", "current": size, "total": 1000}}
        for size in range(0, 1000, 10)
    ]
    done = {"progress": {"id": "a1", "status": "Pull complete", "text": "Pull complete"}}
    api.on_lines("POST", "/images/pull", *layers, done, RESULT)
    api.on("POST", "/agents", CREATED, status=201)

    ran = run("deploy", "-n", "web", "-i", "nginx")

    assert ran.err.splitlines()[:2] == ["a1 Downloading [                    ] 0 B of 1 kB", "a1 Pull complete"]


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        ("IMAGE_NOT_FOUND", "no registry has an image 'nope', or it needs a login", 3),
        ("REGISTRY_UNREACHABLE", "cannot pull 'nope': its registry can't be reached", 1),
        ("NO_SPACE", "cannot pull image 'nope': the engine has no space left", 1),
    ],
)
def test_a_pull_that_fails_gives_the_daemons_reason(api, run, code, message, expected):
    api.on_lines("POST", "/images/pull", {"error": {"code": code, "message": message, "hint": "check the name"}})

    ran = run("deploy", "-n", "web", "-i", "nope")

    assert ran == (expected, "", f"error: {message}\nhint: check the name\n")
    assert api.paths("POST") == ["/images/pull"]


def test_an_image_that_is_a_folder_here_is_asked_about(api, run, tmp_path):
    (tmp_path / "nope").mkdir()
    (tmp_path / "nope" / "Dockerfile").write_text("FROM x")
    api.on_lines("POST", "/images/pull", {"error": {"code": "IMAGE_NOT_FOUND", "message": "no"}})

    assert "hint: to build the folder of that name: --image ./nope" in run("deploy", "-n", "web", "-i", "nope").err


def test_start_starts_and_wait_waits(deployable, run):
    started = run("deploy", "-n", "web", "-i", "nginx", "--start")
    waited = run("deploy", "-n", "web", "-i", "nginx", "--wait", "--timeout", "5s")

    queries = [asked.query for asked in deployable.asked if asked.path == "/agents/web/start"]
    assert queries == [{}, {"wait": ["5.0"]}]
    assert "Status: running\n" in started.out
    assert "Status: running (ready)\n" in waited.out
    assert started.err == waited.err == ""


def test_a_start_that_fails_says_that_the_agent_is_deployed(deployable, run):
    deployable.forget("POST", "/agents/web/start")
    deployable.on(
        "POST",
        "/agents/web/start",
        status=500,
        message="agent 'web' exited (exit 1)",
        code="AGENT_EXITED",
        details={"exit_code": 1, "log": ["ImportError: no module named agent"]},
    )

    ran = run("deploy", "-n", "web", "-i", "nginx", "--wait")

    assert ran.code == 1
    assert ran.out == ""
    assert "Agent 'web' was deployed (ID: agent-00000000000000a1), but it did not start well.\n" in ran.err
    assert "  | ImportError: no module named agent\n" in ran.err


def test_output_for_programs(deployable, run):
    assert json.loads(run("deploy", "-n", "web", "-i", "nginx", "--json").out) == CREATED
    assert run("deploy", "-n", "web", "-i", "nginx", "-q").out == "agent-00000000000000a1\n"
    assert run("deploy", "-n", "web", "-i", "nginx", "-o", "name").out == "web\n"


def test_over_tcp_the_addresses_are_those_of_the_host_that_was_given(tcp_api, run):
    tcp_api.on("POST", "/agents", CREATED, status=201)

    ran = run("deploy", "-n", "web", "-i", "nginx", "--pull", "never", env={"AGENTAINER_HOST": tcp_api.url})

    assert f"  Proxy: {tcp_api.url}/agent/web/\n" in ran.out


@pytest.fixture
def app(tmp_path):
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "main.py").write_text("print(1)\n")
    return folder


def built(api):
    return next(asked for asked in api.asked if asked.path == "/images/build")


def test_a_dockerfile_is_built_and_the_image_named_after_agent_and_time(deployable, run, app):
    ran = run("deploy", "-n", "web", "-i", "./app/Dockerfile", "--build-arg", "BASE=x y", "--build-arg", "V=2")

    asked = built(deployable)
    tag = asked.query["tag"][0]
    assert ran.code == 0
    assert re.fullmatch(r"agentainer-web:\d{8}-\d{6}", tag)
    assert asked.query["dockerfile"] == ["Dockerfile"]
    assert asked.query["arg"] == ["BASE=x y", "V=2"]
    assert asked.headers["Content-Type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(asked.body)) as archive:
        assert sorted(archive.getnames()) == ["Dockerfile", "main.py"]
    assert body(deployable)["image"] == tag
    assert "/images/pull" not in deployable.paths("POST")


def test_a_name_that_is_taken_is_found_out_before_the_build(deployable, run, app):
    deployable.on("GET", "/agents/web", agent())

    ran = run("deploy", "-n", "web", "-i", "./app")

    assert ran == (4, "", "error: there is an agent 'web' already\nhint: agentainerctl inspect web\n")
    assert deployable.paths("POST") == []


def test_a_name_that_is_none_is_found_out_before_the_build(deployable, run, app):
    ran = run("deploy", "-n", "My Agent", "-i", "./app")

    assert ran.code == 2
    assert ran.err.startswith("error: name: 'My Agent' is not a name\n")
    assert deployable.asked == []


def test_a_missing_dockerfile_is_not_taken_for_an_image(api, run):
    ran = run("deploy", "-n", "web", "-i", "./Dockerfile")

    assert ran.code == 3
    assert ran.err.startswith("error: no such Dockerfile: ./Dockerfile\n")
    assert api.asked == []


def test_the_build_is_shown_line_by_line_in_a_pipe(api, run, app):
    api.on_lines(
        "POST",
        "/images/build",
        {"progress": {"text": "Step 1/2 : FROM scratch\n"}},
        {"progress": {"text": "\x1b[32mgreen\x1b[0m and \x1b]0;title\x07plain\n"}},
        {"progress": {"text": "10%\r50%\r100%\n"}},
        {"progress": {"text": "one\ntwo\n"}},
        {"result": {"image": "my:1", "image_id": "sha256:abc"}},
    )

    ran = run("build", "-t", "my:1", "app")

    lines = ran.err.splitlines()
    assert ran.out == "Image: my:1\nID: sha256:abc\n"
    assert lines[0] == "Sending build context app: 2 files, 22 B"
    assert lines[1:6] == ["Step 1/2 : FROM scratch", "green and plain", "100%", "one", "two"]
    assert re.fullmatch(r"Built my:1 in \d+\.\d s", lines[6])


def test_on_a_terminal_the_build_folds_into_a_line(api, run_on_terminal, app):
    lines = [{"progress": {"text": f"line {number}\n"}} for number in range(200)]
    api.on_lines("POST", "/images/build", *lines, {"result": {"image": "my:1", "image_id": "sha256:abc"}})

    out = run_on_terminal("build", "-t", "my:1", "app").out

    last = out.rpartition("\x1b[J")[2]
    assert re.fullmatch(r"Built my:1 in \d+\.\d s\nImage: my:1\nID: sha256:abc\n", last)


FAILURE = {
    "error": {
        "code": "BUILD_FAILED",
        "message": "the build failed at Step 2/3 : RUN false: returned a non-zero code: 1",
        "details": {"step": "Step 2/3 : RUN false", "lines": ["Step 2/3 : RUN false", " ---> Running in 1", "boom"]},
    }
}


def test_a_build_that_fails_shows_step_and_last_lines_once(api, run, app):
    api.on_lines(
        "POST",
        "/images/build",
        *[{"progress": {"text": f"{line}\n"}} for line in FAILURE["error"]["details"]["lines"]],
        FAILURE,
    )

    ran = run("build", "-t", "my:1", "app")

    assert ran.code == 1
    assert ran.out == ""
    assert ran.err.count("boom") == 1
    assert ran.err.endswith("error: the build failed at Step 2/3 : RUN false: returned a non-zero code: 1\n")


def test_a_failure_without_a_step_gets_the_last_one_that_was_seen(api, run, app):
    error = {"code": "ENGINE_UNAVAILABLE", "message": "the engine went away"}
    api.on_lines("POST", "/images/build", {"progress": {"text": "Step 3/9 : RUN make\n"}}, {"error": error})

    assert run("build", "-t", "my:1", "app").err.endswith("error: the engine went away\n  step: Step 3/9 : RUN make\n")


def test_on_a_terminal_and_when_quiet_the_last_lines_come_with_the_error(api, run, run_on_terminal, app):
    api.on_lines("POST", "/images/build", FAILURE)

    for out in (run_on_terminal("build", "-t", "my:1", "app").out, run("build", "-q", "-t", "my:1", "app").err):
        assert "  last lines of its output:\n    | Step 2/3 : RUN false\n    |  ---> Running in 1\n    | boom\n" in out


def test_a_build_that_fails_for_programs_is_json_with_the_lines(api, run, app):
    api.on_lines("POST", "/images/build", FAILURE)

    ran = run("build", "--json", "-t", "my:1", "app")

    assert ran.out == ""
    assert json.loads(ran.err)["details"]["lines"][-1] == "boom"


def test_a_daemon_that_refuses_the_context_midway_is_heard(api, run, app):
    with open(app / "big", "wb") as file:
        file.truncate(50_000_000)

    def refuse(handler):
        answer = {"success": False, "message": "the context is too large", "code": "TOO_LARGE"}
        send(handler, 413, json.dumps(answer).encode())
        handler.close_connection = True

    api.before_body["/images/build"] = refuse

    ran = run("build", "-t", "my:1", "app")

    assert ran.code == 1
    assert ran.err.endswith("error: the context is too large\n")


def test_a_daemon_that_dies_during_the_build(api, run, app):
    api.on_lines("POST", "/images/build", {"progress": {"text": "Step 1/2\n"}}, ConnectionResetError())

    ran = run("build", "-t", "my:1", "app")

    assert ran.code == 5
    assert "error: the connection to agentainerd (unix:///" in ran.err


def test_a_stream_that_ends_without_a_result_is_a_failure(api, run, app):
    api.on_lines("POST", "/images/build", {"progress": {"text": "Step 1/2\n"}})

    assert run("build", "-t", "my:1", "app").code == 5


def test_an_image_that_was_built_is_not_lost_when_the_deploy_fails(deployable, run, app):
    deployable.forget("POST", "/agents")
    deployable.on("POST", "/agents", status=503, message="cannot reach Redis", code="REDIS_UNAVAILABLE")

    err = run("deploy", "-n", "web", "-i", "./app").err

    assert re.search(r"The image agentainer-web:\d{8}-\d{6} is built; go on with --image agentainer-web:", err)


def test_a_context_that_is_too_large_is_refused_before_it_is_sent(api, run, app):
    with open(app / "big", "wb") as file:
        file.truncate(600_000_000)

    ran = run("build", "-t", "my:1", "app")

    assert ran.code == 1
    assert ran.err == (
        "error: the build context app has 600 MB; the limit is 524 MB (largest: big, 600 MB)\nhint: echo big >>app/.dockerignore\n"
    )
    assert api.asked == []


def test_another_dockerfile_for_a_folder(api, run, app, tmp_path):
    (tmp_path / "Other").write_text("FROM other")
    api.on_lines("POST", "/images/build", RESULT)

    run("build", "-t", "my:1", "-f", "Other", "app")

    with tarfile.open(fileobj=io.BytesIO(built(api).body)) as archive:
        assert archive.extractfile(built(api).query["dockerfile"][0]).read() == b"FROM other"


def test_services_are_asked_for_by_name(deployable, run):
    assert run("deploy", "--name", "web", "--image", "nginx:alpine", "--service", "redis").code == 0
    assert body(deployable)["services"] == {"redis": True}

    refused = run("deploy", "--name", "web", "--image", "nginx:alpine", "--service", "mongodb")
    assert refused.code == 2
    assert "'redis'" in refused.err
