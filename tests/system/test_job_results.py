"""What a job leaves, downloaded through the gateway from a real daemon: a container is root in its folder, and believed nothing."""

import hashlib
import http.client
import io
import os
import stat
import subprocess
import zipfile

import pytest

from tests.fakes.daemons import find_program
from tests.fakes.jobs import Jobs

pytestmark = [pytest.mark.docker, pytest.mark.redis]

HOSTILE = r"""
cd /workspace/output
mkdir -p deep/empty; echo fine > deep/fine; echo closed > deep/closed; chmod 0 deep/closed deep/empty
echo program > program; chmod 4755 program
mkfifo pipe; mknod null c 1 3 2>/dev/null; truncate -s 1T giant; head -c 300000 /dev/urandom > noise
ln -s /etc/shadow abs; ln -s ../../../../../../etc/shadow up; ln -s deep/fine within; ln -s deep loop; ln -s self self
printf x > "$(printf 'new\nline')"; printf x > 'a\..\..\b'; printf x > 'C:x'; printf x > "$(printf '\377')"; printf x > ' %s"$(id)'
i=0; while [ $i -lt 300 ]; do echo $i > deep/$i; i=$((i+1)); done
"""
REPORTED = {"pipe", "giant", "abs", "up"}


@pytest.fixture
def jobs(start_daemon, docker_sandbox, base_image):
    yield Jobs(start_daemon(sandbox=docker_sandbox), base_image)
    docker_sandbox.remove_containers()


class Gateway:
    """Asks over TCP, on one connection; remembers nothing."""

    def __init__(self, daemon):
        self._connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
        self._token = daemon.token

    def begin(self, method, path, **headers):
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, headers={"Authorization": f"Bearer {self._token}", **fields})
        return self._connection.getresponse()

    def ask(self, method, path, **headers):
        answer = self.begin(method, path, **headers)
        return answer.status, answer.headers, answer.read()

    def close(self):
        self._connection.close()


@pytest.fixture
def gateway(jobs):
    made = Gateway(jobs.daemon)
    yield made
    made.close()


def test_a_hostile_folder_is_a_zip_of_what_is_good_in_it(jobs, gateway, tmp_path):
    job = jobs.done(jobs.submit(HOSTILE)["id"])
    path = f"/api/v1/jobs/{job['id']}"

    status, headers, data = gateway.ask("GET", f"{path}/download")

    assert (status, headers["Content-Type"]) == (200, "application/zip")
    (tmp_path / "x.zip").write_bytes(data)
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.testzip() is None
    names = archive.namelist()
    assert {"deep/", "deep/empty/", "deep/299", "new\nline", "a%5C..%5C..%5Cb", "C%3Ax", "%FF", ' %s"$(id)'} <= set(
        names
    )
    assert archive.read("deep/closed") == b"closed\n" and archive.read("within") == b"deep/fine"
    assert stat.filemode(archive.getinfo("program").external_attr >> 16) == "-rwxr-xr-x"
    report = archive.read("agentainer-report.txt").decode()
    assert {line.partition(": ")[0] for line in report.splitlines()} >= REPORTED
    assert not {"pipe", "giant", "abs", "up", "null"} & set(names) and names[-1] == "agentainer-report.txt"
    for command in (
        [find_program("unzip"), "-tq", tmp_path / "x.zip"],
        [find_program("bsdtar"), "-tf", tmp_path / "x.zip"],
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    _, listed = jobs.ask("GET", f"/{job['id']}/artifacts?sha256=true")
    _, some = jobs.ask("GET", f"/{job['id']}/artifacts?limit=3")
    _, more = jobs.ask("GET", f"/{job['id']}/artifacts?cursor={some['next_cursor']}")
    assert some["data"]["artifacts"] + more["data"]["artifacts"] == [
        {key: value for key, value in each.items() if key != "sha256"} for each in listed["data"]["artifacts"]
    ]
    assert "next_cursor" not in listed and "next_cursor" not in more
    omitted = {each["name"] for each in listed["data"]["omitted"]}
    assert omitted >= REPORTED
    digests = {each["name"]: each.get("sha256") for each in listed["data"]["artifacts"]}
    assert digests["noise"] == hashlib.sha256(archive.read("noise")).hexdigest() and digests["deep"] is None
    assert {each["name"].rstrip("/") for each in listed["data"]["artifacts"]} == {
        name.rstrip("/") for name in names[:-1]
    }


def test_a_download_is_taken_up_where_it_broke_off_also_by_another_daemon(jobs, gateway, start_daemon, docker_sandbox):
    job = jobs.done(jobs.submit("head -c 3000000 /dev/urandom > /workspace/output/noise")["id"])
    path = f"/api/v1/jobs/{job['id']}/download"
    _, first, data = gateway.ask("GET", path)

    status, head, nothing = gateway.ask("HEAD", path)
    assert (status, nothing, head["Content-Length"], head["ETag"]) == (200, b"", str(len(data)), first["ETag"])
    assert gateway.ask("GET", path, If_None_Match=head["ETag"])[0] == 304
    assert gateway.ask("GET", path, Range="bytes=99999999-")[0] == 416
    jobs.daemon.kill()
    again = Gateway(start_daemon(like=jobs.daemon, sandbox=docker_sandbox))
    status, part, rest = again.ask("GET", path, Range="bytes=1000000-", If_Range=head["ETag"])
    again.close()

    assert status == 206 and rest == data[1_000_000:]
    assert part["Content-Range"] == f"bytes 1000000-{len(data) - 1}/{len(data)}"


def test_who_asks_first_for_the_head_and_who_leaves_in_the_middle_leave_nothing_behind(jobs, gateway, eventually):
    job = jobs.done(jobs.submit("seq 12000000 > /workspace/output/numbers")["id"])
    path, spool = f"/api/v1/jobs/{job['id']}/download", jobs.daemon.state_dir / "archives"

    status, head, nothing = gateway.ask("HEAD", path)
    assert (status, nothing, head["Content-Length"]) == (200, b"", None) and head["ETag"]
    assert gateway.ask("GET", "/health")[0] == 200  # on the same connection
    answer = gateway.begin("GET", path)
    answer.read(1000)
    assert answer.headers["ETag"] == head["ETag"]
    answer.close()
    gateway.close()

    eventually(lambda: not list(spool.iterdir()), limit_s=20, what="the end of what was begun")
    eventually(lambda: jobs.ask("DELETE", f"/{job['id']}")[0] == 200, limit_s=20, what="nobody to be downloading")


def test_a_folder_that_its_job_removed_or_made_a_link_is_a_zip_too(jobs):
    scripts = {
        "gone": "rm -rf /workspace/output",
        "link": "cd /workspace; rm -rf output; ln -s /etc output",
        "empty": "true",
    }
    ended = {name: jobs.done(jobs.submit(script)["id"])["id"] for name, script in scripts.items()}

    for name, job_id in ended.items():
        target = jobs.daemon.state_dir / f"{name}.zip"
        assert jobs.download(job_id, target) == 200
        assert zipfile.ZipFile(target).namelist() == ([] if name == "empty" else ["agentainer-report.txt"])
        assert os.path.getsize(target) == 22 or name != "empty"
        assert jobs.ask("GET", f"/{job_id}/artifacts/passwd")[0] == 404
