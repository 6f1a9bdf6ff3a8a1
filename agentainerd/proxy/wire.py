"""Reading and writing sockets on the hot path: the only place that knows gevent's inside of a socket.

gevent's `recv` tries first and waits then; right after a request was sent there is nothing to read yet, so the first try
is an exception for nothing. `receive` waits first. `send` writes at once and takes the slow way only for what is left.
"""

from gevent import socket

PIECE = 65536


def receive(connection: socket.socket) -> bytes:
    """Block until there is something to read and return it; b"" at the end.

    Raises:
        OSError: the connection broke.
    """
    while True:
        connection._wait(connection._read_event)
        try:
            data: bytes = connection._sock.recv(PIECE)
        except BlockingIOError:
            continue  # somebody else's event; waited for again
        return data


def send(connection: socket.socket, data: bytes) -> None:
    """Write all of `data`, blocking while the other side does not read.

    Raises:
        OSError: the connection broke.
    """
    try:
        sent = connection._sock.send(data)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        connection.sendall(memoryview(data)[sent:])
