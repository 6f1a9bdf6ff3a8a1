"""The audit log's entries and the chain that they form. Pure: bytes in, entries and faults out.

A line is one JSON object. Its last field is a seal, an HMAC over all that stands before it, and its `prev` is the seal of the
entry before: a line that was changed has a wrong seal, and one that was removed, put in or moved leaves one that does not
follow. What is cut off at the end shows because the last link is known elsewhere (`Link`, store/audit.py).
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

SEAL_CHARS = 32
"""128 bits of HMAC-SHA256: half of it, as RFC 2104 (5) allows at least."""
MAX_FAULTS = 100
NOTE_TORN = "note_torn_line"
NOTE_MISSING = "note_missing_entries"
NOTE_MOVED = "note_moved_file"
NOTE_LOST = "note_lost_entries"
NOTE_OLDER = "note_older_log"
NOTE_REMOVED = "note_removed_file"
NOTE_KEY = "note_new_key"
EXPIRE = "expire_entries"
_SEAL_FIELD = b',"mac":"'
_SEAL_AT = len(_SEAL_FIELD) + SEAL_CHARS + len(b'"}')


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry; a line has all of its fields, in this order.

    Attributes:
        seq: 1, 2, 3...; 0 for one that is not in the log yet.
        time: RFC 3339, UTC, milliseconds: as texts they sort as times.
        actor: who: "unix:0(root)/pid 12", "token:<name>", "anonymous", "daemon".
        address: from where: a client's address, "unix" or "internal".
        action: what, such as "start_agent". resource: on what.
        result: "ok", "refused", or an error's code.
        request_id: of the request that asked for it; "" where none did.
        prev: the seal of the entry before; "" in the first one. mac: its own.
    """

    seq: int = 0
    time: str
    actor: str
    address: str = ""
    action: str
    resource: str = ""
    result: str = "ok"
    request_id: str = ""
    prev: str = ""
    mac: str = ""


class Link(NamedTuple):
    """An entry's place in the chain; (0, "") is before the first one."""

    seq: int
    mac: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Where the chain is broken, and how: `line` counts from 1, `seq` is 0 where that can't be read."""

    file: str
    line: int
    seq: int
    reason: str


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries are asked for; "" and () are all. Texts are compared without regard to case.

    `user` is a part of the actor, `resource` of the resource; `actions` are whole, or end in `*`; `result` is whole,
    "failed" is each but "ok". `since` and `until` are times as entries have them.
    """

    user: str = ""
    actions: tuple[str, ...] = ()
    resource: str = ""
    result: str = ""
    since: str = ""
    until: str = ""

    def matches(self, entry: AuditEntry) -> bool:
        """Return whether this entry is asked for."""
        return (
            self.since <= entry.time
            and (not self.until or entry.time < self.until)
            and self.user.lower() in entry.actor.lower()
            and self.resource.lower() in entry.resource.lower()
            and self._has_result(entry.result)
            and (not self.actions or any(_is_like(entry.action, action) for action in self.actions))
        )

    def _has_result(self, result: str) -> bool:
        wanted = self.result.lower()
        return not wanted or (result != "ok" if wanted == "failed" else result.lower() == wanted)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AuditEntry)


def moment(at: float) -> str:
    """Return epoch seconds as entries have them."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seal(entry: AuditEntry, before: Link, key: bytes) -> tuple[AuditEntry, bytes]:
    """Return an entry as the one that follows `before`, and its line with the line feed."""
    entry = msgspec.structs.replace(entry, seq=before.seq + 1, prev=before.mac, mac="")
    signed = _encoder.encode(entry)[: -len(_SEAL_FIELD) - 2]
    mac = mac_of(signed, key)
    return msgspec.structs.replace(entry, mac=mac), signed + _SEAL_FIELD + mac.encode() + b'"}\n'


def mac_of(signed: bytes, key: bytes) -> str:
    """Return the seal of what stands before it."""
    return hmac.new(key, signed, hashlib.sha256).hexdigest()[:SEAL_CHARS]


def parse(line: bytes) -> AuditEntry | None:
    """Return the entry of a line without its line feed, whoever sealed it; None where it is no entry."""
    try:
        entry = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return entry if entry.seq > 0 else None


def is_sealed(line: bytes, entry: AuditEntry, key: bytes) -> bool:
    """Return whether the line of an entry is as it was sealed with this key."""
    signed, end = line[:-_SEAL_AT], line[-_SEAL_AT:]
    return end.startswith(_SEAL_FIELD) and hmac.compare_digest(mac_of(signed, key), entry.mac)


@dataclass(slots=True)
class ChainCheck:
    """Takes every line in order, and knows at the end where the chain is broken.

    `entries` that were read, `torn` lines that a crash left and the daemon noted, `fault_count` of which the first MAX_FAULTS
    are in `faults`, `first` and `head`: the outermost entries.
    """

    key: bytes
    entries: int = 0
    torn: int = 0
    fault_count: int = 0
    faults: list[Fault] = field(default_factory=list)
    first: int = 0
    head: Link = Link(0, "")
    _opened: tuple[str, int] = ("", 0)
    _expired: int = 0
    _unread: list[Fault] = field(default_factory=list)
    _trusts_head: bool = True

    def take(self, file: str, number: int, line: bytes) -> None:
        """Look at the next line, which has lost its line feed."""
        entry = parse(line)
        if entry is None:
            self._unread.append(Fault(file, number, 0, "this line is no entry"))
            if len(self._unread) > MAX_FAULTS:
                self._settle_unread(is_noted=False)
            return
        self.entries += 1
        trusted = is_sealed(line, entry, self.key)
        if not trusted:
            self._settle_unread(is_noted=False)
            self._find(Fault(file, number, entry.seq, "this entry was changed: its seal is wrong"))
        else:
            self._follow(file, number, entry)
        if not self._opened[1]:
            self._opened, self.first = (file, number), entry.seq
        self._trusts_head = trusted
        self.head = Link(entry.seq, entry.mac)

    def finish(self, end: Link, file: str, lines: int) -> None:
        """No more lines: `end` is the last link that the daemon wrote, `file` and `lines` where the last line stands."""
        self._settle_unread(is_noted=False)
        if self.entries and self.first > self._expired + 1:
            gap = _span(self._expired + 1, self.first - 1)
            self._find(Fault(*self._opened, self.first, f"{gap} missing before this one"))
        if self.head.seq < end.seq:
            gap = _span(self.head.seq + 1, end.seq)
            self._find(Fault(file, lines, self.head.seq, f"{gap} missing after this line, the last one"))
        elif self.head.seq == end.seq and self.head.mac != end.mac and self._trusts_head:
            self._find(Fault(file, lines, self.head.seq, "this is not the entry that was written last"))

    def _follow(self, file: str, number: int, entry: AuditEntry) -> None:
        """Compare an entry that is sealed with the one before it."""
        expected = self.head.seq + 1
        unread = len(self._unread)
        self._settle_unread(is_noted=entry.action == NOTE_TORN and entry.prev == self.head.mac)
        if entry.action == EXPIRE and entry.resource.isdecimal():
            self._expired = max(self._expired, int(entry.resource))
        if not self._opened[1] and entry.seq > 1:
            return  # older ones may have expired: `finish` knows
        if entry.seq == expected:
            if entry.prev != self.head.mac and self._trusts_head:
                self._find(
                    Fault(file, number, entry.seq, "this entry does not follow the one before it, which was replaced")
                )
        elif entry.seq < expected:
            self._find(
                Fault(file, number, entry.seq, f"this entry is out of place: it stands after entry {self.head.seq}")
            )
        elif entry.seq - expected > unread:
            gap = _span(expected, entry.seq - 1)
            self._find(Fault(file, number, entry.seq, f"{gap} missing before this one"))

    def _find(self, fault: Fault) -> None:
        self.fault_count += 1
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(fault)

    def _settle_unread(self, *, is_noted: bool) -> None:
        if is_noted:
            self.torn += len(self._unread)
        else:
            for fault in self._unread:
                self._find(fault)
        self._unread = []


def _span(first: int, last: int) -> str:
    return f"entry {first} is" if first == last else f"entries {first} to {last} are"


def _is_like(action: str, wanted: str) -> bool:
    return action.startswith(wanted[:-1]) if wanted.endswith("*") else action == wanted
