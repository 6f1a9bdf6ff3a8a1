#!/usr/bin/env python3
"""What connections cost in memory, beside nginx on the same agent, and that large bodies pass in bounded memory.

    python tests/bench/bench_streams.py [--streams 2000] [--idle 4000] [--transfers 20] [--mib 100] [--compiled FOLDER]

Needs nginx (apt-get install nginx-light). KB per connection are the growth of the proxy's resident memory (all its processes,
each counted whole) while so many idle connections, or event streams with an event a second, are open.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import contextlib  # noqa: E402
import resource  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
import psutil  # noqa: E402
from gevent.pool import Group  # noqa: E402
from gevent.server import StreamServer  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.bench_proxy import Process, free_port, wait_for  # noqa: E402

PIECE = b"x" * 65536
NGINX = """worker_processes 1; daemon off; pid {dir}/pid; error_log {dir}/error; user root;
events {{ worker_connections 30000; }}
http {{ access_log off; client_max_body_size 0; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;
 fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
 server {{ listen 127.0.0.1:{proxy} backlog=4096; location /agent/bench/ {{ proxy_http_version 1.1; proxy_set_header Connection "";
  proxy_buffering off; proxy_request_buffering off; proxy_pass http://127.0.0.1:{agent}/; }} }} }}
"""


def serve_agent(port: int) -> None:
    """`/sse`: an event a second; `/down?N`: N bytes; anything with a body: it is read, and its length told."""

    def serve(connection: socket.socket, _address: object) -> None:
        with contextlib.suppress(OSError):  # the client has had enough
            answer(connection)

    def answer(connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = connection.recv(65536)
            if not data:
                return
            head += data
        head, _, body = head.partition(b"\r\n\r\n")
        path = head.split(b" ")[1]
        if path.startswith(b"/sse"):
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            while True:
                connection.sendall(b"f\r\ndata: tick 00\n\n\r\n")
                gevent.sleep(1)
        if path.startswith(b"/down?"):
            left = int(path[6:])
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % left)
            while left > 0:
                connection.sendall(PIECE[:left])
                left -= len(PIECE)
            return
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        got = len(body)
        while got < length:
            got += len(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%d" % (len(str(got)), got))

    StreamServer(("127.0.0.1", port), serve, backlog=4096).serve_forever()


def memory_kb(process: Process) -> float:
    found = psutil.Process(process.child.pid)
    return sum(each.memory_info().rss for each in [found, *found.children(recursive=True)]) / 1024


def open_all(port: int, count: int, request: bytes) -> list[socket.socket]:
    """So many connections; with a request, each has had the first bytes of its answer."""
    opened = []

    def connect() -> None:
        connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        opened.append(connection)
        if request:
            connection.sendall(request)
            if not connection.recv(4096).startswith(b"HTTP/1.1 200"):
                sys.exit("an event stream was refused")

    for at in range(0, count, 100):
        gevent.joinall([gevent.spawn(connect) for _ in range(min(100, count - at))], raise_error=True)
    return opened


def per_connection(process: Process, count: int, request: bytes) -> float:
    before = memory_kb(process)
    opened = open_all(process.port, count, request)
    gevent.sleep(2)
    grown = memory_kb(process) - before
    if request:  # all of them are alive: each has a further event
        for connection in opened:
            connection.settimeout(10)
            if not connection.recv(65536):
                sys.exit("an event stream was lost")
    for connection in opened:
        connection.close()
    gevent.sleep(1)
    return grown / count


def transfer(process: Process, count: int, size: int, *, up: bool) -> tuple[float, float]:
    """Return the most that memory grew, in MiB, and how many MiB a second passed in all."""
    group, before, peak = Group(), memory_kb(process), 0.0

    def one() -> None:
        with socket.create_connection(("127.0.0.1", process.port), timeout=120) as connection:
            if up:
                head = b"POST /agent/bench/up HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
                connection.sendall(head % size)
                for _ in range(size // len(PIECE)):
                    connection.sendall(PIECE)
                if not connection.recv(65536).startswith(b"HTTP/1.1 200"):
                    sys.exit("an upload failed")
                return
            connection.sendall(
                b"GET /agent/bench/down?%d HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % size
            )
            got = 0
            while data := connection.recv(65536):
                got += len(data)
            if got < size:
                sys.exit("a download broke off")

    began = time.monotonic()
    for _ in range(count):
        group.spawn(one)
    while len(group):
        peak = max(peak, memory_kb(process) - before)
        gevent.sleep(0.05)
    return peak / 1024, count * size / 2**20 / (time.monotonic() - began)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--streams", type=int, default=2000)
    arguments.add_argument("--idle", type=int, default=4000)
    arguments.add_argument("--transfers", type=int, default=20)
    arguments.add_argument("--mib", type=int, default=100)
    arguments.add_argument("--compiled", metavar="FOLDER")
    args = arguments.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with tempfile.TemporaryDirectory(prefix="agd-bench-") as name:
        run(args, Path(name))


def run(args: argparse.Namespace, folder: Path) -> None:
    agent_port, nginx_port, port = free_port(), free_port(), free_port()
    (folder / "nginx.conf").write_text(NGINX.format(dir=folder, agent=agent_port, proxy=nginx_port))
    bench = str(Path(__file__).with_name("bench_proxy.py"))
    code = {"AGENTAINER_BENCH_CODE": args.compiled} if args.compiled else {}
    agent = Process("agent", agent_port, [sys.executable, __file__, "--agent", str(agent_port)])
    peers = [
        Process("nginx", nginx_port, ["nginx", "-c", str(folder / "nginx.conf")]),
        Process(
            "agentainerd", port, [sys.executable, bench, "--serve", str(port), str(agent_port), "", str(folder)], **code
        ),
    ]
    sse = b"GET /agent/bench/sse HTTP/1.1\r\nHost: localhost\r\n\r\n"
    try:
        for process in (agent, *peers):
            wait_for(process.port)
        print(
            f"{'proxy':12} {'KB/idle':>8} {'KB/stream':>10}   up: {'MiB grown':>9} {'MiB/s':>6}   down: {'MiB grown':>9} {'MiB/s':>6}"
        )
        for peer in peers:
            per_connection(peer, 500, b"")  # what is allocated once is not counted
            idle, stream = per_connection(peer, args.idle, b""), per_connection(peer, args.streams, sse)
            up = transfer(peer, args.transfers, args.mib * 2**20, up=True)
            down = transfer(peer, args.transfers, args.mib * 2**20, up=False)
            print(
                f"{peer.name:12} {idle:8.1f} {stream:10.1f}   up: {up[0]:9.1f} {up[1]:6.0f}   down: {down[0]:9.1f} {down[1]:6.0f}"
            )
    finally:
        for process in (*peers, agent):
            process.child.terminate()
            process.child.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--agent"]:
        serve_agent(int(sys.argv[2]))
    else:
        main()
