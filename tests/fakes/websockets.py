"""A client of the runtime's WebSocket, by another implementation's hands."""

import json
import socket
from collections.abc import Iterator
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Event, Request, TextMessage


class WebSocketClient:
    """Connected when it is made. `pushed`: what came that answers nothing."""

    def __init__(self, port: int, target: str = "/") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=15)
        self._ws = WSConnection(ConnectionType.CLIENT)
        self._socket.sendall(self._ws.send(Request(host="127.0.0.1", target=target)))
        self._events = self._read()
        self.pushed: list[dict[str, Any]] = []
        assert isinstance(next(self._events), AcceptConnection)

    def _read(self) -> Iterator[Event]:
        while True:
            self._ws.receive_data(self._socket.recv(65536) or None)
            yield from self._ws.events()

    def ask(self, **message: Any) -> dict[str, Any]:
        """Send a request; return its answer."""
        self.send(json.dumps(message))
        while (came := self.receive()).get("type") == "fileChanged":
            self.pushed.append(came)
        return came

    def next_change(self) -> dict[str, Any]:
        """Return the payload of the first change that was not asked for yet, waiting for it."""
        return (self.pushed.pop(0) if self.pushed else self.receive())["payload"]

    def send(self, text: str) -> None:
        self._socket.sendall(self._ws.send(TextMessage(data=text)))

    def receive(self) -> dict[str, Any]:
        text = ""
        for event in self._events:
            if isinstance(event, TextMessage):
                text += event.data
                if event.message_finished:
                    break
        return json.loads(text)

    def close(self) -> None:
        self._socket.close()
