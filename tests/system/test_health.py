"""Health checks on a real engine: who is not well is replaced, and no request is lost."""

import pytest

from tests.system.test_agents_real import host  # noqa: F401 - a fixture

pytestmark = [pytest.mark.docker, pytest.mark.redis]
WHOLE = ("get", "post", "slow", "async", "keyed", "large")
CHECK = {"endpoint": "/health", "interval": "200ms", "timeout": "2s", "retries": 2}


@pytest.mark.parametrize("replicas", [1, 3])
def test_an_unhealthy_agent_is_replaced_under_load_without_a_lost_request(promise, eventually, replicas):
    world = promise(kinds=WHOLE, health_check=CHECK, replicas=replicas)
    world.load.statuses.clear()
    sick = world.folder / f"sick-{replicas}"

    def last():
        return world.agent["containers"][-1]

    eventually(lambda: last()["health"] == "healthy")
    before = last()["started_at"]
    sick.touch()
    eventually(lambda: last()["crashes"] == 1, limit_s=30)
    sick.unlink()
    eventually(lambda: last()["restarts"] >= 1 and last()["ready"] and last()["health"] == "healthy", limit_s=30)
    world.serve(100)

    assert last()["started_at"] != before
    assert "unhealthy: GET /health answered 503" in last()["last_exit"]["error"]
    assert not set(world.load.statuses) & {500, 502, 503, 504, "no connection"}, world.load.statuses
    world.finish()


def test_what_a_stuck_replica_holds_goes_to_others_when_it_is_replaced(promise, eventually):
    """It accepts connections, and answers nobody: requests and checks alike run into it."""
    check = {**CHECK, "timeout": "500ms"}
    world = promise(kinds=WHOLE, health_check=check, replicas=2, stop_grace_s=1)
    world.load.statuses.clear()
    stuck = world.folder / "stuck-2"

    stuck.touch()
    eventually(lambda: world.agent["containers"][1]["crashes"] == 1, limit_s=30)
    stuck.unlink()
    eventually(lambda: world.agent["containers"][1]["ready"], limit_s=30)
    world.serve(100)

    assert "no answer within 500ms" in world.agent["containers"][1]["last_exit"]["error"]
    assert not set(world.load.statuses) & {500, 502, 503, 504, "no connection"}, world.load.statuses
    world.finish()


def test_a_command_in_the_container_is_a_health_check(host, docker_client, eventually):  # noqa: F811
    check = {"command": ["/bin/sh", "-c", "test ! -e /tmp/sick"], "interval": "200ms", "retries": 1}
    agent = host.up("web", health_check=check)
    assert (agent["health"], agent["ready"]) == ("healthy", True)

    run = docker_client.exec_create(agent["container_id"], ["/bin/sh", "-c", "touch /tmp/sick"])
    docker_client.exec_start(run["Id"])

    eventually(lambda: host.agent()["health"] == "unhealthy", limit_s=30)
    assert not host.agent()["ready"]
    report = host.must("GET", "/agents/web/health")
    assert (report["status_code"], report["message"]) == (1, "/bin/sh exited with 1")


def test_health_at_the_terminal(host, eventually):  # noqa: F811
    serve = "import http.server as h;h.ThreadingHTTPServer(('',8000),h.SimpleHTTPRequestHandler).serve_forever()"
    command = ["--", "/usr/bin/python3", "-c", serve]
    host.ctl("deploy", "--name", "well", "--image", host.image, "--wait", "--health-endpoint", "/", *command)
    host.ctl("deploy", "--name", "ill", "--image", host.image, "--start", "--health-endpoint", "/no-such", "--health-interval", "200ms", *command)  # fmt: skip
    eventually(lambda: host.agent("ill")["health"] == "unhealthy", limit_s=30)

    shown, _ = host.ctl("health")
    lines = {line.split()[1]: line for line in shown.splitlines()}
    assert "✓ healthy" in lines["well"]
    assert "✗ unhealthy" in lines["ill"] and "GET /no-such answered 404" in lines["ill"]
    assert "running (starting)" not in host.ctl("list")[0]
    assert "nobody" in host.ctl("health", "nobody", code=3)[1]
    _, asked = host.ctl("health", "well")
    assert asked.startswith("GET / every 30s")
