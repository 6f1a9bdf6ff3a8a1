"""The tar of a build context: what is in it, what is not, and what is refused."""

import io
import os
import socket
import tarfile

import pytest

from agentainerctl.build_context import FOREIGN_DOCKERFILE, collect, write_tar
from agentainerd.errors import Conflict, InvalidParameter, NotFound, TooLarge


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "app"
    root.mkdir()
    (root / "Dockerfile").write_text("FROM scratch\n")
    return root


def put(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def tarred(context):
    data = io.BytesIO()
    write_tar(context, data.write)
    data.seek(0)
    return tarfile.open(fileobj=data)


def names(root, dockerfile=None):
    with tarred(collect(str(root), str(dockerfile or root / "Dockerfile"))) as archive:
        return sorted(archive.getnames())


def test_everything_in_the_folder_with_its_content_and_mode(folder):
    put(folder, main_dot_py="print(1)\n", src__a_dot_txt="a")
    (folder / "main.py").chmod(0o755)
    (folder / "empty").mkdir()

    with tarred(collect(str(folder), str(folder / "Dockerfile"))) as archive:
        assert sorted(archive.getnames()) == ["Dockerfile", "empty", "main.py", "src", "src/a.txt"]
        assert archive.extractfile("main.py").read() == b"print(1)\n"
        assert archive.getmember("main.py").mode == 0o755
        assert archive.getmember("empty").isdir()
        assert {(member.uid, member.gid, member.uname) for member in archive} == {(0, 0, "")}


def test_links_stay_links_even_those_that_lead_nowhere_or_out(folder):
    put(folder, a="a")
    (folder / "inside").symlink_to("a")
    (folder / "outside").symlink_to("/etc/passwd")
    (folder / "dangling").symlink_to("nothing")
    (folder / "loop").symlink_to("loop")
    (folder / "sub").mkdir()
    (folder / "sub" / "up").symlink_to("..")

    with tarred(collect(str(folder), str(folder / "Dockerfile"))) as archive:
        links = {member.name: member.linkname for member in archive if member.issym()}

    assert links == {"inside": "a", "outside": "/etc/passwd", "dangling": "nothing", "loop": "loop", "sub/up": ".."}


def test_hard_links_are_two_files(folder):
    put(folder, a="content")
    os.link(folder / "a", folder / "b")

    with tarred(collect(str(folder), str(folder / "Dockerfile"))) as archive:
        assert archive.extractfile("b").read() == b"content"
        assert archive.getmember("b").isreg()


def test_sockets_and_pipes_stay_at_home(folder):
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))

        assert names(folder) == ["Dockerfile"]


def test_ignored_paths_stay_at_home(folder):
    put(folder, _dot_dockerignore="*.log\nnode_modules\n!node_modules/keep/x.js\n", a_dot_log="", b="", _dot_env="")
    put(folder, node_modules__m__i_dot_js="", node_modules__keep__x_dot_js="", node_modules__keep__y_dot_js="")

    assert names(folder) == [
        ".dockerignore",
        ".env",
        "Dockerfile",
        "b",
        "node_modules",
        "node_modules/keep",
        "node_modules/keep/x.js",
    ]


def test_an_ignored_dockerfile_is_sent_nevertheless(folder):
    put(folder, _dot_dockerignore="*\n")

    context = collect(str(folder), str(folder / "Dockerfile"))

    assert context.dockerfile == "Dockerfile"
    assert names(folder) == ["Dockerfile"]


def test_a_dockerfile_with_an_ignore_file_of_its_own(folder):
    put(folder, _dot_dockerignore="a\n", Dockerfile_dot_prod="FROM x", a="", b="")
    (folder / "Dockerfile.prod.dockerignore").write_text("b\n")

    assert names(folder, folder / "Dockerfile.prod") == [
        ".dockerignore",
        "Dockerfile",
        "Dockerfile.prod",
        "Dockerfile.prod.dockerignore",
        "a",
    ]


def test_a_dockerfile_from_elsewhere_gets_a_name_of_its_own(folder, tmp_path):
    put(tmp_path, other="FROM other")

    context = collect(str(folder), str(tmp_path / "other"))

    assert context.dockerfile == FOREIGN_DOCKERFILE
    with tarred(context) as archive:
        assert archive.extractfile(FOREIGN_DOCKERFILE).read() == b"FROM other"


def test_a_dockerfile_that_is_a_link_is_sent_as_what_it_points_to(folder, tmp_path):
    put(tmp_path, real="FROM real")
    (folder / "Dockerfile.link").symlink_to("../real")

    with tarred(collect(str(folder), str(folder / "Dockerfile.link"))) as archive:
        assert archive.extractfile(FOREIGN_DOCKERFILE).read() == b"FROM real"


def test_a_dockerfile_in_a_sub_folder_keeps_its_path(folder):
    put(folder, docker__Dockerfile="FROM sub", a="")

    context = collect(str(folder), str(folder / "docker" / "Dockerfile"))

    assert context.dockerfile == "docker/Dockerfile"


def test_names_of_all_kinds_survive(folder):
    odd = ["ünï", "a b", "x" * 150, "new\nline"]
    for name in odd:
        (folder / name).write_text("x")
    (folder / "deep").mkdir()
    path = folder / "deep"
    for _ in range(6):
        path = path / ("d" * 40)
        path.mkdir()
    raw = os.fsencode(folder) + b"/\xff\xfe"
    with open(raw, "w") as file:
        file.write("raw")

    found = names(folder)

    assert set(odd) < set(found)
    assert os.fsdecode(b"\xff\xfe") in found
    assert "deep/" + "/".join(["d" * 40] * 6) in found


def test_the_size_limit_names_what_is_largest(folder):
    put(folder, small="1")
    (folder / "data").mkdir()
    for name in ("one", "two"):
        with open(folder / "data" / name, "wb") as file:
            file.truncate(400_000_000)  # sparse: nothing is written

    with pytest.raises(TooLarge) as failure:
        collect(str(folder), str(folder / "Dockerfile"))

    assert (
        failure.value.message == f"the build context {folder} has 800 MB; the limit is 524 MB (largest: data, 800 MB)"
    )
    assert failure.value.hint == f"echo data >>{folder}/.dockerignore"


def test_ignored_files_do_not_count(folder):
    put(folder, _dot_dockerignore="data\n")
    with open(folder / "data", "wb") as file:
        file.truncate(10_000_000_000)

    assert collect(str(folder), str(folder / "Dockerfile")).total_bytes < 100


def test_the_file_limit_names_where_they_are(folder):
    for number in range(20):
        put(folder, **{f"many__{number}": ""})

    with pytest.raises(TooLarge, match=r"more than 10 files \(most of them in many\)"):
        collect(str(folder), str(folder / "Dockerfile"), max_files=10)


def test_the_tar_is_written_in_pieces(folder):
    with open(folder / "big", "wb") as file:
        file.truncate(5_000_000)
    sizes = []

    write_tar(collect(str(folder), str(folder / "Dockerfile")), lambda data: sizes.append(len(data)))

    assert sum(sizes) > 5_000_000
    assert max(sizes) <= 64 * 1024


def test_a_file_that_goes_away_is_named(folder):
    put(folder, a="a")
    context = collect(str(folder), str(folder / "Dockerfile"))
    (folder / "a").unlink()

    with pytest.raises(InvalidParameter, match=r"cannot read .*/app/a: No such file"):
        write_tar(context, lambda data: None)


def test_a_file_that_becomes_shorter_while_it_is_read_is_named(folder):
    with open(folder / "a", "wb") as file:
        file.truncate(1_000_000)
    context = collect(str(folder), str(folder / "Dockerfile"))

    with pytest.raises(Conflict, match="a became shorter while it was sent"):
        write_tar(context, lambda data: os.truncate(folder / "a", 0))


def test_a_file_that_becomes_longer_is_sent_as_long_as_it_is_when_its_turn_comes(folder):
    put(folder, a="a")
    context = collect(str(folder), str(folder / "Dockerfile"))
    put(folder, a="longer")

    with tarred(context) as archive:
        assert archive.extractfile("a").read() == b"longer"


@pytest.mark.parametrize(
    ("root", "dockerfile", "message"),
    [("missing", "missing/Dockerfile", "no such folder: missing"), (".", "missing", "no such Dockerfile: missing")],
)
def test_what_is_missing_is_named(root, dockerfile, message):
    with pytest.raises(NotFound, match=message):
        collect(root, dockerfile)
