"""Progress of long work."""

import pytest

from agentainerd.services.backup_progress import Cancelled, Watch


def test_bytes_are_counted_until_it_is_cancelled():
    watch = Watch()
    watch.did(5)
    watch.did(6)
    watch.cancelled = True

    with pytest.raises(Cancelled):
        watch.did(1)

    assert watch.bytes == 12
