"""Paths beneath the workspace: by the kernel and by walking, which must agree; and what attacks of symbolic links come to."""

import errno
import os
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from agentainer_runtime import paths
from hypothesis import given, settings
from hypothesis import strategies as st

SECRET = "not for the agent"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "workspace" / "src").mkdir(parents=True)
    (tmp_path / "workspace" / "src" / "a.txt").write_text("a")
    (tmp_path / "workspace-evil").mkdir()
    (tmp_path / "workspace-evil" / "s").write_text(SECRET)
    return tmp_path / "workspace"


@pytest.fixture(params=["openat2", "walking"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of resolving; on a kernel without openat2 the first one has nothing to show."""
    if request.param == "openat2" and not paths._kernel_can():
        pytest.skip("this kernel, or its seccomp profile, has no openat2")
    if request.param == "walking":
        monkeypatch.setattr(paths, "_kernel_can", lambda: False)
    return request.param


def read(workspace: Path, path: str) -> str:
    with paths.regular_file(workspace, path) as descriptor:
        return os.read(descriptor, 1000).decode()


@pytest.mark.parametrize("path", ["src/a.txt", "./src//a.txt", "src/../src/a.txt", "{}/src/a.txt", "/{}//src/./a.txt"])
def test_what_is_inside_is_read_however_it_is_spelled(workspace, way, path):
    assert read(workspace, path.format(str(workspace).lstrip("/") if path.startswith("/{") else workspace)) == "a"


@pytest.mark.parametrize(
    "path",
    [
        "../workspace-evil/s",
        "src/../../workspace-evil/s",
        "{}-evil/s",
        "{}/../workspace-evil/s",
        "/etc/passwd",
        "..",
        "../workspace/src/a.txt",
    ],
)
def test_what_is_outside_is_refused_also_a_sibling_that_begins_with_the_same_name(workspace, way, path):
    with pytest.raises(paths.PathRefused, match="outside"):
        read(workspace, path.format(workspace))


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/etc", "link/passwd"),
        ("/etc/passwd", "link"),
        ("../workspace-evil", "link/s"),
        ("../workspace-evil/s", "link"),
        ("src/../../workspace-evil/s", "link"),
        ("/", "link/etc/passwd"),
        ("{}/src/a.txt", "link"),  # absolute, though it leads back
    ],
)
def test_a_link_that_leads_outside_is_refused_for_reading_listing_and_writing(workspace, way, target, path):
    (workspace / "link").symlink_to(target.format(workspace))

    with pytest.raises(paths.PathRefused, match="outside"):
        read(workspace, path)
    with pytest.raises(paths.PathRefused, match="outside"):
        paths.write(workspace, path, b"changed")
    with pytest.raises((paths.PathRefused, NotADirectoryError)), paths.folder(workspace, path):
        pass
    assert (workspace.parent / "workspace-evil" / "s").read_text() == SECRET


def test_links_that_stay_inside_are_followed_also_upwards_and_through_each_other(workspace, way):
    (workspace / "src" / "up").symlink_to("..")
    (workspace / "alias").symlink_to("src/up/src")
    (workspace / "file").symlink_to("alias/a.txt")

    assert read(workspace, "file") == "a"
    assert read(workspace, "alias/up/src/a.txt") == "a"
    assert paths.write(workspace, "file", b"b") is False
    assert (workspace / "src" / "a.txt").read_text() == "b"
    assert (workspace / "file").is_symlink()


def test_links_in_a_circle_end(workspace, way):
    (workspace / "one").symlink_to("two")
    (workspace / "two").symlink_to("one")

    with pytest.raises(OSError) as failure:
        read(workspace, "one")
    assert failure.value.errno == errno.ELOOP
    with pytest.raises(OSError) as failure:
        paths.write(workspace, "one", b"")
    assert failure.value.errno == errno.ELOOP


def test_a_pipe_a_folder_and_a_socket_are_not_files_and_nobody_waits_for_the_other_end(workspace, way):
    os.mkfifo(workspace / "pipe")

    with pytest.raises(paths.PathRefused, match="named pipe"):
        read(workspace, "pipe")
    with pytest.raises(paths.PathRefused, match="named pipe"):
        paths.write(workspace, "pipe", b"")
    with pytest.raises(paths.PathRefused, match="folder"):
        read(workspace, "src")
    with pytest.raises(paths.PathRefused, match="folder"):
        paths.write(workspace, "src", b"")
    with pytest.raises(paths.PathRefused, match="folder"):
        paths.write(workspace, "src/", b"")


def test_magic_links_are_no_way_out(workspace, way):
    (workspace / "magic").symlink_to("/proc/self/root/etc/passwd")

    with pytest.raises((paths.PathRefused, OSError)):
        read(workspace, "magic")
    with paths.folder(Path("/proc/self")) as descriptor, pytest.raises((paths.PathRefused, OSError)):
        os.close(paths.open_beneath(descriptor, "root/etc/passwd", os.O_RDONLY))


def test_writing_makes_folders_keeps_the_mode_and_leaves_nothing_beside(workspace, way):
    script = workspace / "run.sh"
    script.write_text("old")
    script.chmod(0o755)

    assert paths.write(workspace, "deep/er/new.txt", b"new") is True
    assert paths.write(workspace, "run.sh", b"changed") is False

    assert (workspace / "deep" / "er" / "new.txt").read_text() == "new"
    assert stat.S_IMODE(script.stat().st_mode) == 0o755
    assert sorted(path.name for path in workspace.iterdir()) == ["deep", "run.sh", "src"]


def test_a_hard_link_from_outside_keeps_its_content(workspace, way):
    os.link(workspace.parent / "workspace-evil" / "s", workspace / "linked")

    paths.write(workspace, "linked", b"changed")

    assert (workspace.parent / "workspace-evil" / "s").read_text() == SECRET
    assert (workspace / "linked").read_text() == "changed"


def test_a_long_path_is_made_or_said_to_be_too_long(workspace, way):
    with pytest.raises(OSError) as failure:
        paths.write(workspace, "a/" * 3000 + "b", b"")
    assert failure.value.errno == errno.ENAMETOOLONG

    assert paths.write(workspace, "a/" * 60 + "b", b"") is True


@pytest.mark.parametrize("path", ["src\0/a.txt", "src/\ud800.txt"])
def test_what_no_file_can_be_called_is_refused(workspace, path):
    with pytest.raises(paths.PathRefused, match="a path has no"):
        read(workspace, path)


SWAP = """
import os
while True:
    for first, second in (("folder", "kept"), ("other", "folder"), ("folder", "other"), ("kept", "folder")):
        os.rename(first, second)
"""


def test_a_folder_that_is_swapped_for_a_link_again_and_again_never_gives_what_is_outside(workspace, way):
    """The race that `realpath` before `open` loses."""
    (workspace / "folder").mkdir()
    (workspace / "folder" / "s").write_text("inside")
    (workspace / "other").symlink_to("../workspace-evil")
    swapper = subprocess.Popen([sys.executable, "-c", SWAP], cwd=workspace)
    seen = set()
    try:
        end = time.monotonic() + 10
        while time.monotonic() < end and (len(seen) < 2 or time.monotonic() < end - 9.5):
            try:
                seen.add(read(workspace, "folder/s"))
            except (paths.PathRefused, OSError):
                seen.add("refused")
    finally:
        swapper.kill()
        swapper.wait()

    assert seen == {"inside", "refused"}


NAMES = st.sampled_from(["a", "b", "c", "..", ".", ""])
TARGETS = st.lists(NAMES, min_size=1, max_size=4).map("/".join).filter(bool) | st.just("/etc/passwd")


@settings(max_examples=150)
@given(
    folders=st.lists(st.sampled_from(["a", "b", "a/a", "a/b", "b/a", "a/b/b"]), max_size=4),
    links=st.lists(st.tuples(st.sampled_from(["a", "b", "c", "a/b", "b/c", "a/a", "a/b/c"]), TARGETS), max_size=5),
    path=st.lists(NAMES, min_size=1, max_size=6)
    .map("/".join)
    .filter(lambda text: bool(text) and not text.startswith("/")),
)
def test_walking_opens_the_same_as_the_kernel(folders, links, path):
    if not paths._kernel_can():
        pytest.skip("this kernel, or its seccomp profile, has no openat2")
    with tempfile.TemporaryDirectory() as tree:
        grow(Path(tree), folders, links)

        assert opened(paths.open_walking, Path(tree), path) == opened(paths.open_beneath, Path(tree), path)


def grow(root: Path, folders: list[str], links: list[tuple[str, str]]) -> None:
    for name in folders:
        (root / name).mkdir(parents=True, exist_ok=True)
        if not (root / name / "c").is_dir():
            (root / name / "c").touch()
    for name, target in links:
        if (root / name).parent.is_dir() and not os.path.lexists(root / name):
            (root / name).symlink_to(target)


def opened(open_at, root: Path, path: str) -> object:
    """Which file it is, or which error; both in the kernel's words. A missing name may be found before or after a way out."""
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        descriptor = open_at(root_fd, path, os.O_RDONLY | os.O_NONBLOCK)
    except paths.PathRefused:
        return "outside"
    except OSError as exc:
        return errno.errorcode[exc.errno]
    else:
        found = os.fstat(descriptor)
        os.close(descriptor)
        return found.st_dev, found.st_ino
    finally:
        os.close(root_fd)
