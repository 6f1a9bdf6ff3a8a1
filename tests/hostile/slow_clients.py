"""Thousands of clients that are as slow as they may be: `python -m tests.hostile.slow_clients PORT COUNT`.

A fourth each: a head byte by byte, a body byte by byte, a large answer that is not read, a connection that says nothing.
Whoever is closed comes back. Prints `ready` once all are connected, and at the end of its input how many are, how often one
came back, and how many were told 408.
"""

import select
import socket
import sys
import time

PERIOD_S = 2.0  # each connection sends a byte as often
SOURCES = 20  # loopback addresses, so that the ports suffice
HEAD = b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\nX-Slow: "
BODY = b"POST /agent/web/ HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
BIG = b"GET /agent/web/big HTTP/1.1\r\nHost: a\r\n\r\n"
STARTS = [HEAD, BODY, BIG, b""]
DRIPS = [b"x", b"y", b"", b""]


class SlowClient:
    """One of them; `kind` is an index of STARTS."""

    def __init__(self, port: int, number: int):
        self._port, self._number = port, number
        self.kind = number % len(STARTS)
        self.returned = self.refused = 0
        self.connect()

    def connect(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.bind((f"127.0.0.{2 + self._number % SOURCES}", 0))
        self._socket.connect(("127.0.0.1", self._port))
        self._socket.setblocking(False)
        self._socket.send(STARTS[self.kind])

    def drip(self) -> None:
        try:
            if self.kind != STARTS.index(BIG) and self._is_over():
                raise ConnectionResetError
            self._socket.send(DRIPS[self.kind])
        except BlockingIOError:
            pass
        except OSError:
            self._socket.close()
            self.returned += 1
            self.connect()

    def _is_over(self) -> bool:
        try:
            said = self._socket.recv(4096)
        except BlockingIOError:
            return False
        self.refused += b" 408 " in said[:16]
        return True


def main() -> None:
    port, count = int(sys.argv[1]), int(sys.argv[2])
    clients = [SlowClient(port, number) for number in range(count)]
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        began = time.monotonic()
        for at in range(0, count, 20):
            for client in clients[at : at + 20]:
                client.drip()
            time.sleep(max(0.0, began + PERIOD_S * (at + 20) / count - time.monotonic()))
            if select.select([sys.stdin], [], [], 0)[0]:
                break
    print(len(clients), sum(each.returned for each in clients), sum(each.refused for each in clients), flush=True)


if __name__ == "__main__":
    main()
