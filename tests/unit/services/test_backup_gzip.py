"""Parts of a gzip file: one stream to any reader, whatever the pieces were."""

import gzip
import io
import os

import pytest

from agentainerd.errors import AgentainerError
from agentainerd.services.backup_gzip import Gunzip, Gzip
from agentainerd.services.backup_progress import Watch


def packed(*pieces):
    out = io.BytesIO()
    packer = Gzip(out.write)
    for piece in pieces:
        packer.put(piece)
    packer.flush()
    packer.flush()
    return out.getvalue()


@pytest.mark.parametrize("pieces", [(b"a",), (b"a" * 5_000_000,), (os.urandom(700_000),) * 5, (b"x" * 511, b"y") * 9])
def test_what_is_packed_is_unpacked(pieces):
    whole = b"".join(pieces)
    data = packed(*pieces)

    assert gzip.decompress(data) == whole
    watch = Watch()
    source = Gunzip(io.BytesIO(data), watch)
    assert b"".join(source.read(min(1000, len(whole) - at)) for at in range(0, len(whole), 1000)) == whole
    source.end()
    assert watch.bytes == len(data)


def test_more_than_there_is_is_an_error():
    source = Gunzip(io.BytesIO(packed(b"abc")), Watch())

    with pytest.raises(AgentainerError):
        source.read(4)


def test_what_follows_is_an_error():
    source = Gunzip(io.BytesIO(packed(b"abc" * 100_000) + packed(b"more")), Watch())
    source.read(300_000)

    with pytest.raises(AgentainerError):
        source.end()
