import os
import socket
import stat
import subprocess
import sys

import pytest

from agentainerd import listeners
from agentainerd.errors import Unavailable


@pytest.fixture
def opened():
    """Collects sockets and closes them."""
    found = []
    yield found
    for listener in found:
        listener.close()


def test_a_free_port_is_taken_and_listens(opened):
    opened += listeners.tcp("127.0.0.1", 0)

    port = opened[0].getsockname()[1]
    socket.create_connection(("127.0.0.1", port), 5).close()
    assert port > 0


def test_localhost_is_one_port_on_each_of_its_addresses(opened):
    opened += listeners.tcp("localhost", 0)

    assert len({listener.getsockname()[1] for listener in opened}) == 1
    assert "127.0.0.1" in {listener.getsockname()[0] for listener in opened}


def test_a_taken_port_says_by_whom(opened):
    opened += listeners.tcp("127.0.0.1", 0)
    port = opened[0].getsockname()[1]

    with pytest.raises(Unavailable) as failure:
        listeners.tcp("127.0.0.1", port)

    assert failure.value.code == "ADDRESS_IN_USE"
    assert failure.value.message.startswith(f"cannot listen on 127.0.0.1:{port}: address in use by pid {os.getpid()} (")
    assert failure.value.hint == f"stop it, or set server.port (AGENTAINER_SERVER_PORT={port + 1})"


def test_a_port_taken_on_all_addresses_is_taken_on_one(opened):
    opened += listeners.tcp("0.0.0.0", 0)

    with pytest.raises(Unavailable, match=f"address in use by pid {os.getpid()}"):
        listeners.tcp("127.0.0.1", opened[0].getsockname()[1])


@pytest.mark.parametrize(
    ("host", "code"), [("192.0.2.1", "ADDRESS_NOT_USABLE"), ("no-such-host.invalid", "ADDRESS_UNKNOWN")]
)
def test_an_address_that_is_not_ours_is_refused(host, code):
    with pytest.raises(Unavailable) as failure:
        listeners.tcp(host, 0)

    assert failure.value.code == code
    assert host in failure.value.message
    assert failure.value.hint


def test_a_unix_socket_has_its_mode_from_the_first_moment(tmp_path, opened):
    path = str(tmp_path / "a.sock")

    opened.append(listeners.unix(path, mode=0o660))

    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_a_group_that_does_not_exist_is_no_error(tmp_path, opened):
    opened.append(listeners.unix(str(tmp_path / "a.sock"), mode=0o660, group="no-such-group"))


def test_the_group_gets_the_socket(tmp_path, opened):
    path = str(tmp_path / "a.sock")
    group = "daemon" if os.geteuid() == 0 else __import__("grp").getgrgid(os.getegid()).gr_name

    opened.append(listeners.unix(path, mode=0o660, group=group))

    assert os.stat(path).st_gid == __import__("grp").getgrnam(group).gr_gid


def test_a_stale_socket_is_replaced(tmp_path, opened):
    path = str(tmp_path / "a.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)

    opened.append(listeners.unix(path, mode=0o600))

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_a_socket_that_answers_is_left_alone_and_says_whose_it_is(tmp_path, opened):
    path = str(tmp_path / "a.sock")
    opened.append(listeners.unix(path, mode=0o600))

    with pytest.raises(Unavailable) as failure:
        listeners.unix(path, mode=0o600)

    assert failure.value.message.startswith(f"cannot listen on {path}: in use by pid {os.getpid()} (")
    assert os.path.exists(path)


def test_what_is_not_a_socket_is_never_removed(tmp_path):
    path = tmp_path / "a.sock"
    path.write_text("precious")

    with pytest.raises(Unavailable, match="there is something that is not a socket"):
        listeners.unix(str(path), mode=0o600)

    assert path.read_text() == "precious"


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(Unavailable, match="cannot listen on .*: No such file or directory"):
        listeners.unix(str(tmp_path / "none" / "a.sock"), mode=0o600)


def test_the_kernel_says_who_is_at_the_other_end(tmp_path, opened):
    path = str(tmp_path / "a.sock")
    listener = listeners.unix(path, mode=0o600)
    opened.append(listener)
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    connection, _ = listener.accept()
    opened += [client, connection]

    assert listeners.peer_of(connection) == (os.getpid(), os.geteuid(), os.getegid())


def test_another_agentainerd_is_called_by_its_name(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", "agentainerd"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        other.stdout.readline()
        stranger = listeners.describe_process(other.pid)
        other.stdin.close()
    assert stranger.startswith(f"pid {other.pid} (")

    script = tmp_path / "agentainerd"
    script.write_text("import sys; print(flush=True); sys.stdin.read()")
    with subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        described = listeners.describe_process(other.pid)
        other.stdin.close()
    assert described.startswith(f"another agentainerd, pid {other.pid} (")


def test_a_process_that_is_gone_has_at_least_its_number():
    assert listeners.describe_process(2**22 + 1) == f"pid {2**22 + 1}"


def test_an_address_of_six_has_brackets():
    assert listeners.place("::1", 80) == "[::1]:80"
    assert listeners.place("127.0.0.1", 80) == "127.0.0.1:80"


ACTIVATED = """
import os, sys
from gevent import monkey
monkey.patch_all()
from agentainerd import listeners
os.environ["LISTEN_PID"] = str(os.getpid())
taken = listeners.inherited(os.environ)
print(taken.control and taken.control.getsockname(), [one.getsockname() for one in taken.tcp])
print(sorted(name for name in os.environ if name.startswith("LISTEN_")))
print(any(os.get_inheritable(one.fileno()) for one in [taken.control, *taken.tcp]))
"""


def test_sockets_of_systemd_are_told_apart_by_what_they_are(tmp_path, opened):
    path = str(tmp_path / "a.sock")
    tcp = listeners.tcp("127.0.0.1", 0)[0]
    unix = listeners.unix(path, mode=0o600)
    opened += [tcp, unix]
    code = (
        f"import os; os.dup2({tcp.fileno()}, 3); os.dup2({unix.fileno()}, 4)\n"
        "os.set_inheritable(3, True); os.set_inheritable(4, True)\n"
    )

    answer = subprocess.run(
        [sys.executable, "-c", code + ACTIVATED],
        env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "agentainerd.socket:agentainerd.socket"},
        pass_fds=[tcp.fileno(), unix.fileno()],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip

    assert answer.stdout.splitlines() == [f"{path} [{tcp.getsockname()!r}]", "[]", "False"]


@pytest.mark.parametrize(
    "environment", [{}, {"LISTEN_FDS": "2", "LISTEN_PID": "1"}, {"LISTEN_FDS": "x", "LISTEN_PID": str(os.getpid())}]
)
def test_sockets_that_are_not_for_us_are_not_touched(environment):
    variables = dict(environment)

    taken = listeners.inherited(variables)

    assert (taken.control, taken.tcp) == (None, [])
    assert variables == {}
