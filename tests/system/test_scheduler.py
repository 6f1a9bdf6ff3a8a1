"""The containerized-agent document's own tests against a real daemon with the runtime's image, and `agentainerctl jobs` beside them.

They send no token, as that document's clients: its paths are open on this machine.
"""

import io
import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
import zipfile

import pytest

from tests.system.test_agents_real import Host

pytestmark = [pytest.mark.docker, pytest.mark.redis]
OPEN = "[/schedule, /status, /jobs, /job, /cancel, /logs, /download]"
COMPLETE_S = 60


@pytest.fixture
def host(start_daemon, docker_sandbox, runtime_image, base_image):
    config = f"jobs:\n  image: {runtime_image}\n  max_running: 2\nsecurity:\n  open_prefixes: {OPEN}\n"
    yield Host(start_daemon(sandbox=docker_sandbox, config=config), base_image)
    docker_sandbox.remove_containers()


class Client:
    """What the document's tests do with `requests`."""

    def __init__(self, daemon) -> None:
        self.base = f"http://127.0.0.1:{daemon.port}"

    def ask(self, method: str, path: str, body=None) -> tuple[int, str, bytes]:
        """Return status, media type and body."""
        data = None if body is None else json.dumps(body).encode()
        url = path if path.startswith("http") else self.base + path
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["Content-Type"], error.read()

    def json(self, method: str, path: str, body=None) -> tuple[int, dict]:
        status, _, content = self.ask(method, path, body)
        return status, json.loads(content)

    def schedule(self, prompt: str) -> str:
        status, said = self.json("POST", "/schedule", {"prompt": prompt})
        assert (status, said["status"]) == (200, "scheduled")
        return said["job_id"]


def test_what_the_document_tests_holds(host, eventually):
    client = Client(host.daemon)
    assert client.json("GET", "/")[0] == 200
    job_id = client.schedule("echo Hello World")

    done = eventually(
        lambda: (said := client.json("GET", f"/status/{job_id}")[1])["status"] == "complete" and said,
        limit_s=COMPLETE_S,
        what="the end of the job",
    )
    status, kind, content = client.ask("GET", f"/download/{job_id}")
    assert (status, kind) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        result = json.loads(archive.read("result.json"))
    assert set(result) >= {"task", "analysis", "shell_results", "python_results", "status"}
    assert (result["task"], result["status"]) == ("echo Hello World", "complete")
    assert client.ask("GET", done["download_link"])[0] == 200
    status, said = client.json("GET", done["logs_link"])
    assert status == 200
    assert "hello" in said["last_1000_lines"].lower()
    assert f"Starting agent for job {job_id} with prompt: echo Hello World" in said["last_1000_lines"]
    assert client.ask("GET", said["full_log"])[2].decode() == said["last_1000_lines"]

    other = client.schedule("echo cancel me")
    for _ in range(2):
        status, said = client.json("POST", f"/cancel/{other}")
        assert (status, said["job_id"], type(said["cancelled"])) == (200, other, bool)
    for path in ("/status", "/logs", "/download"):
        status, said = client.json("GET", f"{path}/not-a-uuid")
        assert (status, said["error"]) == (400, "Invalid job_id format (must be UUID)")
        status, said = client.json("GET", f"{path}/{uuid.uuid4()}")
        assert status == 404
        assert said["error"]
    assert [one["job_id"] for one in client.json("GET", "/jobs")[1]["jobs"]] == [job_id, other]


def test_a_job_is_submitted_watched_and_collected_from_a_terminal(host, tmp_path, eventually):
    image = ("--image", host.image)
    report = ("--file", "examples/jobs/report.yaml", "--model", "script/report.yaml", "--download", f"{tmp_path}/out/")
    out, err = host.ctl("jobs", "submit", *report, "Write a report")
    assert out
    for step in ("--- analysis ---", "> shell_command ", "> python_code ", "--- result ---", "--- completed in "):
        assert step in err
    [archive] = (tmp_path / "out").iterdir()
    with zipfile.ZipFile(archive) as found:
        assert {"result.json", "letters.txt", "report.md"} <= set(found.namelist())

    program = "echo out; echo err >&2; exit 3"
    out, err = host.ctl("jobs", "submit", *image, "--wait", "x", "--", "sh", "-c", program, code=3)
    assert (out, "\nerr\n" in err) == ("out\n", True)
    assert "its program ended with 3" in err

    slow = host.ctl("jobs", "submit", "-q", *image, "x", "--", "sh", "-c", "echo begun; echo aside >&2; sleep 60")[0]
    follower = begin(host, "jobs", "logs", "--follow", slow[:8])
    assert (follower.stdout.readline(), follower.stderr.readline()) == ("begun\n", "aside\n")
    assert re.search(rf"^{slow[:8]} .* running ", host.ctl("jobs", "list")[0], re.MULTILINE)
    assert "is running" in host.ctl("jobs", "rm", "--force", slow.strip(), code=4)[1]
    host.ctl("jobs", "cancel", "--kill", slow[:8])
    assert follower.wait(20) == 0
    eventually(lambda: "Status:    cancelled" in host.ctl("jobs", "show", slow[:8])[0])
    assert host.ctl("jobs", "rm", "--force", slow[:8])[0] == f"Job {slow[:8]} removed\n"

    waiting = begin(host, "jobs", "submit", *image, "--wait", "x", "--", "sh", "-c", "echo begun; sleep 60")
    assert waiting.stdout.readline() == "begun\n"
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(20) == 130
    running = host.ctl("jobs", "list", "--status", "running", "-q")[0].split()
    assert f"the job goes on: agentainerctl runs attach {running[0]}" in waiting.stderr.read()
    host.ctl("jobs", "cancel", "--kill", *running)


def begin(host, *words):
    """Start agentainerctl and leave it running."""
    command = [sys.executable, "-m", "agentainerctl", "--host", f"unix://{host.daemon.control_socket}", *words]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
