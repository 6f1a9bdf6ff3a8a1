import asyncio
import contextlib
import os
import resource

from agentainer_runtime.event_log import EventLog, encode, has_ended

FINISHED = {"type": "RUN_FINISHED"}


def follow(log, after=0, **options):
    async def collect():
        with log.reading():
            return [each async for each in log.follow(after, **options)]

    return asyncio.run(collect())


def test_events_are_numbered_from_one_and_read_from_any(tmp_path):
    log = EventLog(tmp_path / "r.jsonl")
    events = [{"type": "TEXT_MESSAGE_CONTENT", "delta": f"ü{number}\n"} for number in range(5)] + [FINISHED]

    numbers = [log.append(event) for event in events]

    assert numbers == [1, 2, 3, 4, 5, 6]
    assert follow(log) == [(number, encode(event)) for number, event in enumerate(events, 1)]
    assert [number for number, _ in follow(log, 4)] == [5, 6]
    assert [number for number, _ in follow(EventLog(tmp_path / "r.jsonl"), 99)] == [6]


def test_nothing_comes_after_the_end(tmp_path):
    log = EventLog(tmp_path / "r.jsonl")
    log.append(FINISHED)

    log.append({"type": "RUN_ERROR"})

    assert log.count == 1


def test_a_reader_gets_what_is_written_while_it_waits_and_heartbeats_between(tmp_path):
    log = EventLog(tmp_path / "r.jsonl")

    async def scenario():
        found = []
        async for each in log.follow(heartbeat_s=0.01):
            found.append(each)
            if len(found) == 1:
                log.append({"type": "CUSTOM"})
            elif found[-1] is not None and len(found) > 1:
                log.append(FINISHED)
        return found

    found = asyncio.run(scenario())

    assert found[0] is None
    assert [each[0] for each in found if each] == [1, 2]


def test_the_piece_of_a_line_that_a_crash_left_is_cut_off(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"type":"A"}\n{"type":"B"}\n{"type":"C"')

    log = EventLog(path)
    log.append(FINISHED)

    assert [number for number, _ in follow(log)] == [1, 2, 3]
    assert path.read_bytes() == b'{"type":"A"}\n{"type":"B"}\n{"type":"RUN_FINISHED"}\n'


def test_the_end_of_a_run_is_seen_from_the_end_of_its_file(tmp_path):
    path = tmp_path / "r.jsonl"
    for content, is_ended in [
        (b"", False),
        (b'{"type":"A"}\n', False),
        (b'{"type":"RUN_FINISHED"}', False),
        (b'{"type":"RUN_FINISHED"}\n{"type":"B"}\n', False),
        (b'{"type":"RUN_FINISHED"}\n', True),
        (b'{"type":"A","x":"' + b"x" * 200_000 + b'"}\n{"type":"RUN_ERROR"}\n', True),
        (b'{"type":"A"}\n\0\0\0\n', False),
    ]:
        path.write_bytes(content)
        assert has_ended(path) is is_ended, content[:50]


def test_what_a_loss_of_power_left_at_the_end_is_cut_off(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"type":"A"}\n\0\0\0\n7\n')

    assert EventLog(path).count == 1
    assert path.read_bytes() == b'{"type":"A"}\n'


def test_who_reads_a_log_does_not_change_it(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"type":"A"}\n')
    os.utime(path, ns=(1, 1))

    assert EventLog(path).read() == [{"type": "A"}]

    assert path.stat().st_mtime_ns == 1


def test_half_a_surrogate_pair_is_no_reason_to_fail(tmp_path):
    log = EventLog(tmp_path / "r.jsonl")

    log.append({"type": "CUSTOM", "name": "\ud83d"})

    assert log.read() == [{"type": "CUSTOM", "name": "?"}]


def test_a_full_disk_keeps_no_reader_from_the_end(tmp_path):
    log = EventLog(tmp_path / "r.jsonl")
    log.append({"type": "CUSTOM"})

    with largest_file(120):
        log.append({"type": "CUSTOM", "value": "x" * 200})
        log.append(FINISHED)

    assert log.is_failing
    assert [number for number, _ in follow(log)] == [1, 2, 3]
    assert EventLog(tmp_path / "r.jsonl").count == 1


def test_the_file_is_closed_when_its_last_reader_is_done(tmp_path):
    log = EventLog(tmp_path / "r.jsonl")
    log.append(FINISHED)

    with log.reading():
        log.retire()
        assert log.read() == [FINISHED]

    with contextlib.suppress(OSError):
        log.read()
        raise AssertionError("it is still open")


@contextlib.contextmanager
def largest_file(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
