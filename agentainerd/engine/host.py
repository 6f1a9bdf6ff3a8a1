"""What the kernel counts for containers of this host: cgroups (version 1 and 2) for CPU, memory, disk and processes, /proc
for the network.

A reading is about eight small files, 10 us each, and asks nobody: the engine's own call for the same figures takes a
millisecond of the engine at least, a second where it is asked for rates. A cgroup is found by the container's id where the
engine's two cgroup drivers put it, or by `learn`, from the id of a process in it.
"""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from agentainerd import clock
from agentainerd.model.metrics import Usage

ROOT = "/"
_DRIVERS = ("docker/{id}", "system.slice/docker-{id}.scope")  # cgroupfs and systemd
_V1 = ("cpuacct", "memory", "blkio", "pids")
_GONE = (errno.ENOENT, errno.ENODEV, errno.ESRCH)
_PIECE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class _Place:
    """The folders of one container's cgroup; in version 2 all four are one."""

    cpu: str
    memory: str
    disk: str
    pids: str


class Host:
    """The kernel's counters. It blocks, for as long as reading takes: many containers at once belong into a thread.

    `root` is where /proc and /sys are.
    """

    def __init__(self, root: str = ROOT) -> None:
        self._proc = os.path.join(root, "proc")
        cgroups = os.path.join(root, "sys/fs/cgroup")
        self._is_v2 = os.path.exists(os.path.join(cgroups, "cgroup.controllers"))
        names = ("", "", "", "") if self._is_v2 else _V1
        self._mounts = tuple(os.path.join(cgroups, name) for name in names)
        self._places: dict[str, _Place] = {}
        self._memory_bytes = int(psutil.virtual_memory().total)

    def usages(self, container_ids: Sequence[str]) -> dict[str, Usage]:
        """Return the counters of those of these containers that run here; the others are left out."""
        found = {}
        for container_id in container_ids:
            usage = self._usage(container_id)
            if usage is not None:
                found[container_id] = usage
        return found

    def learn(self, container_id: str, pid: int) -> bool:
        """Find the cgroup of a container by one of its processes; return whether there is one that can be read."""
        path = self._cgroup_of(pid)
        return path is not None and self._remember(container_id, path)

    def forget(self, container_ids: set[str]) -> None:
        """Keep the places of these containers only."""
        self._places = {one: place for one, place in self._places.items() if one in container_ids}

    def _usage(self, container_id: str) -> Usage | None:
        place = self._places.get(container_id)
        if place is None and not self._find(container_id):
            return None
        try:
            return self._read(self._places[container_id])
        except OSError as error:
            if error.errno not in _GONE and not isinstance(error, PermissionError):
                raise
            self._places.pop(container_id, None)
            return None

    def _find(self, container_id: str) -> bool:
        return any(self._remember(container_id, path.format(id=container_id)) for path in _DRIVERS)

    def _remember(self, container_id: str, path: str) -> bool:
        place = _Place(*(os.path.join(mount, path.lstrip("/")) for mount in self._mounts))
        is_there = os.access(place.cpu, os.R_OK | os.X_OK) and path.strip("/") != ""
        if is_there:
            self._places[container_id] = place
        return is_there

    def _cgroup_of(self, pid: int) -> str | None:
        try:
            lines = _lines(os.path.join(self._proc, str(pid), "cgroup"))
        except OSError:
            return None
        wanted = "" if self._is_v2 else "memory"
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if wanted in controllers.split(","):
                return path
        return None

    def _read(self, place: _Place) -> Usage:
        """Return the counters. Raises OSError: the cgroup is gone. What a kernel was not built to count is 0."""
        at = clock.now()
        cpu_s = self._cpu_s(place.cpu)
        memory, cache, limit = self._memory(place.memory)
        read, write = self._disk(place.disk)
        rx_bytes, rx_packets, tx_bytes, tx_packets = self._network(place.pids)
        return Usage(
            at=at,
            cpu_s=cpu_s,
            memory_bytes=memory,
            cache_bytes=cache,
            memory_limit_bytes=min(limit or self._memory_bytes, self._memory_bytes),
            pids=int(_word(place.pids, "pids.current", "0")),
            rx_bytes=rx_bytes,
            rx_packets=rx_packets,
            tx_bytes=tx_bytes,
            tx_packets=tx_packets,
            read_bytes=read,
            write_bytes=write,
        )

    def _cpu_s(self, folder: str) -> float:
        if self._is_v2:
            return _flat(os.path.join(folder, "cpu.stat"))["usage_usec"] / 1e6
        return int(_text(os.path.join(folder, "cpuacct.usage"))) / 1e9

    def _memory(self, folder: str) -> tuple[int, int, int]:
        """Return working set, page cache, and limit (0: none)."""
        if self._is_v2:
            stat = _flat_or_empty(os.path.join(folder, "memory.stat"))
            used, limit = int(_word(folder, "memory.current", "0")), _word(folder, "memory.max", "max")
            return max(used - stat.get("inactive_file", 0), 0), stat.get("file", 0), 0 if limit == "max" else int(limit)
        stat = _flat_or_empty(os.path.join(folder, "memory.stat"))
        used = int(_word(folder, "memory.usage_in_bytes", "0"))
        working_set = max(used - stat.get("total_inactive_file", 0), 0)
        return working_set, stat.get("total_cache", 0), stat.get("hierarchical_memory_limit", 0)

    def _disk(self, folder: str) -> tuple[int, int]:
        name = "io.stat" if self._is_v2 else "blkio.throttle.io_service_bytes_recursive"
        try:
            lines = _lines(os.path.join(folder, name))
        except OSError:
            return 0, 0
        return _io_v2(lines) if self._is_v2 else _io_v1(lines)

    def _network(self, folder: str) -> tuple[int, int, int, int]:
        """Return bytes and packets received, then sent, of the network in which the container's processes are."""
        pid = _first_pid(folder)
        if not pid:
            return 0, 0, 0, 0
        try:
            lines = _lines(os.path.join(self._proc, pid, "net/dev"))
        except OSError:
            return 0, 0, 0, 0
        counts = [0, 0, 0, 0]
        for line in lines[2:]:
            name, _, rest = line.partition(":")
            if name.strip() != "lo":
                fields = rest.split()
                for place, field in enumerate((0, 1, 8, 9)):
                    counts[place] += int(fields[field])
        return counts[0], counts[1], counts[2], counts[3]


def _first_pid(folder: str) -> str:
    """Return a process of a cgroup, or of one below it (an engine in a container has those), "" where there is none."""
    pids = _word(folder, "cgroup.procs", "")
    if pids:
        return pids
    try:
        with os.scandir(folder) as entries:
            below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return ""
    return next((pid for path in below if (pid := _word(path, "cgroup.procs", ""))), "")


def _io_v1(lines: list[str]) -> tuple[int, int]:
    """Sum "8:0 Read 4096" over the devices."""
    sums = {"Read": 0, "Write": 0}
    for line in lines:
        words = line.split()
        if len(words) == 3 and words[1] in sums:
            sums[words[1]] += int(words[2])
    return sums["Read"], sums["Write"]


def _io_v2(lines: list[str]) -> tuple[int, int]:
    """Sum "8:0 rbytes=4096 wbytes=0 ..." over the devices."""
    sums = {"rbytes": 0, "wbytes": 0}
    for line in lines:
        for word in line.split()[1:]:
            name, _, value = word.partition("=")
            if name in sums:
                sums[name] += int(value)
    return sums["rbytes"], sums["wbytes"]


def _flat(path: str) -> dict[str, int]:
    """Read a file of lines "name value"."""
    found = {}
    for line in _lines(path):
        name, _, value = line.partition(" ")
        if value:
            found[name] = int(value)
    return found


def _flat_or_empty(path: str) -> dict[str, int]:
    try:
        return _flat(path)
    except OSError:
        return {}


def _word(folder: str, name: str, missing: str) -> str:
    """Return the first word of a file, `missing` where there is none."""
    try:
        return (_text(os.path.join(folder, name)).split() or [missing])[0]
    except OSError:
        return missing


def _lines(path: str) -> list[str]:
    return _text(path).splitlines()


def _text(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(descriptor, _PIECE_BYTES):
            pieces.append(piece)
        return b"".join(pieces).decode("ascii", "replace")
    finally:
        os.close(descriptor)
