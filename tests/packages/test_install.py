"""What is installed on a machine works, and what is uninstalled leaves only what it says."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OVERLAID = ("/opt", "/usr/local/bin", "/etc", "/usr/lib/sysusers.d", "/usr/lib/tmpfiles.d")
IN_A_COPY_OF_THE_MACHINE = """
set -e
for folder in {folders}; do
  mkdir -p "{scratch}/upper$folder" "{scratch}/work$folder"
  mount -t overlay overlay -o "lowerdir=$folder,upperdir={scratch}/upper$folder,workdir={scratch}/work$folder" "$folder"
done
cd {root}
"""
"""What is written there is gone with the mount namespace; `upper` shows it meanwhile."""


@pytest.fixture
def machine(tmp_path):
    """Return a function that runs a shell script as root on this machine, with what it installs kept apart."""
    tmpfs = tmp_path / "scratch"
    tmpfs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmpfs], check=True)

    def run(script: str) -> str:
        begin = IN_A_COPY_OF_THE_MACHINE.format(folders=" ".join(OVERLAID), scratch=tmpfs, root=ROOT)
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "bash", "-c", begin + script],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run.upper = tmpfs / "upper"
    yield run
    subprocess.run(["umount", "--lazy", tmpfs], check=True)


def files(folder: Path) -> set[str]:
    """Regular files and links below a folder. What an overlay marks as removed is a device."""
    found = (Path(at) / name for at, _, names in os.walk(folder) for name in names)
    return {f"/{path.relative_to(folder)}" for path in found if path.is_symlink() or path.is_file()}


@pytest.mark.timeout(600)
def test_what_is_installed_works_and_uninstalling_leaves_the_configuration(machine):
    said = machine("""
        scripts/install --systemd
        agentainerctl --version
        /opt/agentainer/bin/agentainerd --check-config
        systemd-analyze verify /etc/systemd/system/agentainerd.service 2>&1
        echo "# mine" >> /etc/agentainer/config.yaml
        scripts/install --systemd
        tail -n 1 /etc/agentainer/config.yaml
        ls /opt/agentainer/bin
        scripts/uninstall
    """)

    assert "systemctl enable --now agentainerd.socket agentainerd" in said
    assert "agentainerctl 0." in said
    assert "# mine" in said.splitlines(), "a configuration that is there is kept"
    assert "  /etc/agentainer\n" in said
    ours = {path for path in files(machine.upper) if "agentainer" in path}
    assert ours == {"/etc/agentainer/config.yaml"}


@pytest.mark.timeout(600)
def test_nothing_is_uninstalled_from_under_a_daemon_that_runs(machine, tmp_path):
    said = machine(f"""
        scripts/install
        /opt/agentainer/bin/agentainerd --state-dir {tmp_path}/state --runtime-dir {tmp_path}/run --listen 127.0.0.1:0 \\
          --docker-host unix:///nowhere >/dev/null 2>&1 &
        daemon=$!
        trap 'kill $daemon' EXIT
        export AGENTAINER_HOST=unix://{tmp_path}/run/agentainer.sock
        until agentainerctl system ping 2>/dev/null; do kill -0 $daemon; done
        scripts/uninstall 2>&1 && exit 9
        agentainerctl system ping
        kill $daemon; wait $daemon
        trap - EXIT
        scripts/uninstall
    """)

    assert "agentainerd still runs (pid " in said
    assert said.count("agentainerd answers") == 2
