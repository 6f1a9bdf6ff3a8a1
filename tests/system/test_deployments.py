"""Files applied to a real engine: under load, with failures, across a kill of the daemon, and from inside the containers."""

import json
import os
import subprocess
import sys

import gevent
import pytest
import yaml

from tests.fakes.ledger import AGENT_FOLDER
from tests.system.test_agents_real import host  # noqa: F401 - a fixture

KILLS = int(os.environ.get("SOAK_KILLS", "0")) // 10
COMMAND = ["/usr/bin/python3", "-u", "/agent/ledger_agent.py"]
pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.timeout(120 + 30 * KILLS)]


def manifest(*agents, name="shop"):
    return yaml.safe_dump(
        {"apiVersion": "v1", "kind": "AgentDeployment", "metadata": {"name": name}, "spec": {"agents": list(agents)}}
    )


def apply(daemon, text, *words, code=0, is_remote=False):
    """Run `agentainerctl apply` on standard input, over TCP with `is_remote`; returns (stdout, stderr)."""
    where = daemon.url if is_remote else f"unix://{daemon.control_socket}"
    done = subprocess.run(
        [sys.executable, "-m", "agentainerctl", "--host", where, "apply", "-f", "-", *words],
        env={**os.environ, "AGENTAINER_TOKEN": daemon.token}, capture_output=True, text=True, timeout=100, input=text,
        check=False,
    )  # fmt: skip
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout, done.stderr


def ledger(world, **changes):
    """The file of the ledger agent of a `promise`, as it was deployed, and what is changed."""
    return manifest(
        {
            "name": "ledger",
            "image": world.agent["image"],
            "command": COMMAND,
            "volumes": [f"{AGENT_FOLDER}:/agent:ro", f"{world.folder}:/ledger"],
            "autoRestart": True,
            "persistence": {"concurrency": 8},
            **changes,
        }
    )


def containers(docker_client, agent):
    found = docker_client.containers(all=True, filters={"label": f"agentainer.id={agent['id']}"})
    return {each["Names"][0][1:]: each["Id"] for each in found}


def test_apply_of_a_changed_file_under_load_answers_no_5xx(promise, docker_client):
    world = promise()
    world.load.statuses.clear()
    seen = [world.agent["container_id"]]

    for changes in (
        {"env": {"A": "1"}},
        {"env": {"A": "2"}, "replicas": 2},
        {"env": {"A": "3"}, "resources": {"memory": "96Mi"}, "healthCheck": {"endpoint": "/health", "interval": "1s"}},
    ):
        out, _ = apply(world.daemon, ledger(world, **changes))
        assert "replaced" in out
        assert world.agent["container_id"] not in seen
        seen.append(world.agent["container_id"])
        world.serve(50)
    apply(world.daemon, ledger(world, **changes, updateStrategy="recreate", command=[*COMMAND, "again"]))
    assert world.agent["container_id"] not in seen
    seen.append(world.agent["container_id"])
    changes |= {"updateStrategy": "recreate", "command": [*COMMAND, "again"]}
    apply(world.daemon, ledger(world, env={"A": "4"}, command=["/usr/bin/python3", "-c", "exit(7)"]), code=1)
    apply(world.daemon, ledger(world, **changes, token="a-token-of-its-own"))
    apply(world.daemon, ledger(world, **changes))
    world.serve(50)

    refusals = {401} & set(world.load.statuses)  # while it had a token
    assert set(world.load.statuses) <= {200, 202} | refusals, world.load.statuses
    assert containers(docker_client, world.agent) == {f"agentainer-{world.agent['id']}": seen[-1]}
    world.load.unexpected = [each for each in world.load.unexpected if "401" not in each]
    world.finish()


def test_a_daemon_killed_while_it_replaces_loses_nothing_and_leaves_nothing_behind(promise, docker_client, eventually):
    world = promise()
    name = f"agentainer-{world.agent['id']}"

    def stop():
        assert world.daemon.stop() == 0
        world.daemon = world.start(like=world.daemon, **world.options)

    for number in range(KILLS or 4):
        moment = "" if number % 4 == 2 else f"{name}.next"
        applying = gevent.spawn(apply, world.daemon, ledger(world, env={"A": str(number)}), code=5)  # noqa: TID251
        if moment:
            eventually(lambda moment=moment: moment in containers(docker_client, world.agent), limit_s=30)
        else:
            before = world.agent["container_id"]
            eventually(lambda before=before: world.agent["container_id"] != before, limit_s=30)
        world.after(stop if number % 4 == 3 else world.kill_daemon)
        applying.kill()
        eventually(lambda: list(containers(docker_client, world.agent)) == [name], limit_s=30)
        eventually(lambda: world.agent["ready"], limit_s=30)
        world.check_journal()

    apply(world.daemon, ledger(world, env={"A": "9"}))
    world.finish()


def test_dependencies_are_reached_by_the_urls_in_the_environment(host, docker_client):  # noqa: F811
    fetch = (
        "import http.server as h,os,json,urllib.request as u\n"
        "urls={k:v for k,v in os.environ.items() if k.endswith(('_SERVICE','_SERVICES'))}\n"
        "got={k:u.urlopen(v+'/hi').status for k,v in urls.items() if k.endswith('_SERVICE')}\n"  # refused: it does not start
        "class A(h.BaseHTTPRequestHandler):\n"
        " def do_GET(self):\n  b=json.dumps([urls,got]).encode();self.send_response(200)\n"
        "  self.send_header('Content-Length',str(len(b)));self.end_headers();self.wfile.write(b)\n"
        "h.ThreadingHTTPServer(('',8000),A).serve_forever()"
    )
    agent = {"image": host.image}
    text = manifest(
        {**agent, "name": "gateway", "command": ["/usr/bin/python3", "-c", fetch], "dependencies": ["auth", "sleepy"]},
        {**agent, "name": "auth", "replicas": 2, "port": 9000, "env": {"PORT": 9000}},
        {**agent, "name": "sleepy", "idleTimeout": "1h"},
    )

    apply(host.daemon, text)

    urls, got = host.daemon.http("GET", "/agent/gateway/")[1]["list"]
    port = host.daemon.port
    assert urls == {
        "AUTH_SERVICE": "http://auth:9000",
        "SLEEPY_SERVICE": f"http://host.docker.internal:{port}/agent/sleepy",
        "UPSTREAM_SERVICES": f"http://auth:9000,http://host.docker.internal:{port}/agent/sleepy",
    }
    assert got == {"AUTH_SERVICE": 200, "SLEEPY_SERVICE": 200}


def test_a_second_apply_of_an_export_changes_nothing(host):  # noqa: F811
    agent = {"image": host.image, "resources": {"memory": "64MB", "cpu": "250m"}, "stopGrace": "1s"}
    text = manifest(
        {**agent, "name": "web", "dependencies": ["db"], "env": {"A": "NO"}}, {**agent, "name": "db", "replicas": 2}
    )
    apply(host.daemon, text, is_remote=True)
    before = {name: host.agent(name)["containers"] for name in ("web", "db")}

    exported, _ = host.ctl("export", "shop")
    out, _ = apply(host.daemon, exported, "-o", "json", is_remote=True)

    assert {each["action"] for each in json.loads(out)["agents"]} == {"keep"}
    assert [each["container_id"] for each in host.agent("db")["containers"]] == [
        each["container_id"] for each in before["db"]
    ]


def test_limits_are_changed_while_it_runs_and_what_is_pruned_is_gone(host, docker_client):  # noqa: F811
    agent = {"image": host.image, "stopGrace": "1s"}
    apply(host.daemon, manifest({**agent, "name": "web", "resources": {"memory": "64Mi"}}, {**agent, "name": "old"}))
    before = host.agent()["container_id"]
    old = host.agent("old")

    out, _ = apply(
        host.daemon, manifest({**agent, "name": "web", "resources": {"memory": "128Mi", "cpu": 1}}), "--prune"
    )

    assert host.agent()["container_id"] == before
    limits = docker_client.inspect_container(before)["HostConfig"]
    assert (limits["Memory"], limits["NanoCpus"]) == (128 * 2**20, 10**9)
    assert containers(docker_client, old) == {}
    assert "removed" in out
