"""Files as answers: tags, parts, sizes; by werkzeug's own client, over a request as the doors make it."""

import os

import pytest
from werkzeug.test import Client

from agentainerd.api.downloads import send
from agentainerd.api.exchange import ApiRequest
from agentainerd.archives import slices
from agentainerd.archives.archives import Archives

MIB = 2**20


@pytest.fixture
def archives(tmp_path):
    made = Archives(tmp_path / "spool", min_free_bytes=0)
    made.start()
    return made


@pytest.fixture
def client(archives, tmp_path):
    """Asks for a ZIP of one file of a MiB of noise, and of a second one."""
    (tmp_path / "folder").mkdir()
    for name in ("noise", "more"):
        (tmp_path / "folder" / name).write_bytes(os.urandom(MIB))

    def app(environ, start_response):
        request = ApiRequest(environ)
        return send(request, archives.zip("k", tmp_path / "folder"), "application/zip", "output.zip")(
            environ, start_response
        )

    client = Client(app)
    plain = client.open
    client.open = lambda *args, **options: plain(*args, buffered=True, **options)
    return client


@pytest.fixture
def whole(client):
    """What the ZIP is, which is whole and kept from now on."""
    return client.get("/").data


@pytest.fixture(autouse=True)
def nobody_is_left(archives):
    yield
    assert not archives.is_busy("k")


def test_the_first_gets_it_while_it_is_made_and_the_next_with_its_size(client, monkeypatch):
    monkeypatch.setattr(slices, "SLICE_S", 0.0)

    first = client.get("/")
    second = client.get("/")

    assert "Content-Length" not in first.headers and second.headers["Content-Length"] == str(len(first.data))
    assert first.data == second.data and first.headers["ETag"] == second.headers["ETag"]
    assert second.headers["Content-Type"] == "application/zip" and second.headers["Accept-Ranges"] == "bytes"
    assert second.headers["Content-Disposition"] == 'attachment; filename="output.zip"'


def test_head_tells_what_get_would_and_makes_nothing(client, archives, monkeypatch):
    monkeypatch.setattr(slices, "SLICE_S", 0.0)

    before = client.head("/")
    kept = archives.sizes()
    tag = client.get("/").headers["ETag"]
    after = client.head("/")

    assert (before.data, kept) == (b"", {})
    assert "Content-Length" not in before.headers and before.headers["ETag"] == tag
    assert (after.data, after.headers["Content-Length"]) == (b"", str(archives.sizes()["k"]))
    assert after.headers["Content-Type"] == "application/zip"


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=1048576-", slice(1048576, None)),
        ("bytes=-100", slice(-100, None)),
        ("bytes=-99999999", slice(0, None)),
        ("bytes=100-99999999", slice(100, None)),
    ],
)
def test_a_part_is_that_part(client, whole, asked, part):
    answer = client.get("/", headers={"Range": asked})

    start, stop, _ = part.indices(len(whole))
    assert answer.status_code == 206 and answer.data == whole[part]
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(whole)}"
    assert answer.headers["Content-Length"] == str(stop - start)


def test_a_part_that_is_not_there_is_said_so_with_the_size(client, whole):
    answer = client.get("/", headers={"Range": "bytes=99999999-"})

    assert (answer.status_code, answer.data) == (416, b"")
    assert answer.headers["Content-Range"] == f"bytes */{len(whole)}"


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,4-5", "lines=0-1", "bytes=5-2", "bytes=", "bytes=-0", "nonsense", "bytes=a-b"]
)
def test_what_is_no_range_that_can_be_served_is_answered_with_all_of_it(client, whole, asked):
    answer = client.get("/", headers={"Range": asked})

    assert (answer.status_code, answer.data) == (200, whole)


def test_a_download_that_broke_off_goes_on_only_with_the_same_bytes(client, whole, tmp_path):
    tag = client.head("/").headers["ETag"]
    same = client.get("/", headers={"Range": "bytes=10-", "If-Range": tag})
    (tmp_path / "folder" / "more").write_bytes(b"other")
    other = client.get("/", headers={"Range": "bytes=10-", "If-Range": tag})
    dated = client.get("/", headers={"Range": "bytes=10-", "If-Range": "Wed, 21 Oct 2026 07:28:00 GMT"})

    assert (same.status_code, same.data) == (206, whole[10:])
    assert other.status_code == dated.status_code == 200
    assert other.headers["ETag"] != tag and len(other.data) < len(whole)


def test_a_part_of_what_is_not_made_yet_waits_until_it_is_whole(client, archives, monkeypatch):
    monkeypatch.setattr(slices, "SLICE_S", 0.0)

    part = client.get("/", headers={"Range": "bytes=10-19"})

    whole = client.get("/").data
    assert part.status_code == 206 and part.data == whole[10:20]
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(whole)}"


@pytest.mark.parametrize("method", ["get", "head"])
def test_conditions_are_kept(client, whole, method):
    ask = getattr(client, method)
    tag = ask("/").headers["ETag"]

    for same in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = ask("/", headers={"If-None-Match": same, "Range": "bytes=0-1"})
        assert (answer.status_code, answer.data, answer.headers["ETag"]) == (304, b"", tag)
    assert ask("/", headers={"If-None-Match": '"other"'}).status_code == 200
    assert ask("/", headers={"If-Match": '"other"'}).status_code == 412
    assert ask("/", headers={"If-Match": f'"other", {tag}'}).status_code == 200


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("a b.zip", 'attachment; filename="a b.zip"'),
        ('quo"te.zip', "attachment; filename=\"quo_te.zip\"; filename*=UTF-8''quo%22te.zip"),
        ("é.zip", "attachment; filename=\"_.zip\"; filename*=UTF-8''%C3%A9.zip"),
        ("new\r\nline", "attachment; filename=\"new__line\"; filename*=UTF-8''new%0D%0Aline"),
    ],
)
def test_any_name_can_be_told(archives, tmp_path, name, sent):
    (tmp_path / "empty").mkdir()
    response = send(ApiRequest({"REQUEST_METHOD": "HEAD"}), archives.zip("k", tmp_path / "empty"), "text/plain", name)
    response.close()

    assert response.headers["Content-Disposition"] == sent
