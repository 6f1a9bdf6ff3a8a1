"""Bodies: passed on, kept within bounds, read again."""

from agentainerd import defaults
from agentainerd.errors import Unavailable
from agentainerd.proxy.body import Body
from agentainerd.proxy.request import Request
from tests.fakes.journals import MemorySpool


def body_of(*arrivals, spool=True):
    """A body whose pieces arrive one by one; returns it and the spools that it made."""
    request, left, spools = Request(), list(arrivals), []

    def read_more():
        request.pieces.append(left.pop(0))
        request.done = not left

    def make_spool(_request_id):
        spools.append(MemorySpool("id"))
        return spools[-1]

    request.done = not left
    return Body(request, read_more, make_spool if spool else None), spools


def test_a_small_body_stays_in_memory():
    body, spools = body_of(b"ab", b"cd")

    assert list(body.pieces()) == [b"ab", b"cd"]
    assert (body.done, body.kept, body.size, body.inline) == (True, True, 4, b"abcd")
    assert b"".join(body.again()) == b"abcd"
    assert (body.seal(), spools) == ("", [])


def test_a_body_too_large_for_the_journal_gets_a_file_when_it_must_be_durable():
    piece = b"x" * defaults.MAX_INLINE_BODY_BYTES
    body, spools = body_of(piece, b"y")

    assert body.collect()
    assert (body.inline, b"".join(body.again()), spools) == (b"", piece + b"y", [])
    assert body.seal() == "id.body"
    assert (b"".join(body.again()), spools[0].data) == (piece + b"y", piece + b"y")


def test_a_larger_body_goes_to_a_file():
    piece = b"x" * defaults.MAX_MEMORY_BODY_BYTES
    body, spools = body_of(piece, b"y")

    assert body.collect()
    assert spools[0].data == piece + b"y"
    assert (body.inline, b"".join(body.again()), body.seal()) == (b"", piece + b"y", "id.body")
    body.discard()
    assert spools[0].discarded


def test_a_body_over_the_limit_passes_but_is_not_kept():
    piece = b"x" * (defaults.MAX_REPLAY_BODY_BYTES // 2 + 1)
    body, spools = body_of(piece, piece, b"z")

    assert [len(each) for each in body.pieces()] == [len(piece), len(piece), 1]
    assert not body.kept
    assert list(body.again()) == []
    assert spools[0].discarded


def test_collecting_stops_where_the_body_is_too_large():
    piece = b"x" * (defaults.MAX_REPLAY_BODY_BYTES + 1)
    body, _ = body_of(piece, b"never read")

    assert not body.collect()
    assert body.size == len(piece)


def test_without_a_spool_only_what_fits_in_memory_is_kept():
    body, _ = body_of(b"x" * (defaults.MAX_MEMORY_BODY_BYTES + 1), spool=False)

    assert not body.collect()


def test_a_disk_without_space_does_not_stop_the_passage():
    body, _ = body_of(b"x" * 400_000, b"y")

    def full(_request_id):
        raise Unavailable("no space", code="NO_SPACE")

    body._spool = full
    assert [len(piece) for piece in body.pieces()] == [400_000, 1]
    assert (body.kept, body.lost.code) == (False, "NO_SPACE")
