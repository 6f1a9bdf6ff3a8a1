"""Files of the daemon's log: set aside by size and age, read across that."""

import json
import stat
import time

import pytest

from agentainerd.model.system_logs import stamp
from agentainerd.store.system_logs import CURRENT, Limits, LogFiles, LogWriter, Position

LARGE = Limits(1_000_000, 3600, 5)


def line(text: str, at: float | None = None) -> bytes:
    entry = {"time": stamp(time.time() if at is None else at), "level": "info", "component": "x", "message": text}
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "logs"


@pytest.fixture
def files(folder):
    return LogFiles(folder)


@pytest.fixture
def open_writer(folder):
    opened = []

    def make(limits: Limits = LARGE) -> LogWriter:
        opened.append(LogWriter(folder, limits))
        return opened[-1]

    yield make
    for writer in opened:
        writer.close()


def read_all(files: LogFiles, position: Position | None = None) -> list[str]:
    found = []
    position = files.begin("") if position is None else position
    while True:
        lines, position = files.read(position)
        if not lines:
            return found
        found += [json.loads(text)["message"] for text in lines]


def test_it_is_closed_to_others(folder, open_writer):
    open_writer().write(line("a"))

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / CURRENT).stat().st_mode) == 0o600


def test_a_file_that_is_large_is_set_aside_and_the_oldest_are_removed(folder, files, open_writer):
    writer = open_writer(Limits(300, 3600, 3))

    for number in range(20):
        writer.write(line(str(number)))

    paths = sorted(folder.iterdir())
    assert len(paths) == 3
    assert all(path.stat().st_size <= 300 for path in paths)
    kept = read_all(files)
    assert kept == [str(number) for number in range(20)][-len(kept) :]
    assert len(kept) >= 6


def test_a_line_that_is_larger_than_a_file_is_written_all_the_same(files, open_writer):
    writer = open_writer(Limits(100, 3600, 3))

    for _ in range(3):
        writer.write(line("x" * 500_000))

    assert [len(text) for text in read_all(files)] == [500_000] * 3


def test_a_file_that_is_old_is_set_aside_also_by_the_next_run(folder, open_writer):
    first = open_writer()
    first.write(line("yesterday", time.time() - 7200))
    first.close()
    second = open_writer()

    second.write(line("today"))

    assert len(list(folder.iterdir())) == 2
    assert json.loads((folder / CURRENT).read_text())["message"] == "today"


def test_a_line_that_broke_off_does_not_spoil_the_next(folder, open_writer):
    folder.mkdir()
    (folder / CURRENT).write_bytes(line("whole") + b'{"time":"20')

    open_writer().write(line("next"))

    assert json.loads((folder / CURRENT).read_bytes().splitlines()[2])["message"] == "next"


def test_a_link_is_not_followed(folder, open_writer, tmp_path):
    folder.mkdir()
    (folder / CURRENT).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic links"):
        open_writer().write(line("a"))


def test_a_reader_goes_on_across_files(files, open_writer):
    writer = open_writer(Limits(250, 3600, 50))
    writer.write(line("0"))
    lines, position = files.read(files.begin(""))
    assert len(lines) == 1

    for number in range(1, 9):
        writer.write(line(str(number)))

    assert read_all(files, position) == [str(number) for number in range(1, 9)]


def test_a_reader_whose_file_is_gone_goes_on_with_the_oldest(files, open_writer):
    writer = open_writer(Limits(250, 3600, 2))
    writer.write(line("0"))
    _, position = files.read(files.begin(""))

    for number in range(1, 9):
        writer.write(line(str(number)))

    found = read_all(files, position)
    assert found == [str(number) for number in range(1, 9)][-len(found) :]


def test_half_a_line_is_not_read(folder, files):
    folder.mkdir()
    whole = line("whole")
    (folder / CURRENT).write_bytes(whole + b'{"half"')

    lines, position = files.read(files.begin(""))

    assert lines == [whole.rstrip()]
    assert files.read(position) == ([], position)
    with (folder / CURRENT).open("ab") as file:
        file.write(b": 1}\n")
    assert files.read(position)[0] == [b'{"half": 1}']


def test_reading_begins_not_far_from_a_time(folder, files, open_writer):
    writer = open_writer(Limits(150, 3600, 50))
    for number in range(4):
        writer.write(line(str(number)))
    middle = sorted(folder.iterdir())[2].name.removeprefix(CURRENT + ".")
    since = f"{middle[:4]}-{middle[4:6]}-{middle[6:11]}:{middle[11:13]}:{middle[13:]}"

    assert read_all(files, files.begin(since)) == ["1", "2", "3"]
    assert read_all(files, files.begin(stamp(time.time() + 60))) == ["3"]
    assert read_all(files, files.begin("")) == ["0", "1", "2", "3"]


def test_no_files_are_no_lines(files):
    assert files.starts() == []
    assert files.read(files.begin("")) == ([], Position())
