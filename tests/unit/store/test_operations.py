import pytest

from agentainerd.model.requests import Reason
from agentainerd.store import operations
from tests.fakes.stores import Store


def words(op):
    """The arguments of an operation."""
    found = []
    while op:
        head, _, rest = op.partition(b"\r\n")
        found.append(rest[: int(head[1:])])
        op = rest[int(head[1:]) + 2 :]
    return found


def record(**options):
    made = Store.record(None, **options)
    made.seq = 5
    return made


def test_letter_is_where_it_is_looked_for():
    for op in (operations.begin(record()), operations.revoke("id"), operations.NOTHING):
        assert chr(op[operations.LETTER]) == words(op)[0].decode()


@pytest.mark.parametrize(
    ("attempt", "reason", "is_duplicate", "expected"),
    [
        (1, Reason.QUEUED, False, b"0"),
        (1, Reason.RETRY_WAIT, False, b"1"),
        (1, Reason.QUEUED, True, b"1"),
        (3, Reason.QUEUED, False, b"2"),
    ],
    ids=["never sent", "sent", "maybe sent", "sent before"],
)
def test_accept_counts_the_attempts_that_were_made(attempt, reason, is_duplicate, expected):
    one = record(attempt=attempt, maybe_duplicate=is_duplicate)

    assert words(operations.accept(one, reason, 0.0))[6] == expected


@pytest.mark.parametrize(("attempts", "expected"), [(0, b"queued"), (2, b"retry_wait")])
def test_retry_of_what_was_never_sent_is_queued(attempts, expected):
    assert words(operations.retry(record(), 1, attempts=attempts, due_at=0.0, error=""))[6] == expected


def test_times_are_decimal_and_none_is_zero():
    made = words(operations.claim("agent", limit=1, now=1_800_000_000.25, until=0.0, ordered=False))

    assert made == [b"C", b"agent", b"1", b"1800000000.250000", b"0", b"0"]


def test_size_counts_head_and_body_wherever_it_is():
    one = record(body_bytes=100_000)
    assert words(operations.accept(one, Reason.QUEUED, 0.0))[4] == b"%d" % (len(one.head) + 100_000)
    one.body_bytes = -1
    assert words(operations.accept(one, Reason.QUEUED, 0.0))[4] == b"%d" % len(one.head)


def test_bytes_stay_as_they_are():
    assert words(operations.begin(record(body=b"\r\n$3\r\n\0\xff")))[3].endswith(b"\r\n$3\r\n\0\xff")
