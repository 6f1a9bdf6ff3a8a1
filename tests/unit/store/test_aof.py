import pytest

from agentainerd.store import aof
from tests.fakes.redis import find_server

pytestmark = pytest.mark.redis


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def transaction(*commands):
    return command(b"MULTI") + b"".join(commands) + command(b"EXEC")


FIRST = command(b"SELECT", b"0") + transaction(command(b"SET", b"a", b"1"), command(b"SET", b"b", b"2"))
LAST = transaction(command(b"HSET", b"r:1", b"body", b"x\0y" * 5), command(b"ZADD", b"q:1", b"12", b"id"))


@pytest.fixture(params=["redis", "valkey"])
def binary(request):
    return find_server(request.param)


@pytest.fixture
def journal(tmp_path):
    folder = aof.folder(tmp_path / "journal")
    folder.mkdir(parents=True)
    aof.manifest(tmp_path / "journal").write_text(
        "file appendonly.aof.2.base.rdb seq 2 type b\n"
        "file appendonly.aof.3.incr.aof seq 3 type i\n"
        "file appendonly.aof.4.incr.aof seq 4 type i\n"
    )
    (folder / "appendonly.aof.3.incr.aof").write_bytes(FIRST + bytes(10))
    last(tmp_path / "journal").write_bytes(FIRST + LAST)
    return tmp_path / "journal"


def last(journal):
    return aof.folder(journal) / "appendonly.aof.4.incr.aof"


def write(journal, data):
    last(journal).write_bytes(data)


def test_whole_file_has_nothing_wrong(journal, binary):
    assert aof.examine(journal, binary) is None


def test_new_folder_has_nothing_wrong(tmp_path, binary):
    assert aof.examine(tmp_path, binary) is None
    assert not aof.has_files(tmp_path)


@pytest.mark.parametrize("zeros", [0, 1, 4096, 200_000])
def test_transaction_cut_at_any_byte_is_torn(journal, binary, zeros):
    for length in range(1, len(LAST), 1 if zeros < 2 else 13):
        write(journal, FIRST + LAST[:length] + bytes(zeros))

        tail = aof.examine(journal, binary)

        assert tail == aof.Tail(last(journal), len(FIRST), len(FIRST) + length + zeros, True), f"cut at {length}"


def test_zero_bytes_alone_are_torn(journal, binary):
    write(journal, bytes(100_000))
    assert aof.examine(journal, binary) == aof.Tail(last(journal), 0, 100_000, True)

    write(journal, FIRST + LAST + bytes(3))
    assert aof.examine(journal, binary) == aof.Tail(last(journal), len(FIRST + LAST), len(FIRST + LAST) + 3, True)


@pytest.mark.parametrize(
    "damage",
    [
        FIRST + b"garbage that is no command\r\n" * 3,
        FIRST + bytes(100) + LAST,
        FIRST + LAST[:40] + bytes(30) + LAST[70:],
        FIRST + LAST.replace(b"$15\r\n", b"$99999\r\n") + LAST,
        FIRST + LAST.replace(b"$15\r\n", b"$99999\r\n"),
        FIRST + LAST.replace(b"*4\r\n", b"*9\r\n"),
        FIRST + b"*x\r\n$3\r\nSET\r\n",
        FIRST + b"*1\r\n$3\r\nDELETE\r\n",
    ],
    ids=["garbage", "hole", "zeros inside", "length", "length at the end", "count", "no number", "word too long"],
)  # fmt: skip
def test_damage_is_not_torn(journal, binary, damage):
    write(journal, damage)

    tail = aof.examine(journal, binary)

    assert tail.start == len(FIRST)
    assert not tail.is_torn


def test_torn_tail_is_kept_aside_and_cut_off(journal, binary, tmp_path, caplog):
    write(journal, FIRST + LAST[:50] + bytes(70_000))

    assert aof.cut(aof.examine(journal, binary), binary, tmp_path / "aside") == 70_050

    assert last(journal).read_bytes() == FIRST
    assert aof.examine(journal, binary) is None
    [kept] = (tmp_path / "aside").iterdir()
    assert kept.read_bytes() == LAST[:50] + bytes(70_000)
    assert f"cut 70050 bytes off the end of {last(journal)}" in caplog.text
    assert str(kept) in caplog.text


def test_torn_tail_that_can_not_be_kept_is_cut_off_all_the_same(journal, binary, tmp_path, caplog):
    write(journal, FIRST + LAST[:50])
    (tmp_path / "aside").write_text("a file is in the way")

    aof.cut(aof.examine(journal, binary), binary, tmp_path / "aside")

    assert last(journal).read_bytes() == FIRST
    assert "could not be kept" in caplog.text


def test_kept_tails_are_bounded(journal, binary, tmp_path):
    aside = tmp_path / "aside"
    aside.mkdir()
    for number in range(30):
        (aside / f"20260101T0000{number:02}Z-appendonly.aof.4.incr.aof.from-1").touch()
    write(journal, FIRST + LAST[:50])

    aof.cut(aof.examine(journal, binary), binary, aside)

    kept = sorted(path.name for path in aside.iterdir())
    assert len(kept) == 20
    assert kept[0].startswith("20260101T000011Z")


def test_only_the_last_file_can_be_torn(journal, binary):
    last(journal).unlink()

    assert aof.examine(journal, binary) is None
