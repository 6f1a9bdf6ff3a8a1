"""One request as the data plane has it, and why one can't be taken."""

import msgspec


class Fault(Exception):
    """Why a message can't be taken: the status to answer with, and a sentence."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Request(msgspec.Struct, gc=False, eq=False):
    """One request as it arrives. The head is whole and checked once `head_done`; the body once `done`.

    `lines` are the end-to-end fields for the agent, each whole with its CRLF. `length` is Content-Length, -1 where there
    is none. `pieces` holds the body that was read and not yet taken. `headers`: as a parser read them.
    """

    method: bytes = b""
    target: bytes = b""
    minor: int = 1
    lines: list[bytes] = []
    pieces: list[bytes] = []
    length: int = -1
    host: bytes | None = None
    origin: bytes | None = None
    authorization: bytes | None = None
    key: bytes | None = None
    prefer: bytes = b""
    upgrade: bytes = b""
    forwarded: tuple[tuple[bytes, bytes], ...] = ()
    headers: list[tuple[bytes, bytes]] = []
    own_vias: int = 0
    accepts_events: bool = False
    chunked: bool = False
    expects_continue: bool = False
    keep_alive: bool = True
    traced: bool = False
    head_done: bool = False
    done: bool = False
    fault: Fault | None = None
