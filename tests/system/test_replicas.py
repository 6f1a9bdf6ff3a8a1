"""Replicas on a real engine, under load."""

import os

import gevent
import pytest

from tests.system.test_agents_real import host  # noqa: F401 - a fixture

KILLS = int(os.environ.get("SOAK_KILLS", "0")) // 10
WHOLE = ("get", "post", "slow", "async", "keyed", "large")  # a stream that is under way breaks off with its replica
pytestmark = [pytest.mark.docker, pytest.mark.redis]


def replicas(world):
    return {one["replica"]: one for one in world.agent["containers"]}


def test_scaling_up_and_down_and_a_kill_under_load_lose_nothing(promise, docker_client, eventually):
    world = promise(kinds=WHOLE)
    world.must("POST", "/agents/ledger/scale?wait=30", {"replicas": 3})
    names = {docker_client.inspect_container(one["container_id"])["Name"][1:] for one in replicas(world).values()}
    assert names == {f"agentainer-{world.agent['id']}-{number}" for number in (1, 2, 3)}
    world.load.statuses.clear()
    world.serve(100)

    docker_client.kill(replicas(world)[2]["container_id"])
    world.serve(150)
    eventually(lambda: replicas(world)[2]["restarts"] == 1 and replicas(world)[2]["ready"], limit_s=30)
    world.must("POST", "/agents/ledger/restart?wait=30")
    world.serve(50)
    world.must("POST", "/agents/ledger/scale", {"replicas": 1})
    world.serve(50)

    assert not set(world.load.statuses) & {500, 502, 503, 504, "no connection"}, world.load.statuses
    (only,) = replicas(world).values()
    left = docker_client.containers(all=True, filters={"label": f"agentainer.id={world.agent['id']}"})
    assert [box["Id"] for box in left] == [only["container_id"]]
    assert docker_client.inspect_container(only["container_id"])["Name"] == f"/agentainer-{world.agent['id']}"
    world.finish()


def test_kills_of_the_daemon_and_of_replicas_under_load_lose_nothing(promise, docker_client, eventually):
    world = promise(replicas=3)
    for number in range(KILLS or 3):
        docker_client.kill(replicas(world)[number % 3 + 1]["container_id"])
        world.after(world.kill_daemon)
        world.check_journal()
        eventually(lambda: all(one["ready"] for one in replicas(world).values()), limit_s=60)

    world.finish()


def test_each_replica_is_reached_by_its_path_and_all_by_name(host, docker_client):  # noqa: F811
    serve = (
        "import http.server as h,os\nclass A(h.BaseHTTPRequestHandler):\n"
        " def do_GET(self):\n  b=b'r'+os.environ['AGENT_REPLICA'].encode();self.send_response(200)\n"
        "  self.send_header('Content-Length',str(len(b)));self.end_headers();self.wfile.write(b)\n"
        "h.ThreadingHTTPServer(('',8000),A).serve_forever()"
    )
    one = host.up("web", replicas=3, command=["/usr/bin/python3", "-c", serve])
    other = host.up("other")

    for number in (1, 2, 3):
        assert host.daemon.http("GET", f"/agent/web-{number}/")[1] == {"raw": f"r{number}"}
        assert host.daemon.http("GET", f"/agent/{one['id']}-{number}/")[1] == {"raw": f"r{number}"}
    assert {host.daemon.http("GET", "/agent/web/")[1]["raw"] for _ in range(9)} == {"r1", "r2", "r3"}
    names = ["web", one["id"]]
    probe = f"import socket\nfor n in {names!r}: print(len({{a[4][0] for a in socket.getaddrinfo(n, 8000)}}))"
    run = docker_client.exec_create(other["container_id"], ["/usr/bin/python3", "-c", probe])
    assert docker_client.exec_start(run["Id"]).split() == [b"3", b"3"]


def test_a_request_to_one_replica_is_never_queued(host, docker_client, eventually):  # noqa: F811
    agent = host.up("web", replicas=2)
    docker_client.kill(agent["containers"][1]["container_id"])
    eventually(lambda: host.agent()["containers"][1]["status"] == "stopped")

    assert host.daemon.http("POST", "/agent/web-2/", b"x")[0] == 503
    assert host.daemon.http("GET", "/agent/web/")[0] == 200
    assert host.agent()["requests"]["pending"] == 0


def test_a_daemon_killed_while_it_scales_is_followed_by_one_that_finishes(
    host,  # noqa: F811
    start_daemon,
    docker_sandbox,
    docker_client,
    eventually,
):
    host.up("web", replicas=4, stop_grace_s=1)
    scaling = gevent.spawn(host.ask, "POST", "/agents/web/scale", {"replicas": 1})  # noqa: TID251
    eventually(lambda: len(host.agent()["containers"]) and host.agent()["replicas"] == 1)

    host.daemon.kill()
    scaling.kill()
    host.daemon = start_daemon(like=host.daemon, sandbox=docker_sandbox)

    eventually(lambda: [one["replica"] for one in host.agent()["containers"]] == [1], limit_s=30)
    left = docker_client.containers(all=True, filters={"label": f"agentainer.id={host.agent()['id']}"})
    assert len(left) == 1
    eventually(lambda: host.daemon.http("GET", "/agent/web/")[0] == 200, limit_s=30)
