"""What the engine tells of a container's use, where its host's kernel can't be asked."""

import pytest

from agentainerd.engine.usages import from_stats

V1_STATS = {
    "cpu_stats": {"cpu_usage": {"total_usage": 2_500_000_000}, "system_cpu_usage": 10**12},
    "memory_stats": {"usage": 50, "limit": 1000, "stats": {"cache": 9, "total_cache": 20, "total_inactive_file": 15}},
    "blkio_stats": {"io_service_bytes_recursive": [{"op": "Read", "value": 3}, {"op": "Write", "value": 4}, {"op": "Total", "value": 7}]},
    "networks": {"eth0": {"rx_bytes": 1, "rx_packets": 2, "tx_bytes": 3, "tx_packets": 4}, "eth1": {"rx_bytes": 10, "rx_packets": 0, "tx_bytes": 0, "tx_packets": 0}},
    "pids_stats": {"current": 5},
}  # fmt: skip
V2_STATS = {
    **V1_STATS,
    "memory_stats": {"usage": 50, "limit": 1000, "stats": {"file": 20, "inactive_file": 15}},
    "blkio_stats": {"io_service_bytes_recursive": [{"op": "read", "value": 3}, {"op": "write", "value": 4}]},
}


@pytest.mark.parametrize("told", [V1_STATS, V2_STATS])
def test_both_versions_of_cgroups_are_understood(told):
    usage = from_stats(told, 7.0)

    assert (usage.at, usage.cpu_s, usage.pids) == (7.0, 2.5, 5)
    assert (usage.memory_bytes, usage.cache_bytes, usage.memory_limit_bytes) == (35, 20, 1000)
    assert (usage.rx_bytes, usage.rx_packets, usage.tx_bytes, usage.tx_packets) == (11, 2, 3, 4)
    assert (usage.read_bytes, usage.write_bytes) == (3, 4)


def test_a_disk_that_was_never_used_and_no_network_are_0():
    told = {**V1_STATS, "blkio_stats": {"io_service_bytes_recursive": None}, "networks": None, "pids_stats": {}}

    usage = from_stats(told, 7.0)

    assert (usage.rx_bytes, usage.read_bytes, usage.pids) == (0, 0, 0)


def test_a_container_that_does_not_run_has_none():
    assert from_stats({"cpu_stats": {}, "memory_stats": {}}, 7.0) is None
