"""The audit log after a loss of power at many moments of a run, and with calls that fail in it: every entry that was confirmed
is there, once, and the chain is whole.

POWER_LOSSES says how many moments (20 by itself), half of them while files change their names.
"""

import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from agentainerd.model.audit import AuditEntry, AuditFilter
from agentainerd.store.audit import AuditFile
from tests.fakes.power import Disk, fail, trace

LOSSES = int(os.environ.get("POWER_LOSSES", "20"))
ROOT = Path(__file__).parents[3]
PROGRAM = """
from gevent import monkey
monkey.patch_all()
import os, sys
from contextlib import suppress
from agentainerd.model.audit import AuditEntry
from agentainerd.store.audit import AuditFile

acks = os.open(sys.argv[1] + "/acks", os.O_WRONLY | os.O_CREAT)
file = AuditFile(sys.argv[1] + "/state", max_file_bytes=4000)
for number in range(0, 240, 3):
    names = [f"n{number + place}" for place in range(3)]
    try:
        file.append([AuditEntry(time="2026-11-20T10:00:00.000Z", actor="x", action="a", resource=name) for name in names])
    except OSError as error:
        os.write(2, f"{error.errno} ".encode())
    else:
        os.write(acks, (" ".join(names) + " ").encode())
    if number % 60 == 57:
        with suppress(OSError):
            file.expire(20_000, "")
file.append([])
file.close()
"""
HEAD_BYTES = 12 + 1 + 32 + 1 + 64 + 1


@pytest.fixture
def folder():
    made = Path(tempfile.mkdtemp(prefix="audit-"))
    (made / "state").mkdir()
    yield made
    shutil.rmtree(made, ignore_errors=True)


def command(folder: Path) -> list[str]:
    return [sys.executable, "-c", PROGRAM, str(folder)]


def reopened(state: Path) -> tuple[AuditFile, list[str]]:
    """Start on what is there, as the next daemon does; return the log and what it has of the run, oldest first."""
    file = AuditFile(str(state), max_file_bytes=4000)
    file.append([AuditEntry(time="2026-11-20T11:00:00.000Z", actor="x", action="after", resource="")])
    with file.view() as view:
        found, _ = view.page(AuditFilter(actions=("a",)), 10_000, "")
    return file, [entry.resource for entry in found][::-1]


def overwrite_head(path: Path) -> None:
    """The disk knows files that only grow, and the head is written over: let the records that were appended do that."""
    if path.exists():
        data = path.read_bytes()
        whole, rest = divmod(len(data), HEAD_BYTES)
        content = data[(whole - 1) * HEAD_BYTES : whole * HEAD_BYTES] if whole else b""
        path.write_bytes(data[whole * HEAD_BYTES :] + content[rest:])


def test_after_a_loss_of_power_every_confirmed_entry_is_there_and_the_chain_is_whole(folder, tmp_path):
    done = trace(command(folder), ROOT, folder / "log")
    assert done.returncode == 0, done.stderr
    disk = Disk(folder / "state", folder / "log", folder / "state")
    source = random.Random(3)
    named = disk.moments_of_names()
    moments = [*source.choices(named, k=LOSSES // 2), *source.choices(range(len(disk.events)), k=LOSSES - LOSSES // 2)]
    for number, at in enumerate(moments):
        state = tmp_path / str(number)
        state.mkdir()
        disk.after(at, source).write(state)
        overwrite_head(state / "audit.head")
        if (state / "audit.key").exists():
            (state / "audit.key").chmod(0o600)
        if (state / "audit.head").exists():
            (state / "audit.head").chmod(0o600)

        file, found = reopened(state)

        with file.view() as view:
            checked = view.check()
        assert checked.faults == [], (at, checked.faults)
        confirmed = disk.acknowledged_by(at)
        oldest = int(found[0][1:]) if found else 0
        assert found == [f"n{name}" for name in range(oldest, oldest + len(found))], at
        assert not confirmed or confirmed[-1] in found, at
        file.close()


@pytest.mark.parametrize(
    "fault", ["fdatasync:error=EIO:when=5+9", "write:error=ENOSPC:when=4+7", "fdatasync:error=ENOSPC:when=3..8"]
)
def test_calls_that_fail_lose_nothing_and_double_nothing(folder, fault):
    done = fail(command(folder), ROOT, fault, [folder / "state/audit.log"])

    assert done.returncode == 0, done.stderr
    assert len(done.stderr.split()) >= 3, "it did not meet the fault"
    file, found = reopened(folder / "state")
    with file.view() as view:
        assert view.check().faults == []
    oldest = int(found[0][1:])
    assert found == [f"n{name}" for name in range(oldest, 240)]
    file.close()
