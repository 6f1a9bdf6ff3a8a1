"""The real image in a real container, as hardened as agents are."""

import http.client
import json
import time

import pytest

pytestmark = [pytest.mark.docker]
IDLE_BYTES = 70_000_000
READY_S = 1.5


@pytest.fixture
def container(docker_client, docker_sandbox, docker_engine, runtime_image):
    host = docker_client.create_host_config(
        network_mode=docker_sandbox.network, read_only=True, tmpfs={"/tmp": "rw"}, cap_drop=["ALL"],
        security_opt=["no-new-privileges"], pids_limit=256,
    )  # fmt: skip
    environment = {"AGENT_MODEL": "script/echo.yaml", "GITHUB_TOKEN": "ghp_nobody-sees-this"}
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


def test_it_is_ready_soon_small_and_keeps_its_secrets(container, docker_client, docker_sandbox, eventually):
    began = time.monotonic()
    address = docker_client.inspect_container(container)["NetworkSettings"]["Networks"][docker_sandbox.network][
        "IPAddress"
    ]

    def pings():
        try:
            return json.loads(ask(address, "GET", "/ping"))
        except OSError:
            return None

    assert eventually(pings, limit_s=10)["model"] == "script/echo.yaml"
    assert time.monotonic() - began < READY_S
    assert "You" in ask(address, "POST", "/invocations", {"prompt": "hello"})
    assert docker_client.stats(container, stream=False)["memory_stats"]["usage"] < IDLE_BYTES
    assert inside(docker_client, container, "id", "-un").strip() == "agent"
    assert "Read-only" in inside(docker_client, container, "touch", "/opt/x")
    assert "Permission denied" in inside(docker_client, container, "cat", "/proc/1/environ")
    docker_client.stop(container, timeout=12)
    assert docker_client.inspect_container(container)["State"]["ExitCode"] == 0
