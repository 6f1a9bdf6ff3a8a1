"""The chain of the audit log: every way to tamper with lines shows, with its place."""

import random

import msgspec
import pytest

from agentainerd.model import audit
from agentainerd.model.audit import MAX_FAULTS, AuditEntry, AuditFilter, ChainCheck, Link, parse, seal

KEY = b"k" * 32
START = Link(0, "")


def entry(action: str = "start_agent", **fields) -> AuditEntry:
    return AuditEntry(time="2026-11-20T10:00:00.000Z", actor="token:ci", action=action, resource="web", **fields)


def expiry(last: str) -> AuditEntry:
    return msgspec.structs.replace(entry(audit.EXPIRE), resource=last)


def chain(*entries: AuditEntry, before: Link = START) -> tuple[list[bytes], Link]:
    lines = []
    for each in entries:
        sealed, line = seal(each, before, KEY)
        before = Link(sealed.seq, sealed.mac)
        lines.append(line[:-1])
    return lines, before


def check(lines: list[bytes], end: Link, key: bytes = KEY) -> ChainCheck:
    found = ChainCheck(key)
    for number, line in enumerate(lines, 1):
        found.take("audit.log", number, line)
    found.finish(end, "audit.log", len(lines))
    return found


def places(found: ChainCheck) -> list[tuple[int, int]]:
    return [(fault.line, fault.seq) for fault in found.faults]


@pytest.fixture
def whole() -> tuple[list[bytes], Link]:
    return chain(*(entry(f"action_{number}") for number in range(1, 11)))


def test_a_chain_that_nobody_touched_is_whole(whole):
    found = check(*whole)

    assert (found.entries, found.first, found.head, found.fault_count) == (10, 1, whole[1], 0)


def test_a_log_without_entries_is_whole():
    assert check([], Link(0, "")).fault_count == 0


def test_an_entry_survives_its_line():
    sealed, line = seal(entry(result="CONFLICT", request_id="r-1", address="192.0.2.1"), Link(7, "ab"), KEY)

    assert parse(line.rstrip(b"\n")) == sealed
    assert (sealed.seq, sealed.prev, line.count(b"\n")) == (8, "ab", 1)


def test_every_byte_of_a_line_counts(whole):
    lines, end = whole
    line = lines[4]
    for place in range(len(line)):
        changed = line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]
        found = check([*lines[:4], changed, *lines[5:]], end)

        assert 5 in [fault.line for fault in found.faults], changed


def test_an_entry_that_was_changed_is_one_fault(whole):
    lines, end = whole
    lines[4] = lines[4].replace(b"token:ci", b"token:me")

    found = check(lines, end)

    assert places(found) == [(5, 5)]
    assert "was changed" in found.faults[0].reason


def test_one_that_is_sealed_with_another_key_is_a_fault_too(whole):
    lines, end = whole
    fourth = parse(lines[3])
    forged, line = seal(entry("forged"), Link(fourth.seq, fourth.mac), b"x" * 32)
    lines[4] = line[:-1]

    assert places(check(lines, end)) == [(5, 5)]


@pytest.mark.parametrize(("gone", "said"), [(slice(4, 5), "entry 5 is"), (slice(2, 6), "entries 3 to 6 are")])
def test_entries_that_were_removed_are_missed_where_they_stood(whole, gone, said):
    lines, end = whole
    del lines[gone]

    found = check(lines, end)

    assert [fault.line for fault in found.faults] == [gone.start + 1]
    assert found.faults[0].reason == f"{said} missing before this one"


def test_an_entry_that_was_put_in_a_second_time_is_out_of_place(whole):
    lines, end = whole
    lines.insert(7, lines[2])

    assert (8, 3) in places(check(lines, end))


def test_two_entries_that_changed_places_are_found(whole):
    lines, end = whole
    lines[3], lines[4] = lines[4], lines[3]

    assert places(check(lines, end))[0] == (4, 5)


def test_an_end_that_was_cut_off_is_missed(whole):
    lines, end = whole

    found = check(lines[:7], end)

    assert [(fault.line, fault.reason) for fault in found.faults] == [
        (7, "entries 8 to 10 are missing after this line, the last one")
    ]


def test_a_log_that_is_gone_is_missed():
    assert check([], Link(10, "ab")).faults[0].reason.startswith("entries 1 to 10 are missing")


def test_an_end_that_was_replaced_by_one_of_a_copy_is_found(whole):
    """Somebody put an older copy back and the daemon's key sealed other entries onto it."""
    lines, end = whole
    ninth = parse(lines[8])
    other, _ = chain(entry("another"), before=Link(ninth.seq, ninth.mac))

    found = check([*lines[:9], *other], end)

    assert places(found) == [(10, 10)]
    assert "written last" in found.faults[0].reason


def test_a_fork_in_the_middle_is_found(whole):
    lines, _ = whole
    other, end = chain(*(entry("other") for _ in range(3)), before=Link(5, "0" * 32))

    assert places(check([*lines[:5], *other], end)) == [(6, 6)]


def test_a_torn_line_is_fine_where_the_next_entry_notes_it():
    first, link = chain(entry())
    rest, end = chain(entry(audit.NOTE_TORN), entry(), before=link)

    noted = check([*first, b'{"seq":2,"time":"2026', *rest], end)

    assert (noted.fault_count, noted.torn, noted.entries) == (0, 1, 3)


def test_a_line_that_is_no_entry_is_a_fault_where_nothing_notes_it(whole):
    lines, end = whole
    lines.insert(3, b"what is this")
    lines[6] = b"{}"

    found = check(lines, end)

    assert [(fault.line, fault.reason) for fault in found.faults] == [
        (4, "this line is no entry"),
        (7, "this line is no entry"),
    ]


def test_a_note_of_a_torn_line_from_elsewhere_excuses_nothing(whole):
    lines, end = whole
    stray, _ = chain(entry(audit.NOTE_TORN), before=Link(6, "0" * 32))

    assert check([*lines[:6], b"x", *stray], end).fault_count >= 1


def test_what_expired_is_not_missed_and_what_is_removed_beyond_is():
    lines, end = chain(*(entry() for _ in range(8)), expiry("4"), entry())

    assert check(lines[4:], end).fault_count == 0
    assert check(lines[2:], end).fault_count == 0  # it was not finished: the next retention does it
    found = check(lines[5:], end)
    assert [fault.reason for fault in found.faults] == ["entry 5 is missing before this one"]


def test_an_expiry_that_nobody_sealed_excuses_nothing():
    lines, end = chain(*(entry() for _ in range(8)), expiry("2"), entry())
    lines[8] = lines[8].replace(b'"resource":"2"', b'"resource":"5"')

    reasons = [fault.reason for fault in check(lines[5:], end).faults]

    assert "entries 1 to 5 are missing before this one" in reasons


def test_a_log_whose_key_is_another_is_broken_in_every_place_and_says_so_briefly():
    lines, end = chain(*(entry() for _ in range(MAX_FAULTS + 50)))

    found = check(lines, end, b"x" * 32)

    assert (found.fault_count, len(found.faults)) == (MAX_FAULTS + 50, MAX_FAULTS)


def test_random_tampering_never_passes_unseen():
    source = random.Random(7)
    for _ in range(300):
        lines, end = chain(*(entry(f"a{number}") for number in range(12)))
        before = list(lines)
        for _ in range(source.randint(1, 3)):
            place = source.randrange(len(lines)) if lines else 0
            kind = source.choice(("cut", "drop", "copy", "swap", "bit"))
            if kind == "cut":
                del lines[place:]
            elif kind == "drop" and lines:
                del lines[place]
            elif kind == "copy" and lines:
                lines.insert(source.randrange(len(lines)), lines[place])
            elif kind == "swap" and len(lines) > 1:
                other = source.randrange(len(lines))
                lines[place], lines[other] = lines[other], lines[place]
            elif lines:
                at = source.randrange(len(lines[place]))
                lines[place] = lines[place][:at] + bytes([lines[place][at] ^ 4]) + lines[place][at + 1 :]
        assert bool(check(lines, end).fault_count) == (lines != before), lines


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (AuditFilter(), True),
        (AuditFilter(user="CI"), True),
        (AuditFilter(user="root"), False),
        (AuditFilter(actions=("stop_agent", "start_agent")), True),
        (AuditFilter(actions=("start",)), False),
        (AuditFilter(actions=("start_*",)), True),
        (AuditFilter(resource="we"), True),
        (AuditFilter(resource="api"), False),
        (AuditFilter(result="ok"), False),
        (AuditFilter(result="conflict"), True),
        (AuditFilter(result="failed"), True),
        (AuditFilter(since="2026-11-20T10:00:00.000Z"), True),
        (AuditFilter(since="2026-11-20T10:00:00.001Z"), False),
        (AuditFilter(until="2026-11-20T10:00:00.000Z"), False),
    ],
)
def test_a_filter_takes_what_is_asked_for(wanted, matches):
    assert wanted.matches(entry(result="CONFLICT")) is matches


def test_failed_is_not_ok():
    assert not AuditFilter(result="failed").matches(entry())


@pytest.mark.parametrize(
    "line", [b"", b"null", b"[]", b"{", b'{"seq":1}', b'{"time":"x","actor":"y","action":"z"}', b"\xff"]
)
def test_what_is_no_entry_is_none(line):
    assert parse(line) is None


def test_times_sort_as_texts():
    assert audit.moment(1763632800.0) == "2025-11-20T10:00:00.000Z"
    assert audit.moment(1.5) < audit.moment(1.501) < audit.moment(2)


def test_an_entry_of_a_later_version_is_not_taken_for_one_of_ours():
    assert parse(msgspec.json.encode({**msgspec.structs.asdict(entry()), "seq": 1, "new": 1})) is None
