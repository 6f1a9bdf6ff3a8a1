"""The end of a job told to a server of the user's, through the end of a daemon; and jobs that are made from templates."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from gevent.pywsgi import WSGIServer
from standardwebhooks import Webhook

pytestmark = [pytest.mark.docker, pytest.mark.redis]

EXAMPLES = Path(__file__).parents[2] / "examples" / "templates"


class Receiver:
    """Says 503 until it is told to take what comes."""

    def __init__(self) -> None:
        self.takes = False
        self.told: list[tuple[dict[str, str], bytes]] = []
        self.server = WSGIServer(("127.0.0.1", 0), self._serve, log=None)
        self.server.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def _serve(self, environ, start_response):
        names = {name[5:].replace("_", "-").lower(): text for name, text in environ.items() if name.startswith("HTTP_")}
        self.told.append((names, environ["wsgi.input"].read()))
        start_response("204 No Content" if self.takes else "503 Not yet", [])
        return []


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.stop(timeout=0.1)


def test_the_end_of_a_job_from_a_template_is_told_by_the_next_daemon(
    start_daemon, docker_sandbox, base_image, receiver, eventually, tmp_path
):
    shutil.copytree(EXAMPLES, tmp_path / "templates")
    command = ["sh", "-c", 'printf "%s|%s" "$JOB_PROMPT" "$WHAT"']
    template = {"prompt": "say ${what}", "parameters": {"what": {}}, "image": base_image, "env": {"WHAT": "${what}"}}
    (tmp_path / "templates" / "say.yaml").write_text(json.dumps(template | {"command": command}))
    config = f"jobs: {{templates_dir: {tmp_path}/templates, max_running: 2}}\n"
    daemon = start_daemon(sandbox=docker_sandbox, config=config)
    what = "\"hi\" $(id) ${what}\n'there'"
    body = {"template": {"name": "say", "parameters": {"what": what}}, "webhook": {"url": receiver.url}}

    example = {"template": {"name": "csv-to-json", "parameters": {"file": "people.csv"}}, "image": base_image}
    files = [{"name": "people.csv", "content": base64.b64encode(b"name,age\nAda,36\n").decode()}]
    elsewhere = example | {"files": files, "webhook": {"url": "http://169.254.169.254/"}}
    refused = daemon.control("POST", "/api/v1/jobs", elsewhere)[1]["data"]["id"]
    status, answer = daemon.control("POST", "/api/v1/jobs", body)
    assert status == 202, answer
    job_id, secret = answer["data"]["id"], answer["data"]["webhook"]["secret"]

    def shown(job_id: str = job_id) -> dict:
        return daemon.control("GET", f"/api/v1/jobs/{job_id}")[1]["data"]["webhook"]

    eventually(lambda: shown(job_id)["attempts"] == shown(refused)["attempts"] == 1, limit_s=30)
    assert (shown()["state"], shown()["last_error"]) == ("pending", "it answered 503 Service Unavailable")
    assert "secret" not in shown()

    daemon.kill()
    receiver.takes = True
    daemon = start_daemon(like=daemon, sandbox=docker_sandbox)

    eventually(lambda: shown()["state"] == "delivered", limit_s=30)
    fields, told = receiver.told[-1]
    message = Webhook(secret).verify(told, fields)
    assert (message["type"], message["data"]["id"], message["data"]["template"]) == ("job.completed", job_id, "say")
    assert message["data"]["output"] == f"say {what}|{what}"
    assert {head["webhook-id"] for head, _ in receiver.told} == {f"msg_{job_id}"}
    assert secret not in json.dumps(daemon.control("GET", "/api/v1/jobs")[1])
    assert secret not in daemon.log

    count = len(receiver.told)
    assert daemon.control("POST", f"/api/v1/jobs/{job_id}/webhook/retry", {})[0] == 202
    eventually(lambda: len(receiver.told) == count + 1 and shown()["state"] == "delivered", limit_s=30)
    listed = daemon.control("GET", "/api/v1/jobs?webhook=dead")[1]["data"]
    assert [job["id"] for job in listed] == [refused]
    assert "169.254.169.254 is in 169.254.0.0/16 (jobs.webhook_refuse: metadata)" in listed[0]["webhook"]["last_error"]
    _, rows = daemon.control("GET", f"/api/v1/jobs/{refused}/artifacts/rows.json")
    assert rows == [{"name": "Ada", "age": "36"}]
    docker_sandbox.remove_containers()
