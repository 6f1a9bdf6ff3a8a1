"""The real image in a real container, as hardened as agents are."""

import http.client
import json
import time

import pytest

pytestmark = [pytest.mark.docker]
IDLE_BYTES = 70_000_000
READY_S = 1.5


@pytest.fixture
def start(docker_client, docker_sandbox, docker_engine, runtime_image):
    """`start()`: another container; all are removed in the end."""
    host = docker_client.create_host_config(
        network_mode=docker_sandbox.network, read_only=True, tmpfs={"/tmp": "rw"}, cap_drop=["ALL"],
        security_opt=["no-new-privileges"], pids_limit=256,
    )  # fmt: skip
    environment = {"AGENT_MODEL": "script/echo.yaml", "GITHUB_TOKEN": "ghp_nobody-sees-this"}
    made = []

    def begin():
        made.append(docker_client.create_container(runtime_image, environment=environment, host_config=host)["Id"])
        docker_client.start(made[-1])
        return made[-1]

    yield begin
    for each in made:
        docker_client.remove_container(each, force=True, v=True)


@pytest.fixture
def job_container(docker_client, docker_sandbox, docker_engine, runtime_image):
    """One as jobs get it, without a model; its workspace has 2 MiB."""
    host = docker_client.create_host_config(
        network_mode=docker_sandbox.network, read_only=True, tmpfs={"/tmp": "rw", "/workspace": "rw,size=2m,uid=1000"},
        cap_drop=["ALL"], security_opt=["no-new-privileges"], pids_limit=256,
    )  # fmt: skip
    environment = {"AGENT_MODEL": "", "OPENAI_API_KEY": "sk-nobody-sees-this"}
    made = docker_client.create_container(runtime_image, environment=environment, host_config=host)["Id"]
    docker_client.start(made)
    yield made
    docker_client.remove_container(made, force=True, v=True)


def ask(address, method, path, body=None):
    connection = http.client.HTTPConnection(address, 8080, timeout=10)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def inside(client, container, *command):
    execution = client.exec_create(container, list(command))["Id"]
    return client.exec_start(execution).decode()


def test_it_is_ready_soon_small_and_keeps_its_secrets(start, docker_client, docker_sandbox, eventually):
    """Soon: the quickest of three, because what else this machine does costs time too."""
    took_s = []
    while not took_s or (took_s[-1] >= READY_S and len(took_s) < 3):
        container = start()
        began = time.monotonic()
        networks = docker_client.inspect_container(container)["NetworkSettings"]["Networks"]
        address = networks[docker_sandbox.network]["IPAddress"]

        def pings(address=address):
            try:
                return json.loads(ask(address, "GET", "/ping"))
            except OSError:
                return None

        assert eventually(pings)["model"] == "script/echo.yaml"
        took_s.append(time.monotonic() - began)
    assert took_s[-1] < READY_S, took_s
    assert "You" in ask(address, "POST", "/invocations", {"prompt": "hello"})
    assert docker_client.stats(container, stream=False)["memory_stats"]["usage"] < IDLE_BYTES
    assert inside(docker_client, container, "id", "-un").strip() == "agent"
    assert "Read-only" in inside(docker_client, container, "touch", "/opt/x")
    assert "Permission denied" in inside(docker_client, container, "cat", "/proc/1/environ")
    docker_client.stop(container, timeout=12)
    assert docker_client.inspect_container(container)["State"]["ExitCode"] == 0


FILLING = {
    "actions": [
        {"type": "python_code", "code": "print('x' * 900_000)", "output_file": "all.txt"},
        {"type": "shell_command", "command": "head -c 9M /dev/zero > rest"},
    ]
}


def test_a_job_is_in_the_container_s_logs_and_one_that_fills_the_disk_leaves_its_result(
    job_container, docker_client, docker_sandbox, eventually
):
    networks = docker_client.inspect_container(job_container)["NetworkSettings"]["Networks"]
    address = networks[docker_sandbox.network]["IPAddress"]

    def pings():
        try:
            return ask(address, "GET", "/ping")
        except OSError:
            return None

    def do(job, prompt, model=None):
        given = {"id": job, "attempt": 1, "output_dir": "/workspace/output"}
        said = ask(
            address, "POST", "/invocations", {"prompt": prompt, "forwardedProps": {"job": given, "model": model}}
        )
        return json.loads(said.splitlines()[-3].removeprefix("data: "))

    def result():
        return json.loads(inside(docker_client, job_container, "cat", "/workspace/output/result.json"))

    eventually(pings, limit_s=30)
    assert do("job-1", "echo Hello World")["type"] == "RUN_FINISHED"
    assert (result()["status"], result()["model"], result()["files"]) == ("complete", "script", [])
    script = json.dumps([{"text": json.dumps(FILLING)}])
    inside(docker_client, job_container, "sh", "-c", f"cat > /workspace/fill.json <<'END'\n{script}\nEND")

    end = do("job-2", "fill it" + "!" * 20_000, "script/fill.json")

    assert (end["type"], end["code"]) == ("RUN_ERROR", "error")
    assert "no room" in end["message"] or "no space" in end["message"]
    assert (result()["status"], result()["error"]) == ("error", end["message"])
    stdout, stderr = (
        docker_client.logs(job_container, stdout=is_out, stderr=not is_out).decode() for is_out in (True, False)
    )
    assert stdout.splitlines()[:3] == [
        "Starting agent for job job-1 with prompt: echo Hello World",
        "Hello World",
        f"Starting agent for job job-2 with prompt: fill it{'!' * 1993} [... 18007 characters more]",
    ]
    assert "job job-2 ended" in stderr
    assert "Starting agent" not in stderr
