"""The kernel's counters, from trees of files as kernels with cgroups of version 1 and 2 have them."""

import os

import pytest

from agentainerd.engine.host import Host

ID = "c" * 64
NET = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     999       9    0    0    0     0          0         0      999       9    0    0    0     0       0          0
  eth0:    1000      10    0    0    0     0          0         0      300       3    0    0    0     0       0          0
  eth1:     500       5    0    0    0     0          0         0       20       2    0    0    0     0       0          0
"""
V2 = {
    "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n",
    "memory.current": "50000000\n",
    "memory.stat": "anon 30000000\nfile 20000000\ninactive_file 15000000\nactive_file 5000000\n",
    "memory.max": "536870912\n",
    "io.stat": "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n253:1 rbytes=1 wbytes=2 rios=1 wios=1\n",
    "pids.current": "7\n",
    "cgroup.procs": "77\n78\n",
}
V1 = {
    "cpuacct/cpuacct.usage": "2500000000\n",
    "memory/memory.usage_in_bytes": "50000000\n",
    "memory/memory.stat": "cache 1\ntotal_cache 20000000\ntotal_inactive_file 15000000\nhierarchical_memory_limit 536870912\n",
    "blkio/blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 8192\n8:0 Total 12288\n253:1 Read 1\n253:1 Write 2\nTotal 12291\n",
    "pids/pids.current": "7\n",
    "pids/cgroup.procs": "77\n78\n",
}


class Tree:
    def __init__(self, root, version):
        self.root = root
        self.version = version
        if version == 2:
            self.put("sys/fs/cgroup/cgroup.controllers", "cpu io memory pids\n")

    def put(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def container(self, where=f"docker/{ID}", pid="77", **changed):
        files = V2 if self.version == 2 else V1
        for name, text in {**files, **changed}.items():
            controller, _, file = name.rpartition("/")
            if text is not None:
                self.put(os.path.join("sys/fs/cgroup", controller, where, file), text)
        if pid:
            self.put(f"proc/{pid}/net/dev", NET)

    def usage(self):
        return Host(str(self.root)).usages([ID]).get(ID)


@pytest.fixture(params=[1, 2])
def tree(tmp_path, request):
    return Tree(tmp_path, request.param)


@pytest.mark.parametrize("where", [f"docker/{ID}", f"system.slice/docker-{ID}.scope"])
def test_all_counters_are_read_wherever_the_driver_puts_the_cgroup(tree, where):
    tree.container(where)

    usage = tree.usage()

    assert (usage.cpu_s, usage.pids) == (2.5, 7)
    assert (usage.memory_bytes, usage.cache_bytes, usage.memory_limit_bytes) == (35_000_000, 20_000_000, 536870912)
    assert (usage.rx_bytes, usage.rx_packets, usage.tx_bytes, usage.tx_packets) == (1500, 15, 320, 5)
    assert (usage.read_bytes, usage.write_bytes) == (4097, 8194)


def test_a_container_that_does_not_run_here_is_left_out(tree):
    assert Host(str(tree.root)).usages([ID, "d" * 64]) == {}


def test_one_that_ends_is_left_out_from_then_on(tree):
    tree.container()
    host = Host(str(tree.root))
    assert ID in host.usages([ID])

    os.unlink(tree.root / ("sys/fs/cgroup/docker" if tree.version == 2 else "sys/fs/cgroup/cpuacct/docker") / ID / (
        "cpu.stat" if tree.version == 2 else "cpuacct.usage"
    ))  # fmt: skip

    assert host.usages([ID]) == {}


def test_a_strange_place_is_found_by_a_process(tree):
    tree.container("my.slice/x/docker-1")
    tree.put("proc/77/cgroup", "4:memory,x:/my.slice/x/docker-1\n1:cpu:/other\n0::/my.slice/x/docker-1\n")
    host = Host(str(tree.root))

    assert host.usages([ID]) == {}
    assert host.learn(ID, 77)
    assert host.usages([ID])[ID].cpu_s == 2.5
    assert not host.learn(ID, 99)


def test_a_process_in_the_root_cgroup_is_no_container(tree):
    tree.container()
    tree.put("proc/77/cgroup", "4:memory:/\n0::/\n")

    assert not Host(str(tree.root)).learn("e" * 64, 77)


def test_a_limit_that_is_none_or_above_the_host_is_the_hosts_memory(tree):
    none = {"memory.max": "max\n"} if tree.version == 2 else {
        "memory/memory.stat": "total_inactive_file 1\nhierarchical_memory_limit 9223372036854771712\n"
    }  # fmt: skip
    tree.container(**none)

    import psutil

    assert tree.usage().memory_limit_bytes == psutil.virtual_memory().total


def test_what_the_kernel_does_not_count_is_0(tree):
    absent = ["memory.current", "memory.stat", "memory.max", "io.stat", "pids.current", "cgroup.procs"] if tree.version == 2 else [
        name for name in V1 if not name.startswith("cpuacct")
    ]  # fmt: skip
    tree.container(pid="", **dict.fromkeys(absent))

    usage = tree.usage()

    assert usage.cpu_s == 2.5
    assert (usage.memory_bytes, usage.pids, usage.rx_bytes, usage.read_bytes) == (0, 0, 0, 0)


def test_processes_may_be_one_level_below(tree):
    below = {"cgroup.procs": ""} if tree.version == 2 else {"pids/cgroup.procs": ""}
    tree.container(**below)
    folder = "sys/fs/cgroup" if tree.version == 2 else "sys/fs/cgroup/pids"
    tree.put(f"{folder}/docker/{ID}/init/cgroup.procs", "77\n")

    assert tree.usage().rx_bytes == 1500
