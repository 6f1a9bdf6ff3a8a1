"""The systemd unit: how exposed it leaves the daemon, and whether the daemon works in the sandbox that it describes.

There is no systemd that runs here. What tests/fakes/sandboxes.py lists is made as systemd makes it; what it does not make
(PrivateDevices, ProtectHome, the device rules) is only rated.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import psutil
import pytest

from tests.fakes.daemons import DaemonProcess, find_program, free_port
from tests.fakes.docker import new_sandbox

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd/agentainerd.service"
SANDBOX = ROOT / "tests/fakes/sandboxes.py"
MAX_EXPOSURE = 2.0
NOBODY = 65534


def analyze(*arguments: str) -> str:
    done = subprocess.run(
        [find_program("systemd-analyze"), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


def test_the_units_exposure_is_low():
    said = analyze("security", "--offline=true", str(UNIT))

    found = re.search(r"Overall exposure level for agentainerd\.service: ([0-9.]+)", said)
    assert found, said
    assert float(found[1]) <= MAX_EXPOSURE, said


def test_systemd_understands_every_line(tmp_path):
    for name in ("agentainerd.service", "agentainerd.socket"):
        text = (ROOT / "systemd" / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/agentainer/bin/agentainerd", "/bin/true"))

    said = analyze("verify", str(tmp_path / "agentainerd.service"), str(tmp_path / "agentainerd.socket"))

    ours = [line for line in said.splitlines() if "agentainerd" in line and "docker.service" not in line]
    assert [line for line in ours if re.search(r"Unknown|Invalid|Failed to parse|ignoring", line)] == []


@pytest.fixture
def sandboxed(docker_host, agent_image):
    """The daemon as a user without rights, in the sandbox of the unit, with the real engine and an agent."""
    if os.geteuid() != 0:
        pytest.skip("the sandbox is made by root")
    if not docker_host.startswith("unix://"):
        pytest.skip("the engine is reached by its socket in the unit")
    find_program("setpriv")
    engine = Path(docker_host.removeprefix("unix://"))
    with new_sandbox(docker_host) as sandbox, tempfile.TemporaryDirectory(prefix="agu-") as place:
        folder = Path(place)
        (folder / "run").mkdir()
        daemon = DaemonProcess(folder, folder / "run", free_port())
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
            path.chmod(0o777 if path.is_socket() else 0o755)
        daemon.wrapper = [sys.executable, str(SANDBOX), str(UNIT), str(folder)]
        environment = {
            "SANDBOX_USER": f"{NOBODY}:{NOBODY}", "SANDBOX_GROUPS": str(engine.stat().st_gid),
            "XTABLES_LOCKFILE": str(folder / "run/xtables.lock"), "AGENTAINER_DOCKER_HOST": sandbox.host,
            "AGENTAINER_DOCKER_NETWORK": sandbox.network, "AGENTAINER_DOCKER_ISOLATED_NETWORK": sandbox.isolated_network,
        }  # fmt: skip
        daemon.start([], environment)
        try:
            yield daemon.wait_ready()
        finally:
            daemon.clean_up()


@pytest.mark.docker
@pytest.mark.redis
def test_the_daemon_works_in_the_sandbox_of_the_unit(sandboxed, agent_image, eventually):
    daemon, ask = sandboxed, sandboxed.control
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    assert re.search(rf"^Uid:\s+{NOBODY}\s", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert int(re.search(r"^Seccomp_filters:\s+(\d+)$", status, re.MULTILINE)[1]) >= 2
    assert re.search(r"^CapBnd:\s+0000000000001000$", status, re.MULTILINE)

    eventually(lambda: ask("GET", "/system/info")[1]["data"]["isolation"] == "enforced", what="the firewall's rules")
    assert ask("POST", "/agents", {"name": "web", "image": agent_image, "services": {"redis": True}})[0] == 201
    assert ask("POST", "/agents/web/start?wait=30")[0] == 200
    assert daemon.http("POST", "/agent/web/say/hello", b"x")[1]["body"] == "x"
    used = ask("GET", "/agents/web/metrics")[1]["data"]
    assert used["network"]["rx_bytes"] > 0 and used["memory"]["usage"] > 0 and used["cpu"]["total_usage"] > 0
    assert ask("POST", "/agents/web/stop?grace=0")[0] == 200
    status, queued, _ = daemon.http("POST", "/agent/web/later", b"y" * 100_000)
    assert status == 202
    assert ask("POST", "/agents/web/start?wait=30")[0] == 200
    eventually(lambda: ask("GET", "/agents/web/requests?state=completed")[1]["data"]["requests"], what="the delivery")
    assert ask("GET", "/system/df")[0] == 200
    shared = ask("GET", "/system/info")[1]["data"]["shared_redis"]
    assert (shared["running"], shared["agents"], len(shared["listen"])) == (True, 1, 1)
    children = [one for one in psutil.Process(daemon.pid).children() if re.search("redis|valkey", one.name())]
    (redis,) = (one for one in children if Path(one.cwd()).name == "journal")
    assert len(children) == 2
    for child in children:
        assert re.search(r"^CapEff:\s+0+$", Path(f"/proc/{child.pid}/status").read_text(), re.MULTILINE)
    redis.kill()
    eventually(lambda: daemon.http("POST", "/agent/web/again", b"z")[2].get("x-agentainer-journal") is None)
    assert ask("DELETE", "/agents/web?force=true")[0] == 200
    assert daemon.stop() == 0
    refused = [line for line in daemon.log.splitlines() if "not permitted" in line or "Read-only" in line]
    assert refused == []
    assert "Traceback" not in daemon.log


@pytest.mark.docker
@pytest.mark.redis
def test_a_daemon_without_rights_backs_up_what_only_root_may_read(sandboxed, agent_image, docker_client):
    """Files of root, closed to all others, in a folder and in a volume; written by the engine, as it reads them."""
    name = f"agentainer-test-{uuid.uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory(prefix="agu-data-") as place:
        os.chmod(place, 0o755)
        data = Path(place) / "data"
        data.mkdir(mode=0o755)
        (data / "closed").write_text("of root")
        (data / "closed").chmod(0o600)
        os.chown(data / "closed", 12, 34)
        (data / "link").symlink_to("closed")
        docker_client.create_volume(name)
        try:
            mounts = [
                {"host_path": str(data), "container_path": "/data"},
                {"host_path": name, "container_path": "/cache"},
            ]
            body = {"name": "web", "image": agent_image, "volumes": mounts}
            assert sandboxed.control("POST", "/agents", body)[0] == 201
            Path(docker_client.inspect_volume(name)["Mountpoint"], "warm").write_text("yes")
            agentainerctl(sandboxed, "backup", "create", "--name", "daily")
            done = json.loads(agentainerctl(sandboxed, "backup", "restore", "daily", "-o", "json"))
            folder, volume = (each["destination"] for each in done["volumes"])
            kept = Path(folder) / "closed"
            assert (kept.read_text(), kept.stat().st_uid, kept.stat().st_gid, kept.stat().st_mode & 0o777) == (
                "of root", 12, 34, 0o600,
            )  # fmt: skip
            assert os.readlink(Path(folder) / "link") == "closed"
            assert int(kept.stat().st_mtime) == int((data / "closed").stat().st_mtime)
            assert Path(docker_client.inspect_volume(volume)["Mountpoint"], "warm").read_text() == "yes"
            (data / "closed").write_text("spoilt")
            agentainerctl(sandboxed, "backup", "restore", "--in-place", "daily")
            assert (data / "closed").read_text() == "of root"
            assert not docker_client.containers(
                all=True, filters={"label": "agentainer.volume", "name": "agentainer-volume"}
            )
        finally:
            for agent in ("web", "web-restored"):
                sandboxed.control("DELETE", f"/agents/{agent}?force=true")
            for found in docker_client.volumes()["Volumes"] or ():
                if found["Name"].startswith(name):
                    docker_client.remove_volume(found["Name"])


def agentainerctl(daemon: DaemonProcess, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "agentainerctl", "--host", f"unix://{daemon.control_socket}", *words],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout, done.stderr, daemon.tail())
    return done.stdout
