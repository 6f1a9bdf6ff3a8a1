"""The containers of a FakeEngine: local listeners, a log, and what the engine says of them."""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from os import getpid
from typing import Any, Generic, TypeVar

import gevent
from gevent import socket
from gevent.event import Event
from gevent.pool import Group
from gevent.queue import Queue

from agentainerd.model.containers import Container, ContainerSpec, ContainerState, Image
from tests.fakes.programs import Connection, Program

Item = TypeVar("Item")
END = object()
_addresses = count(1)


class FakeRun:
    """One run of one container: its listeners, its connections, and the greenlets that serve them."""

    def __init__(self, box: "FakeContainer", number: int, on_exit: Callable[[int], None]) -> None:
        self.box = box
        self.number = number
        self.address = ""
        self.thawed = Event()
        self.thawed.set()
        self.used: dict[str, float] = {
            "cpu_s": 0.01,
            "memory_bytes": 10_000_000,
            "memory_limit_bytes": 10**9,
            "pids": 1,
        }
        self._on_exit = on_exit
        self._group = Group()
        self._listeners: list[socket.socket] = []
        self._connections: set[Connection] = set()

    @property
    def agent_id(self) -> str:
        return self.box.agent_id

    @property
    def env(self) -> dict[str, str]:
        return dict(self.box.spec.env)

    def say(self, text: str, *, stream: str = "stdout") -> None:
        self.box.log(stream, text)

    def exit(self, code: int) -> None:
        self._on_exit(code)

    def listen(self) -> None:
        """Accept connections on all ports of the program, at an address that nobody else has."""
        if self._listeners:
            return
        for port in self.box.program.ports:
            listener = self._bind(port)
            self._listeners.append(listener)
            self._group.spawn(self._accept, listener)

    def choose_address(self) -> None:
        number = next(_addresses)
        self.address = f"127.{1 + getpid() % 250}.{number // 250 % 250}.{1 + number % 250}"

    def end(self) -> None:
        """Reset all connections and stop listening."""
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.reset()
        self.thawed.set()
        me = gevent.getcurrent()
        self._group.kill(block=False) if me not in self._group else self._end_others(me)

    def _end_others(self, me: gevent.Greenlet) -> None:
        self._group.discard(me)
        self._group.kill(block=False)

    def _bind(self, port: int) -> socket.socket:
        for _ in range(100):
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((self.address, port))
                listener.listen(128)
            except OSError:
                listener.close()
                if self._listeners:
                    raise
                self.choose_address()
            else:
                return listener
        raise AssertionError(f"no address of 127.0.0.0/8 has port {port} free")

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                self.thawed.wait()
                sock, _ = listener.accept()
                connection = Connection(sock, self.thawed)
                self._connections.add(connection)
                self._group.spawn(self._serve, connection)

    def _serve(self, connection: Connection) -> None:
        try:
            with suppress(OSError):
                self.box.program.handler(connection, self)
        finally:
            connection.close()
            self._connections.discard(connection)


@dataclass
class FakeContainer:
    """One container with its log."""

    id: str
    spec: ContainerSpec
    image: Image
    program: Program
    state: ContainerState = ContainerState.CREATED
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    runs: int = 0
    run: FakeRun | None = None
    busy_until: float = 0.0
    lines: list[tuple[float, str, str]] = field(default_factory=list)
    followers: list[Queue] = field(default_factory=list)

    @property
    def agent_id(self) -> str:
        return self.spec.labels.get("agentainer.id", "")

    def log(self, stream: str, text: str) -> None:
        """Append a line and tell those who follow."""
        entry = (time.time(), stream, text)
        self.lines.append(entry)
        for follower in self.followers:
            follower.put(entry)

    def end_followers(self) -> None:
        followers, self.followers = self.followers, []
        for follower in followers:
            follower.put(END)

    def seen(self) -> Container:
        """Return it as the engine tells it."""
        return Container(
            id=self.id,
            agent_id=self.agent_id,
            name=self.spec.name,
            state=self.state,
            image_id=self.image.id,
            address=self.run.address if self.run else "",
            started_at=self.started_at,
            finished_at=self.finished_at,
            exit_code=self.exit_code,
            oom_killed=self.oom_killed,
            error=self.error,
            labels=dict(self.spec.labels),
        )


class FakeStream(Generic[Item]):
    """What is in `first`, then what is put into `queue`, each as `shape` makes it, until END or `close`."""

    def __init__(
        self, first: Iterable[Any], queue: Queue | None = None, *, shape: Callable[[Any], Item] = lambda item: item
    ) -> None:
        self._first = iter(first)
        self._queue = queue
        self._shape = shape
        self._closed = False

    def __iter__(self) -> "FakeStream[Item]":
        return self

    def __next__(self) -> Item:
        if self._closed:
            raise StopIteration
        item = next(self._first, END)
        if item is END and self._queue is not None:
            item = self._queue.get()
        if item is END or self._closed:
            self._closed = True
            raise StopIteration
        return self._shape(item)

    def close(self) -> None:
        self._closed = True
        if self._queue is not None:
            self._queue.put(END)
