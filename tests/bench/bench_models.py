#!/usr/bin/env python3
"""What the gateway to models adds to each event of a stream, beside a direct call to the same provider.

    python tests/bench/bench_models.py [--streams 20] [--events 400] [--pace 0.02] [--compiled FOLDER]

The provider sends an event with the time in it every `pace` seconds on each stream; the client, a process of its own as the others are,
says how long each was on its way: median and 99th percentile, in microseconds. Then as many streams come as fast as they can:
CPU of the gateway's process for each event.

    direct   the client at the provider
    passed   through the gateway, with the usage asked for: pieces as they come
    hidden   through the gateway, without: whole events, and the one with the usage taken out

With --compiled, the folder of an installed wheel whose hot path is compiled, the gateway is measured with that too.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
import psutil  # noqa: E402
from gevent import socket  # noqa: E402
from gevent.pool import Group  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
if "AGENTAINER_BENCH_CODE" in os.environ:
    sys.path.insert(0, os.environ["AGENTAINER_BENCH_CODE"])

from agentainerd.proxy.journal import NullJournal  # noqa: E402
from agentainerd.proxy.model_gate import ModelCall, ModelWay  # noqa: E402
from agentainerd.proxy.providers import ProviderTarget  # noqa: E402
from agentainerd.proxy.routing import RouteTable  # noqa: E402
from agentainerd.proxy.server import DataPlane, ProxyOptions  # noqa: E402

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = (
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[{"index":0,'
    '"delta":{"content":" word"},"finish_reason":null}],"usage":null,"at":%020d}\n\n'
)
SENT_AT = re.compile(rb'"at":([0-9]{20})')
LAST = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":9}}\n\ndata: [DONE]\n\n'


def provide(port: int) -> None:
    """Answer each request with as many events as its body says, at its pace."""
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        gevent.spawn(answer, connection)


def answer(connection: socket.socket) -> None:
    data = b""
    while piece := connection.recv(65536):
        data += piece
        head, end, body = data.partition(b"\r\n\r\n")
        if not end or not body.endswith(b"}"):
            continue
        data = b""
        asked = json.loads(body)
        connection.sendall(HEAD)
        start = time.monotonic()
        for number in range(asked["events"]):
            if asked["pace"]:
                gevent.sleep(max(start + number * asked["pace"] - time.monotonic(), 0))
            event = (EVENT % time.monotonic_ns()).encode()
            connection.sendall(b"%x\r\n%b\r\n" % (len(event), event))
        connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(LAST), LAST))


def pass_on(port: int, provider: int) -> None:
    """The data plane alone, with a gate that lets everything pass."""
    routes = RouteTable()
    routes.complete = True
    target = ProviderTarget("127.0.0.1", provider, None)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    routes.models.on_ask = lambda ask: ModelCall(
        [ModelWay("p/m", target, head, ask.body, hides_usage=b'"hides":true' in ask.body)]
    )
    plane = DataPlane(routes, NullJournal(), ProxyOptions(), gateway_socket="/nonexistent", ticket=lambda ident: "")
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    listener.setblocking(False)
    plane.serve(listener)
    gevent.get_hub().join()


def stream(port: int, path: str, asked: dict[str, object], delays: list[float]) -> None:
    body = json.dumps(asked, separators=(",", ":")).encode()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)
        )
        rest = b""
        while not rest.endswith(b"\r\n0\r\n\r\n"):
            rest += connection.recv(65536)
            now, end = time.monotonic_ns(), 0
            for found in SENT_AT.finditer(rest):
                delays.append((now - int(found[1])) / 1000)
                end = found.end()
            rest = rest[end:]


def run(port: int, path: str, args: argparse.Namespace, *, pace: float, hides: bool) -> list[float]:
    delays: list[float] = []
    group = Group()
    for number in range(args.streams):
        gevent.sleep(pace / args.streams if number else 0)
        group.spawn(stream, port, path, {"events": args.events, "pace": pace, "hides": hides}, delays)
    group.join(raise_error=True)
    return delays


def cpu_s(process: psutil.Process) -> float:
    """CPU time of its only busy thread, finer than what is counted in ticks."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9


def report(
    name: str, port: int, path: str, args: argparse.Namespace, *, hides: bool, process: psutil.Process | None
) -> None:
    begun = cpu_s(process) if process else 0.0
    delays = sorted(run(port, path, args, pace=args.pace, hides=hides))
    paced = (cpu_s(process) - begun if process else 0.0) / len(delays) * 1e6
    text = f"{name:<18} median {statistics.median(delays):6.0f} us   p99 {delays[int(len(delays) * 0.99)]:6.0f} us"
    if process is not None:
        before = cpu_s(process)
        whole = argparse.Namespace(**{**vars(args), "events": args.events * 10})
        run(port, path, whole, pace=0, hides=hides)
        cost = (cpu_s(process) - before) / (whole.streams * whole.events) * 1e6
        text += f"   CPU of an event {paced:5.1f} us, at full speed {cost:4.1f} us"
    print(text, f"  ({len(delays)} events)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--events", type=int, default=400)
    parser.add_argument("--pace", type=float, default=0.02)
    parser.add_argument("--compiled")
    parser.add_argument("--serve", nargs="+", type=int)
    args = parser.parse_args()
    if args.serve:
        (provide if len(args.serve) == 1 else pass_on)(*args.serve)
        return
    ports = []
    for _ in range(3):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            ports.append(probe.getsockname()[1])
    started = [begin(ports[0]), begin(ports[1], ports[0])]
    if args.compiled:
        started.append(begin(ports[2], ports[0], code=args.compiled))
    try:
        gevent.sleep(2)
        report("direct", ports[0], "/v1/chat/completions", args, hides=False, process=None)
        for kind, port, process in zip(("", " (compiled)"), ports[1:], started[1:], strict=False):
            for name, hides in (("passed", False), ("hidden", True)):
                measured = psutil.Process(process.pid)
                report(name + kind, port, "/llm/v1/chat/completions", args, hides=hides, process=measured)
    finally:
        for process in started:
            process.terminate()


def begin(*ports: int, code: str = "") -> subprocess.Popen[bytes]:
    environment = {**os.environ, **({"AGENTAINER_BENCH_CODE": code} if code else {})}
    return subprocess.Popen([sys.executable, __file__, "--serve", *map(str, ports)], env=environment)


if __name__ == "__main__":
    main()
