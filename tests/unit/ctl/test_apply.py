"""`apply`, `diff`, `export`, `deployments` and `deploy --config` as processes."""

import json
import os
import signal

import gevent
import pytest
import yaml

from agentainerctl.manifest import load
from agentainerctl.manifest_build import name_images
from tests.unit.ctl.fake_api import begin_stream, end_stream, send_line

FILE = """\
apiVersion: v1
kind: AgentDeployment
metadata: {name: shop}
spec:
  agents:
    - name: web
      image: nginx
      env: {MODEL: "${MODEL:-small}"}
"""
STEP = {"agent": "web", "deployment": "shop", "action": "create", "image": "nginx", "changes": [], "dependencies": [],
        "starts": True, "lacks_image": False}  # fmt: skip
REPORT = {"agent": "web", "id": "agent-00000000000000a1", "image": "nginx", "action": "create", "message": ""}
PULLED = {"result": {"image": "nginx", "image_id": "sha256:abc"}}


def change(field, before, after):
    return {"field": field, "before": before, "after": after, "needs": "container"}


@pytest.fixture
def given(api, tmp_path):
    """A file, and a daemon that does what it says."""
    (tmp_path / "agents.yaml").write_text(FILE)
    api.on("POST", "/deployments/plan", {"steps": [STEP], "stray": []})
    api.on_lines("POST", "/images/pull", PULLED)
    api.on_lines(
        "POST",
        "/deployments/apply",
        {"plan": {"steps": [STEP], "stray": []}},
        {"progress": {**REPORT, "stage": "doing"}},
        {"progress": {**REPORT, "stage": "done"}},
        {"result": {"success": True, "agents": [{**REPORT, "stage": "done"}]}},
    )
    return api


def wish(api, path="/deployments/apply"):
    return next(asked.json for asked in api.asked if asked.path == path)


def test_keys_that_agents_could_read_are_warned_of_once_and_only_where_something_is_done(given, run, tmp_path):
    agent = "    - {{name: {0}, image: nginx, env: {{OPENAI_API_KEY: '${{KEY:-}}', OTHER_KEY: sk-2}}}}\n"
    file = FILE.partition("    - name")[0] + "".join(agent.format(name) for name in ("web", "api", "kept"))
    (tmp_path / "agents.yaml").write_text(file)
    steps = [STEP, {**STEP, "agent": "api"}, {**STEP, "agent": "kept", "action": "keep"}]
    given.forget("POST", "/deployments/plan")
    given.on("POST", "/deployments/plan", {"steps": steps, "stray": []})

    own = run("apply", "-f", "agents.yaml", env={"KEY": "sk-1"})
    without = run("apply", "-f", "agents.yaml")
    quiet = run("apply", "-f", "agents.yaml", "-o", "json", env={"KEY": "sk-1"})

    assert own.err.count("warning:") == 1
    assert "the agents web, api, and whoever may inspect their containers, can read OPENAI_API_KEY;" in own.err
    assert "sk-" not in own.err
    assert "warning" not in without.err + quiet.err


@pytest.mark.parametrize("words", [("apply", "-f", "agents.yaml"), ("deploy", "--config", "agents.yaml")])
def test_a_file_is_applied(given, run, words):
    ran = run(*words)

    assert (ran.code, wish(given)) == (
        0,
        {
            "deployments": [
                {"name": "shop", "agents": [{"name": "web", "env_vars": {"MODEL": "small"}, "image": "nginx"}]}
            ],
            "prune": False,
            "start": True,
            "timeout_s": 60.0,
        },
    )
    assert [asked.path for asked in given.asked] == ["/deployments/plan", "/images/pull", "/deployments/apply"]
    assert ran.err == ("Deploying agents from: agents.yaml\n  ✓ web (ID: agent-00000000000000a1) created in 0.0 s\n")
    lines = ran.out.splitlines()
    assert lines[:3] == [
        "Deployment Summary:",
        "NAME   ID                       IMAGE   ACTION   RESULT",
        "web    agent-00000000000000a1   nginx   create   created",
    ]
    assert lines[3].startswith("Total agents deployed: 1 (")


def test_standard_input_variables_and_options(given, run):
    ran = run(
        *("apply", "-f", "-", "--prune", "--no-start", "--timeout", "5s", "--pull", "never"),
        input=FILE.encode(), env={"MODEL": "large"},
    )  # fmt: skip

    assert ran.code == 0
    sent = wish(given)
    assert sent["deployments"][0]["agents"][0]["env_vars"] == {"MODEL": "large"}
    assert (sent["prune"], sent["start"], sent["timeout_s"]) == (True, False, 5.0)
    assert [asked.path for asked in given.asked] == ["/deployments/plan", "/deployments/apply"]


def test_a_mistake_in_the_file_asks_nobody(given, run, tmp_path):
    (tmp_path / "agents.yaml").write_text(FILE.replace("image:", "imgae:"))

    ran = run("apply", "-f", "agents.yaml")

    assert (ran.code, ran.out, given.asked) == (2, "", [])
    assert ran.err == (
        "error: agents.yaml:6:7: image is required, or dockerfile\n"
        "  agents.yaml:7:7: unknown key 'imgae' in agent; did you mean 'image'?\n"
    )


@pytest.mark.parametrize("words", [("diff", "-f", "agents.yaml"), ("apply", "--dry-run", "-f", "agents.yaml")])
def test_a_plan_is_shown_and_nothing_is_done(given, run, words):
    given.forget("POST", "/deployments/plan")
    changes = [
        change("env_vars.MODEL", "small", "large"),
        change("env_vars.API_KEY", "***", "***"),
        change("memory_limit", 2**29, 2**26),
        change("labels.team", None, "a"),
        change("command", [], ["a", "b"]),
        change("token", "***", ""),
        change("env_vars.OLD", "x", None),
    ]
    steps = [
        {**STEP, "agent": "new-one", "lacks_image": True},
        {**STEP, "action": "replace", "changes": changes, "starts": False},
        {**STEP, "agent": "db", "action": "replace", "starts": False, "stops_first": True},
        {**STEP, "agent": "api", "action": "update", "changes": [change("auto_restart", False, True)]},
        {**STEP, "agent": "same", "action": "keep"},
        {**STEP, "agent": "old", "action": "remove"},
    ]
    given.on("POST", "/deployments/plan", {"steps": steps, "stray": ["x", "y"]})

    ran = run(*words)

    assert ran == (
        0,
        "+ new-one  create from nginx, which has to be built or pulled\n"
        "~ web      replace: a new container takes over when it is ready\n"
        "    env_vars.MODEL: small -> large\n"
        "    env_vars.API_KEY: *** (changed)\n"
        "    memory_limit: 512 MiB -> 64 MiB\n"
        "    labels.team: a (new)\n"
        '    command: [] -> ["a", "b"]\n'
        '    token: *** -> ""\n'
        "    env_vars.OLD: x -> (none)\n"
        "~ db       replace: it is stopped first\n"
        "~ api      update in place, and start it\n"
        "    auto_restart: false -> true\n"
        "- old      remove, with its container and its requests\n"
        "Plan: 1 to create, 2 to replace, 1 to update, 1 to remove, 1 unchanged.\n"
        "Not named any more, and kept (--prune removes them): x, y\n",
        "",
    )
    assert [asked.path for asked in given.asked] == ["/deployments/plan"]


@pytest.mark.parametrize(
    ("field", "place"),
    [("web.replicas", "7:17"), ("web.memory_limit", "8:27"), ("web.health_check.interval", "9:31"), ("web.env_vars", "10:12"),
     ("web.image", "11:14")],
)  # fmt: skip
def test_what_the_daemon_finds_wrong_is_told_with_its_place_before_anything_is_built(
    given, run, tmp_path, field, place
):
    (tmp_path / "agents.yaml").write_text(
        FILE.partition("    - name")[0] + "    - name: web\n      replicas: 200\n      resources: {memory: 1}\n"
        "      healthCheck: {interval: 1ms}\n      env: {A: b}\n      image: NGINX\n"
    )
    given.forget("POST", "/deployments/plan")
    given.on(
        "POST", "/deployments/plan", status=400, message=f"{field}: is wrong", code="INVALID_PARAMETER",
        details={"field": field},
    )  # fmt: skip

    ran = run("apply", "-f", "agents.yaml")

    assert (ran.code, ran.err) == (2, f"error: agents.yaml:{place}: {field}: is wrong\n")
    assert [asked.path for asked in given.asked] == ["/deployments/plan"]


def test_diff_tells_by_its_exit_code_where_that_is_asked_for(given, run):
    assert run("diff", "--exit-code", "-f", "agents.yaml").code == 1
    given.forget("POST", "/deployments/plan")
    given.on("POST", "/deployments/plan", {"steps": [{**STEP, "action": "keep"}], "stray": []})

    ran = run("diff", "--exit-code", "-f", "agents.yaml")

    assert ran == (0, "Plan: 1 unchanged.\n", "")


def test_a_failure_is_told_with_its_evidence_and_exit_code_1(given, run):
    given.forget("POST", "/deployments/apply")
    error = {
        "message": "agent 'web' exited",
        "code": "AGENT_EXITED",
        "hint": "look",
        "details": {"exit_code": 3, "log": ["no model"]},
    }
    failed = {**REPORT, "stage": "failed", "message": "agent 'web' exited", "error": error}
    skipped = {**REPORT, "agent": "page", "id": "", "stage": "skipped", "message": "it depends on 'web', which failed"}
    given.on_lines(
        "POST", "/deployments/apply", {"progress": failed}, {"progress": skipped},
        {"result": {"success": False, "agents": [failed, skipped]}},
    )  # fmt: skip

    ran = run("apply", "-f", "agents.yaml")

    assert ran.code == 1
    assert "web    agent-00000000000000a1   nginx   create   failed: agent 'web' exited" in ran.out
    assert "page   -                        nginx   create   skipped: it depends on 'web', which failed" in ran.out
    assert ran.err.endswith(
        "  ✗ web failed: agent 'web' exited\n"
        "  - page skipped: it depends on 'web', which failed\n"
        "error: agent 'web' exited\n"
        "  exit code 3\n"
        "  last lines of its output:\n"
        "    | no model\n"
        "hint: look\n"
    )


def test_a_daemon_that_goes_away_is_told(given, run):
    given.forget("POST", "/deployments/apply")
    given.on_lines("POST", "/deployments/apply", {"progress": {**REPORT, "stage": "doing"}})

    ran = run("apply", "-f", "agents.yaml")

    assert ran.code == 5
    assert "hint: apply it again: what is done already is left alone" in ran.err


def test_machine_output_is_one_document(given, run):
    ran = run("apply", "-f", "agents.yaml", "-o", "json")
    assert (json.loads(ran.out)["success"], ran.err) == (True, "")
    assert run("apply", "-f", "agents.yaml", "-q").out == "agent-00000000000000a1\n"
    assert run("apply", "-f", "agents.yaml", "-o", "name").out == "web\n"
    assert json.loads(run("diff", "-f", "agents.yaml", "-o", "json").out)["steps"] == [STEP]


def test_a_dockerfile_is_built_once_for_what_is_in_it(given, run, tmp_path):
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent/Dockerfile").write_text("FROM scratch\n")
    path = tmp_path / "agents.yaml"
    path.write_text(FILE.replace("image: nginx", "image: ./agent"))
    given.on_lines("POST", "/images/build", PULLED)
    tag = tag_of(path)
    assert tag.startswith("agentainer-web:")
    there = f"/images/{tag.replace(':', '%3A')}"
    given.on("GET", there, status=404, message="no such image", code="IMAGE_NOT_FOUND")

    assert run("apply", "-f", "agents.yaml").code == 0
    assert wish(given)["deployments"][0]["agents"][0]["image"] == tag
    assert [asked.path for asked in given.asked] == ["/deployments/plan", there, "/images/build", "/deployments/apply"]

    given.forget("GET", there)
    given.on("GET", there, {})
    given.asked.clear()
    run("apply", "-f", "agents.yaml")
    assert [asked.path for asked in given.asked] == ["/deployments/plan", there, "/deployments/apply"]

    given.asked.clear()
    run("apply", "-f", "agents.yaml", "--build")
    assert [asked.path for asked in given.asked] == ["/deployments/plan", "/images/build", "/deployments/apply"]

    os.utime(tmp_path / "agent/Dockerfile", (1, 1))
    assert tag_of(path) == tag
    (tmp_path / "agent/more.py").write_text("print()")
    assert tag_of(path) != tag


def tag_of(path):
    manifest = load(str(path), path.read_text(), {})
    [build] = name_images(manifest)
    return build.tag


def test_an_export_is_a_file_that_means_the_same(given, run, tmp_path):
    agent = {
        "name": "web", "image": "nginx", "env_vars": {"API_KEY": "***", "A": "NO", "B": "${X}", "C": "1:30"}, "secrets": ["API_KEY"],
        "token": "***", "volumes": [{"host_path": "/srv", "container_path": "/data", "read_only": True}],
        "memory_limit": 2**26, "cpu_limit": 1_500_000_000, "command": ["a", "b c"], "hold_timeout_s": 2.5, "idle_timeout_s": 900,
        "persistence": False, "replay_policy": "safe", "replicas": 2, "dependencies": ["db"], "network_egress": False, "services": {"redis": True},
        "health_check": {"endpoint": "tcp", "command": [], "interval": "5s", "timeout": "5s", "retries": 3, "start_period": "0s"},
    }  # fmt: skip
    given.on("GET", "/deployments/shop/export", {"name": "shop", "description": "sells ${this}", "agents": [agent]})

    ran = run("export", "shop")

    assert ran.code == 0
    said = yaml.safe_load(ran.out)
    assert said["spec"]["agents"][0]["env"]["API_KEY"] == "${API_KEY}"
    assert said["spec"]["agents"][0]["token"] == "${WEB_TOKEN}"
    assert json.loads(run("export", "shop", "-o", "json").out) == said
    (tmp_path / "again.yaml").write_text(ran.out)
    run("diff", "-f", "again.yaml", env={"API_KEY": "sesame", "WEB_TOKEN": "a-long-token"})
    sent = wish(given, "/deployments/plan")["deployments"][0]
    assert sent["description"] == "sells ${this}"
    expected = {**agent, "env_vars": {**agent["env_vars"], "API_KEY": "sesame"}, "token": "a-long-token"}
    expected["health_check"] = {key: value for key, value in agent["health_check"].items() if value}
    assert sent["agents"] == [expected]


def test_the_list(given, run):
    given.on("GET", "/deployments", [])
    assert run("deployments").err == "There are no deployments. Make one with: agentainerctl apply -f FILE\n"
    given.forget("GET", "/deployments")
    given.on(
        "GET",
        "/deployments",
        [{"name": "shop", "description": "sells", "labels": {}, "agents": ["db", "web"], "applied_at": None}],
    )

    assert run("deployments").out == "NAME   AGENTS    APPLIED   DESCRIPTION\nshop   db, web             sells\n"
    assert run("deployments", "-q").out == "shop\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("apply",), "name a file: -f FILE, or -f - for standard input"),
        (("apply", "-f", "nothing.yaml"), "file: cannot read nothing.yaml: No such file or directory"),
        (("deploy", "--config", "agents.yaml", "--name", "x"), "--config does not go with --name: the file says it"),
        (("deploy", "--config", "agents.yaml", "-e", "A=b"), "--config does not go with --env: the file says it"),
        (("deploy", "--image", "x"), "Missing option '-n' / '--name', or '--config FILE'"),
        (("deploy", "--name", "x"), "Missing option '-i' / '--image', or '--config FILE'"),
    ],
)
def test_wrong_usage(given, run, words, said):
    ran = run(*words)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {said}\n")


def test_progress_on_a_terminal_says_what_is_under_way(given, run_on_terminal):
    given.forget("POST", "/deployments/apply")
    given.on_lines(
        "POST",
        "/deployments/apply",
        {"progress": {**REPORT, "stage": "starting"}},
        {"progress": {**REPORT, "stage": "done"}},
        {"result": {"success": True, "agents": [{**REPORT, "stage": "done"}]}},
    )

    ran = run_on_terminal("apply", "-f", "agents.yaml")

    assert "0 of 1 agents (0 s)" in ran.out
    assert "web: waiting until it is ready (0 s)" in ran.out
    assert "✓ web (ID: agent-00000000000000a1) created" in ran.out


def test_ctrl_c_says_what_becomes_of_what_was_begun(given, start):
    def endless(handler, _):
        begin_stream(handler)
        send_line(handler, {"progress": {**REPORT, "stage": "done"}})
        gevent.sleep(20)
        end_stream(handler)

    given.forget("POST", "/deployments/apply")
    given.on_raw("POST", "/deployments/apply", endless)
    process = start("apply", "-f", "agents.yaml")
    first = [process.stderr.readline() for _ in range(2)]

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)

    assert "✓ web" in first[1].decode()
    assert (process.returncode, out) == (130, b"")
    assert err.startswith(
        b"Broken off: what is under way is ended, and nothing more is begun. See: agentainerctl list\n"
    )
