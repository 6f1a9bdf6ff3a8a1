"""`run`, `runs`, `sessions` and `chat` against a real daemon and an agent in a real container."""

import json
import re
import signal
import subprocess
import sys

import pytest

from tests.system.test_agents_real import Host

pytestmark = [pytest.mark.docker, pytest.mark.redis]


@pytest.fixture
def host(start_daemon, docker_sandbox, storyteller_image):
    host = Host(start_daemon(sandbox=docker_sandbox), storyteller_image)
    host.up()
    yield host
    docker_sandbox.remove_containers()


def begin(host, *words):
    """Start agentainerctl and leave it running."""
    command = [sys.executable, "-m", "agentainerctl", "--host", f"unix://{host.daemon.control_socket}", *words]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_work_is_given_watched_joined_cancelled_and_gone_on_with(host, eventually):
    out, err = host.ctl("run", "web", "fix", "--max-steps", "5")
    assert out == "Fixed.\n\\x1b[2JIt subtracted.\n"
    assert re.sub(r"[0-9a-f-]{36}", "ID", err).splitlines()[:-1] == [
        "--- run ID on web ---",
        "> run_command pytest -q",
        "  | F",
        "  | 1 failed",
        '> edit_file path=add.py old="a - b" new="a + b"',
        "  | edited",
        "~ modified add.py (+1 -1)",
        "    @@ -1,2 +1,2 @@",
        "     def add(a, b):",
        "    -    return a - b",
        "    +    return a + b",
    ]
    assert err.endswith(": 1 step, 512 tokens in, 80 out, $0.0123 ---\n")
    assert "web failed (model_error): the model does not answer" in host.ctl("run", "web", "fail", code=9)[1]

    slow = host.ctl("run", "-d", "-q", "web", "tell 1000 0.05")[0].strip()
    watcher = begin(host, "runs", "attach", slow)
    assert watcher.stdout.readline() == "1\n"
    assert slow in host.ctl("runs", "list", "--agent", "web", "--status", "running")[0]
    host.ctl("runs", "cancel", slow)
    assert watcher.wait(20) == 10
    assert f"run {slow} was cancelled" in watcher.stderr.read()
    types = [
        json.loads(line)["event"]["type"] for line in host.ctl("runs", "events", slow, "-o", "json")[0].splitlines()
    ]
    assert (types[0], types[-1]) == ("RUN_STARTED", "RUN_ERROR")
    assert "had ended before: cancelled" in host.ctl("runs", "cancel", slow)[0]

    assert host.ctl("chat", "web", text="remember this\nrecall\n")[0].endswith("You said 2 things.\n")
    session = host.ctl("sessions", "list", "--agent", "web", "-q")[0].strip()
    assert host.ctl("run", "web", "recall", "--session", session)[0] == "You said 3 things.\n"
    assert host.ctl("chat", "--resume", "web", text="recall\n")[0] == "You said 4 things.\n"
    said = [message["content"] for message in json.loads(host.ctl("sessions", "export", session)[0])["messages"]]
    assert (said[0], said[-1], len(said)) == ("remember this", "You said 4 things.", 8)
    assert "you:\n  remember this\nagent:\n" in host.ctl("sessions", "history", session)[0]
    host.ctl("sessions", "delete", "--force", session)
    host.ctl("sessions", "show", session, code=3)
    host.ctl("run", "web", "recall", "--session", session, code=3)


def test_a_run_is_watched_across_a_crash_of_the_daemon_without_a_gap_or_a_repeat(host, start_daemon, docker_sandbox):
    watcher = begin(host, "run", "web", "tell 60 0.05")
    assert watcher.stdout.readline() == "1\n"

    host.daemon.signal(signal.SIGKILL)
    host.daemon.process.wait(10)
    start_daemon(like=host.daemon, sandbox=docker_sandbox)

    out, err = watcher.communicate(timeout=60)
    assert (watcher.returncode, out.split()) == (0, [str(number) for number in range(2, 61)])
    assert err.count("the connection to agentainerd broke; reconnecting") == 1
