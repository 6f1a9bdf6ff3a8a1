"""The Debian package, installed, upgraded and removed in a container of the release that it is for."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("deb")
    built = subprocess.run([ROOT / "scripts/deb", folder], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return Path(built.stdout.strip())


@pytest.fixture
def inside(package, base_image):
    """Return a function that runs a shell script in one container, in which the package is /package.deb."""
    name = f"agentainer-test-{os.getpid()}-deb"
    subprocess.run(
        ["docker", "run", "-d", "--init", "--name", name, "-v", f"{package}:/package.deb:ro", base_image, "sleep", "infinity"],
        check=True, capture_output=True,
    )  # fmt: skip

    def run(script: str) -> str:
        command = ["docker", "exec", "-e", "DEBIAN_FRONTEND=noninteractive", name, "bash", "-ec", script]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    yield run
    subprocess.run(["docker", "rm", "-f", name], check=True, capture_output=True)


SERVE = """
    export STATE_DIRECTORY=/var/lib/agentainer RUNTIME_DIRECTORY=/run/agentainer
    setpriv --reuid agentainer --regid agentainer --clear-groups /opt/agentainer/bin/agentainerd >/tmp/log 2>&1 &
    for n in $(seq 300); do agentainerctl system ping && exit 0; kill -0 $! || { cat /tmp/log; exit 1; }; sleep 0.1; done
    cat /tmp/log; exit 1
"""
"""As systemd starts it, which does not run in a container."""
STOP = "pid=$(cat /run/agentainer/lock); kill $pid; while [ -e /proc/$pid ]; do sleep 0.05; done"


def test_it_is_installed_serves_is_upgraded_and_removed(inside):
    inside("apt-get update -q && apt-get install -y -q --no-install-recommends /package.deb")
    assert "uid=" in inside("id agentainer")
    assert inside("stat -c '%a %U' /var/lib/agentainer /run/agentainer").split() == [
        "700",
        "agentainer",
        "755",
        "agentainer",
    ]
    assert "enabled" in inside("systemctl is-enabled agentainerd.socket agentainerd.service")
    assert "agentainerd answers" in inside(SERVE)
    assert "own server" in inside("agentainerctl doctor || true")
    journal = inside("cat /var/lib/agentainer/journal.id")

    inside(f"echo '# mine' >> /etc/agentainer/config.yaml; {STOP}")
    inside("apt-get install -y -q --reinstall --no-install-recommends /package.deb")
    assert "# mine" in inside("cat /etc/agentainer/config.yaml")
    assert "agentainerd answers" in inside(SERVE)
    assert inside("cat /var/lib/agentainer/journal.id").split()[0] == journal.split()[0], "the same journal"

    inside(f"{STOP}; apt-get remove -y -q agentainer")
    inside("test ! -e /opt/agentainer/bin; test ! -e /usr/bin/agentainerctl; test -e /var/lib/agentainer/journal.id")
    assert "# mine" in inside("cat /etc/agentainer/config.yaml")


def test_nothing_in_it_names_where_it_was_built(package, tmp_path):
    subprocess.run(["dpkg-deb", "-x", package, tmp_path], check=True)
    found = subprocess.run(
        ["grep", "-rl", "-e", "/debian/agentainer/", "-e", "/tmp/", "--include=*", tmp_path / "opt/agentainer/bin",
         tmp_path / "opt/agentainer/pyvenv.cfg"], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.stdout == ""
    program = (tmp_path / "opt/agentainer/bin/agentainerd").read_text()
    assert program.startswith("#!/opt/agentainer/bin/python")
    compiled = next((tmp_path / "opt/agentainer/lib").rglob("agentainerd/__pycache__/daemon.*.pyc")).read_bytes()
    assert b"/opt/agentainer/lib/" in compiled
    assert b"debian/agentainer" not in compiled
