"""Backups of real containers' volumes, through the real daemon and the real tool."""

import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import docker
import psutil
import pytest

from tests.fakes.volumes import fill, look

pytestmark = [pytest.mark.docker, pytest.mark.redis]


class Host:
    """A daemon with the real engine."""

    def __init__(self, daemon, image):
        self.daemon = daemon
        self.image = image

    def must(self, method, path, body=None):
        status, said = self.daemon.control(method, path, body)
        assert status < 300, said
        return said["data"]

    def ctl(self, *words, code=0, env=None):
        """Run agentainerctl; return what it printed on stdout."""
        done = subprocess.run(
            [sys.executable, "-m", "agentainerctl", "--host", f"unix://{self.daemon.control_socket}", *words],
            capture_output=True, text=True, timeout=1800, check=False, env=env,
        )  # fmt: skip
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done.stdout


@pytest.fixture
def host(start_daemon, docker_sandbox, agent_image):
    yield Host(start_daemon(sandbox=docker_sandbox), agent_image)
    docker_sandbox.remove_containers()


@pytest.fixture
def volume(docker_client, docker_sandbox):
    """The name of a volume; it, and what is restored from it, is removed with the test."""
    name = f"agentainer-test-{secrets.token_hex(6)}"
    yield name
    docker_sandbox.remove_containers()
    for found in docker_client.volumes()["Volumes"] or ():
        if found["Name"].startswith(name):
            with suppress(docker.errors.APIError):
                docker_client.remove_volume(found["Name"])


def test_volumes_of_a_real_agent_come_back(host, docker_client, tmp_path, volume):
    data = fill(tmp_path / "data")
    mounts = [{"host_path": str(data), "container_path": "/data"}, {"host_path": volume, "container_path": "/cache"}]
    host.must("POST", "/agents", {"name": "web", "image": host.image, "volumes": mounts, "env_vars": {"A": "1"}})
    host.must("POST", "/agents/web/start?wait=30")
    kept = Path(docker_client.inspect_volume(volume)["Mountpoint"])
    (kept / "warm").write_text("yes")
    before = look(data)

    created = host.ctl("backup", "create", "--name", "daily", "--pause", code=8)
    assert created.startswith("Backup created successfully!")
    assert host.must("GET", "/agents/web")["status"] == "running"
    assert "is whole" in host.ctl("backup", "verify", "daily")
    host.ctl("backup", "restore", "--in-place", "daily", code=4)

    host.ctl("stop", "web")
    (data / "plain").unlink()
    (data / "new").write_text("x")
    (kept / "warm").write_text("no")
    host.ctl("backup", "restore", "--in-place", "daily", code=8)
    assert look(data) == before
    assert (kept / "warm").read_text() == "yes"
    host.must("POST", "/agents/web/start?wait=30")

    done = host.ctl("backup", "restore", "daily", code=8)
    assert "Agent web-restored (from web)" in done
    host.must("POST", "/agents/web-restored/start?wait=30")
    container = host.must("GET", "/agents/web-restored")["container_id"]
    sources = {each["Destination"]: each["Source"] for each in docker_client.inspect_container(container)["Mounts"]}
    assert look(Path(sources["/data"])) == before
    assert Path(sources["/cache"], "warm").read_text() == "yes"


def test_a_backup_of_one_host_is_restored_on_another(
    host, start_daemon, docker_sandbox, docker_client, tmp_path, volume
):
    """The other one has a state of its own; the first one's agents, folders and volumes are gone."""
    data = fill(tmp_path / "data")
    mounts = [{"host_path": str(data), "container_path": "/data"}, {"host_path": volume, "container_path": "/cache"}]
    host.must("POST", "/agents", {"name": "web", "image": host.image, "volumes": mounts, "cpu_limit": 500_000_000})
    docker_client.create_volume(volume)
    Path(docker_client.inspect_volume(volume)["Mountpoint"], "warm").write_text("yes")
    before = look(data)
    host.ctl("backup", "create", "--name", "move", code=8)
    host.ctl("backup", "export", "move", str(tmp_path / "move.tar.gz"))
    host.ctl("remove", "--force", "web")
    host.daemon.stop()
    shutil.rmtree(data)
    docker_client.remove_volume(volume)

    other = Host(start_daemon(sandbox=docker_sandbox), host.image)
    other.ctl("backup", "import", str(tmp_path / "move.tar.gz"))
    other.ctl("backup", "restore", "move", code=8)

    assert look(data) == before
    assert Path(docker_client.inspect_volume(volume)["Mountpoint"], "warm").read_text() == "yes"
    assert other.must("POST", "/agents/web/start?wait=30")["cpu_limit"] == 500_000_000


def test_a_daemon_that_is_killed_in_the_middle_leaves_agents_running_and_no_half_backup(
    host, start_daemon, docker_sandbox, tmp_path, eventually
):
    (tmp_path / "data").mkdir()
    piece = secrets.token_bytes(2**20)
    with open(tmp_path / "data/large", "wb") as file:
        for _ in range(400):
            file.write(piece)
    mounts = [{"host_path": str(tmp_path / "data"), "container_path": "/data"}]
    host.must("POST", "/agents", {"name": "web", "image": host.image, "volumes": mounts})
    host.must("POST", "/agents/web/start?wait=30")
    thread = threading.Thread(target=lambda: host.ctl("backup", "create", "--name", "large", "--pause", code=5))
    thread.start()
    folder = host.daemon.folder / "state" / "backups"
    eventually(lambda: any(path.stat().st_size > 2**20 for path in folder.glob("*.partial")), limit_s=30)
    assert host.must("GET", "/agents/web")["status"] == "paused"

    host.daemon.kill()
    thread.join()
    host.daemon = start_daemon(like=host.daemon, sandbox=docker_sandbox)

    eventually(lambda: host.must("GET", "/agents/web")["status"] == "running", limit_s=30)
    eventually(lambda: list(folder.iterdir()) == [], limit_s=30)
    assert host.ctl("backup", "list") == "No backups\n"
    assert host.daemon.http("GET", "/agent/web/x")[0] == 200


def test_the_daemon_answers_while_it_backs_up(host, tmp_path):
    """A gigabyte is copied; requests go on, and are not held up."""
    (tmp_path / "data").mkdir()
    with open(tmp_path / "data/large", "wb") as file:
        piece = secrets.token_bytes(2**20)
        for _ in range(32):
            file.write(piece)
    mounts = [{"host_path": str(tmp_path / "data"), "container_path": "/data"}]
    host.must("POST", "/agents", {"name": "web", "image": host.image, "volumes": mounts})
    host.must("POST", "/agents/web/start?wait=30")
    ended = threading.Event()

    def back_up():
        try:
            host.ctl("backup", "create", "--name", "large")
        finally:
            ended.set()

    thread = threading.Thread(target=back_up)
    thread.start()
    slowest = count = 0
    while not ended.is_set():
        began = time.monotonic()
        assert host.daemon.http("GET", "/agent/web/x")[0] == 200
        slowest = max(slowest, time.monotonic() - began)
        count += 1
    thread.join()

    assert host.must("GET", "/backups/large")["data_bytes"] == 32 * 2**20
    assert count > 3
    assert slowest < 1.0


def test_memory_stays_flat(host, tmp_path):
    """BACKUP_GIGABYTES=5 of random data with `make soak`; a fraction of it, and holes of 5 GB, otherwise."""
    (tmp_path / "data").mkdir()
    with open(tmp_path / "data/holes", "wb") as file:
        file.seek(5 * 2**30)
        file.write(b"end")
    piece = secrets.token_bytes(2**20)
    with open(tmp_path / "data/large", "wb") as file:
        for _ in range(int(float(os.environ.get("BACKUP_GIGABYTES", "0.03")) * 1024)):
            file.write(piece)
    mounts = [{"host_path": str(tmp_path / "data"), "container_path": "/data"}]
    host.must("POST", "/agents", {"name": "web", "image": host.image, "volumes": mounts})
    process = psutil.Process(host.daemon.pid)
    before, most, ended = process.memory_info().rss, [0], threading.Event()

    def look_at_it():
        while not ended.wait(0.1):
            most[0] = max(most[0], process.memory_info().rss)

    thread = threading.Thread(target=look_at_it)
    thread.start()
    try:
        began = time.monotonic()
        host.ctl("backup", "create", "--name", "large")
        made_s, began = time.monotonic() - began, time.monotonic()
        host.ctl("backup", "restore", "large")
        restored_s = time.monotonic() - began
    finally:
        ended.set()
        thread.join()

    print(f"made in {made_s:.1f} s, restored in {restored_s:.1f} s, {(most[0] - before) / 2**20:.0f} MiB more memory")
    assert most[0] - before < 48 * 2**20
    copy = next(tmp_path.glob("data-restored-*"))
    assert (copy / "holes").stat().st_blocks * 512 < 2**20
    assert (copy / "large").stat().st_size == (tmp_path / "data/large").stat().st_size
