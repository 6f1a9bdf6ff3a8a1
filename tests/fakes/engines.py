"""A Docker Engine of a test's own, which it may restart and kill, on a network of its own.

A second engine takes docker0 away from the first one, whatever bridge it is given (seen with 20.10): so this one lives in
a network namespace. What connects to its containers must live there too: put `engine.inside` before its command.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.conftest import wait_until
from tests.fakes.daemons import find_program


class PrivateEngine:
    """An engine that may be stopped and started. `host` is its address, `inside` the words that run a command on its network.
    `live_restore`: its containers go on while it is away.
    """

    def __init__(self, folder: Path, *, live_restore: bool = False) -> None:
        self.folder, self.host = folder, f"unix://{folder}/docker.sock"
        self.namespace = f"agd-{uuid.uuid4().hex[:8]}"
        self.inside = [find_program("nsenter"), f"--net=/run/netns/{self.namespace}"]
        self._options = ["--live-restore"] if live_restore else []
        self._process: psutil.Popen | None = None

    def open(self, images: Iterable[str]) -> None:
        """Make its network, start it, and give it images of the machine's own engine."""
        self._ip("netns", "add", self.namespace)
        self._ip("-n", self.namespace, "link", "set", "lo", "up")
        self.start()
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saved:
            self._docker("load", stdin=saved.stdout)
        assert saved.returncode == 0

    def start(self) -> None:
        """Start it, and wait until it answers."""
        places = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        with (self.folder / "log").open("ab") as log:
            self._process = psutil.Popen(
                [
                    *self.inside, find_program("dockerd"), "--host", self.host, *self._options,
                    *(f"--{option}={self.folder}/{name}" for option, name in places.items()),
                ],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_until(self._answers, limit_s=60, what="the private engine")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it; without live-restore, SIGTERM ends its containers first."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(60)

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def address_of(self, container_id: str) -> str:
        """Return one of its containers' addresses."""
        template = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        return self._docker("inspect", "--format", template, container_id).stdout.decode().split()[0]

    def close(self) -> None:
        """Remove all of it: containers, mounts, files, the network."""
        if self._process is not None and self._process.is_running():
            for container in self._docker("ps", "-aq").stdout.split():
                self._docker("rm", "-fv", container.decode())
            self.stop()
        for process in psutil.process_iter(["cmdline"]):
            if any(f"{self.folder}/exec" in word for word in process.info["cmdline"] or ()):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        for mount in reversed([line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]):
            if mount.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "-l", mount], check=False)
        if Path(f"/run/netns/{self.namespace}").exists():
            self._ip("netns", "delete", self.namespace)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        return subprocess.run(["docker", "-H", self.host, "info"], capture_output=True, check=False).returncode == 0

    def _docker(self, *arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["docker", "-H", self.host, *arguments], check=True, stdout=subprocess.PIPE, **options)

    def _ip(self, *arguments: str) -> None:
        subprocess.run([find_program("ip"), *arguments], check=True)


@contextmanager
def private_engine(*images: str, live_restore: bool = False) -> Iterator[PrivateEngine]:
    """A PrivateEngine in a temporary folder with a short name (sockets' names are limited); needs root."""
    if os.geteuid() != 0:
        raise PermissionError("an engine of one's own needs root")
    engine = PrivateEngine(Path(tempfile.mkdtemp(prefix="agd-engine-")), live_restore=live_restore)
    try:
        engine.open(images)
        yield engine
    finally:
        engine.close()
