"""What containers use, beside what `docker stats` says of the same containers, and inside them the kernel."""

import time
import uuid
from dataclasses import replace

import gevent
import pytest

from agentainerd import clock
from agentainerd.engine.usages import from_stats
from agentainerd.model.containers import ContainerSpec
from agentainerd.model.metrics import sample

pytestmark = pytest.mark.docker

MIB = 1024 * 1024
LOAD = """
import time, os, urllib.request
kept = bytearray(os.urandom(60 * 2**20))
print("ready", flush=True)
while True:
    until = time.perf_counter() + 0.05
    while time.perf_counter() < until:
        pass
    time.sleep(0.05)
"""
TALK = """
import socket, os
server = socket.create_server(("", 8000))
while True:
    client, _ = server.accept()
    size = int(client.recv(100))
    client.sendall(bytes(size))
    client.close()
"""


@pytest.fixture
def spec(agent_image):
    agent_id = f"agent-{uuid.uuid4().hex[:16]}"
    return ContainerSpec(
        name=f"agentainer-{agent_id}", hostname=agent_id, image=agent_image, aliases=(agent_id,),
        labels={"agentainer.id": agent_id}, env={}, memory_limit=256 * MIB,
    )  # fmt: skip


def run(engine, spec, program):
    return engine.start(engine.create(replace(spec, command=("python3", "-u", "-c", program))))


def said(engine, box):
    stream = engine.logs(box.id)
    try:
        return b"".join(piece.data for piece in stream).decode()
    finally:
        stream.close()


def cpu_of_stats(first, second):
    """As `docker stats` counts: the container's share of all CPU time, times the number of CPUs."""
    used = second["cpu_stats"]["cpu_usage"]["total_usage"] - first["cpu_stats"]["cpu_usage"]["total_usage"]
    host = second["cpu_stats"]["system_cpu_usage"] - first["cpu_stats"]["system_cpu_usage"]
    return used / host * second["cpu_stats"]["online_cpus"] * 100


def test_cpu_and_memory_are_those_of_docker_stats_within_5_percent(docker_engine, docker_client, spec, eventually):
    box = run(docker_engine, spec, LOAD)
    eventually(lambda: "ready" in said(docker_engine, box))

    def measure():
        theirs = docker_client.stats(box.id, stream=False, one_shot=True)
        return theirs, docker_engine.usages([box.id])[box.id]

    for _ in range(3):  # where this machine had other work between two looks, these are not at the same time
        first_stats, first = measure()
        eventually(lambda: clock.now() - first.at > 4, what="the window over which both are measured")  # noqa: B023
        second_stats, second = measure()
        ours, theirs = sample(second, first, 0.0), from_stats(second_stats, 0.0)
        expected = pytest.approx(cpu_of_stats(first_stats, second_stats), rel=0.05)
        if ours.cpu_percent == expected:
            break

    assert ours.cpu_percent > 1
    assert ours.cpu_percent == expected
    assert second.memory_bytes > 60 * MIB
    assert second.memory_bytes == pytest.approx(theirs.memory_bytes, rel=0.05)
    assert second.memory_limit_bytes == theirs.memory_limit_bytes == 256 * MIB
    assert second.pids == theirs.pids


def test_the_network_is_what_went_over_it(docker_engine, docker_client, spec, eventually):
    box = run(docker_engine, spec, TALK)
    size = 5 * MIB

    def talk():
        client = gevent.socket.create_connection((box.address, 8000), 2)
        client.sendall(str(size).encode())
        got = 0
        while piece := client.recv(65536):
            got += len(piece)
        client.close()
        return got

    def listens():
        try:
            return talk() == size
        except OSError:
            return False

    eventually(listens)
    before = docker_engine.usages([box.id])[box.id]
    assert talk() == size
    after = docker_engine.usages([box.id])[box.id]

    assert after.tx_bytes - before.tx_bytes == pytest.approx(size, rel=0.05)
    assert after.tx_packets > before.tx_packets and after.rx_bytes > before.rx_bytes
    stats = from_stats(docker_client.stats(box.id, stream=False, one_shot=True), 0.0)
    assert after.tx_bytes == pytest.approx(stats.tx_bytes, rel=0.05)


def test_where_cgroups_can_not_be_read_the_engine_is_asked(docker_engine, spec, monkeypatch, eventually):
    box = run(docker_engine, spec, LOAD)
    eventually(lambda: "ready" in said(docker_engine, box))
    read = docker_engine.usages([box.id])[box.id]

    from agentainerd.engine.host import Host

    monkeypatch.setattr(Host, "usages", lambda self, ids: {})
    monkeypatch.setattr(Host, "learn", lambda self, container_id, pid: False)
    began = time.monotonic()
    told = docker_engine.usages([box.id, "f" * 64])

    assert set(told) == {box.id}
    assert time.monotonic() - began < 5
    assert told[box.id].memory_bytes == pytest.approx(read.memory_bytes, rel=0.05)
    assert told[box.id].cpu_s >= read.cpu_s


def test_a_cgroup_in_a_strange_place_is_found_by_its_process(docker_engine, docker_client, spec, eventually):
    agent_id = spec.hostname
    created = docker_client.create_container(
        spec.image,
        command=["python3", "-u", "-c", LOAD],
        name=spec.name,
        labels={"agentainer.id": agent_id},
        host_config=docker_client.create_host_config(cgroup_parent="/agentainer-test", network_mode="none"),
    )["Id"]
    try:
        docker_client.start(created)
        usages = docker_engine.usages([created])
        assert usages[created].cpu_s > 0
    finally:
        docker_client.remove_container(created, force=True)
