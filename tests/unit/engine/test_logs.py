import struct

from hypothesis import given
from hypothesis import strategies as st

from agentainerd.engine.logs import Demultiplexer

FRAMES = st.lists(st.tuples(st.sampled_from([0, 1, 2, 3]), st.binary(max_size=300)), max_size=20)


@given(frames=FRAMES, cuts=st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_frames_come_out_whole_however_the_bytes_are_cut(frames, cuts):
    data = b"".join(struct.pack(">BxxxL", kind, len(payload)) + payload for kind, payload in frames)
    demultiplexer = Demultiplexer()
    seen = []
    turn = 0
    while data:
        size = cuts[turn % len(cuts)]
        piece, data = data[:size], data[size:]
        seen += demultiplexer.feed(piece)
        turn += 1

    expected = [("stdout" if kind < 2 else "stderr", payload) for kind, payload in frames if payload]
    assert [(piece.stream, piece.data) for piece in seen] == expected


def test_half_a_frame_is_kept_back():
    demultiplexer = Demultiplexer()

    assert list(demultiplexer.feed(b"\1\0\0\0\0\0\0")) == []
    assert list(demultiplexer.feed(b"\3ab")) == []
    assert [piece.data for piece in demultiplexer.feed(b"c\2\0")] == [b"abc"]
