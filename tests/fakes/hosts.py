"""What is around the agents: services of this host, a host beyond it, and a metadata service; and who knocks at them.

host_server(address, says)    context manager: serve TCP on an address of this host; gives the port
outside                       an Outside: a host behind a cable, where a server says "outside" on every address of it
knock(client, container, (host, port), ...)    what the container gets from each: the first bytes, or the error's name
"""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import docker
import psutil
import pytest
from gevent import socket
from gevent.server import StreamServer

from tests.fakes.docker import run_inside

KNOCK = """
import json, socket
from concurrent.futures import ThreadPoolExecutor
def knock(target):
    try:
        with socket.create_connection(target, 1.0) as connection:
            connection.settimeout(2.0)
            return connection.recv(100).decode() or "closed"
    except OSError as error:
        return type(error).__name__
with ThreadPoolExecutor(32) as pool:
    print(json.dumps(list(pool.map(knock, TARGETS))))
"""
SERVER = """
import socket, selectors, sys
waiting = selectors.DefaultSelector()
for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))[: 1 + socket.has_dualstack_ipv6()]:
    server = socket.socket(family)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.bind((address, 7000))
    server.listen()
    waiting.register(server, selectors.EVENT_READ)
print(1, flush=True)
while True:
    for key, _ in waiting.select():
        connection = key.fileobj.accept()[0]
        connection.sendall(b"outside")
        connection.close()
"""


def has_ipv6() -> bool:
    """Whether this machine speaks IPv6."""
    switch = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
    return switch.exists() and switch.read_text().strip() == "0"


@dataclass(frozen=True)
class Outside:
    """A host beyond this one. `metadata` and `metadata_v6` are addresses that clouds use for their metadata services. Those of
    IPv6 are "" where this machine speaks none.
    """

    port: int
    address: str
    address_v6: str
    metadata: str
    metadata_v6: str


@contextmanager
def host_server(address: str, says: bytes) -> Iterator[int]:
    """Serve on an address of the host; give the port."""
    server = StreamServer((address, 0), lambda connection, _: connection.sendall(says))
    server.start()
    try:
        yield server.server_port
    finally:
        server.stop()


def knock(client: docker.APIClient, container_id: str, *targets: tuple[str, int]) -> list[str]:
    """Return what the container gets from each target: the first bytes, or the error."""
    return run_inside(client, container_id, KNOCK.replace("TARGETS", repr(list(targets))))


def addresses_of_this_host(family: int = socket.AF_INET) -> list[str]:
    """Return all its addresses but the loopback ones; link-local ones are left out too."""
    return [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == family and not address.address.startswith(("127.", "::1", "fe80:"))
    ]


@pytest.fixture
def outside() -> Iterator[Outside]:
    if os.geteuid() != 0:
        pytest.skip("a network namespace needs root")
    name = f"out{uuid.uuid4().hex[:8]}"
    number = os.getpid() % 250
    there = Outside(7000, f"198.18.{number}.2", "", f"169.254.{number}.254", "")
    if has_ipv6():
        there = replace(there, address_v6=f"fd99:{number:x}::2", metadata_v6="fd00:ec2::254")

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)

    try:
        ip("netns", "add", name)
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("addr", "add", f"198.18.{number}.1/24", "dev", name)
        if there.address_v6:
            ip("addr", "add", f"fd99:{number:x}::1/64", "dev", name, "nodad")
        ip("link", "set", name, "up")
        for address in (f"{there.address}/24", f"{there.metadata}/32"):
            ip("-n", name, "addr", "add", address, "dev", "eth0")
        for address in (f"{there.address_v6}/64", f"{there.metadata_v6}/128") if there.address_v6 else ():
            ip("-n", name, "addr", "add", address, "dev", "eth0", "nodad")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "route", "add", "default", "via", f"198.18.{number}.1")
        ip("route", "add", there.metadata, "via", there.address)
        if there.address_v6:
            ip("-n", name, "-6", "route", "add", "default", "via", f"fd99:{number:x}::1")
            ip("-6", "route", "add", there.metadata_v6, "via", there.address_v6, "metric", str(100 + number))
        with subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, "-c", SERVER], stdout=subprocess.PIPE
        ) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == b"1\n"
            yield there
            running.kill()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)
        subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)
