"""The jobs of a real daemon over its control socket."""

import base64
from pathlib import Path

import docker

from tests.fakes.daemons import UnixConnection

SHELL = ["/bin/sh", "-c"]


class Jobs:
    """The jobs of one daemon over its control socket."""

    def __init__(self, daemon, image: str) -> None:
        self.daemon = daemon
        self.image = image

    def ask(self, method: str, path: str, body=None):
        return self.daemon.control(method, f"/api/v1/jobs{path}", body)

    def must(self, method: str, path: str, body=None):
        status, answer = self.ask(method, path, body)
        assert status in (200, 202), answer
        return answer["data"]

    def submit(self, script: str, prompt: str = "do it", **more) -> dict:
        body = {"prompt": prompt, "image": self.image, "command": [*SHELL, script], **more}
        return self.must("POST", "", body)

    def get(self, job_id: str, wait: float = 0) -> dict:
        return self.must("GET", f"/{job_id}" + (f"?wait={wait}" if wait else ""))

    def done(self, job_id: str, limit_s: float = 60) -> dict:
        job = self.get(job_id, wait=limit_s)
        assert job["finished_at"], (job, self.daemon.tail())
        return job

    def log(self, job_id: str, stream: str = "stdout") -> str:
        return self.must("GET", f"/{job_id}/logs")[stream]

    def events(self, job_id: str) -> list[dict]:
        _, answer = self.ask("GET", f"/{job_id}/events?limit=1000")
        return [each["event"] for each in answer["data"]]

    def file(self, name: str, content: bytes) -> dict:
        return {"name": name, "content": base64.b64encode(content).decode()}

    def download(self, job_id: str, target: Path) -> int:
        connection = UnixConnection(str(self.daemon.control_socket))
        connection.request("GET", f"/api/v1/jobs/{job_id}/download")
        answer = connection.getresponse()
        target.write_bytes(answer.read())
        connection.close()
        return answer.status

    def follow(self, job_id: str) -> str:
        """Read what it writes on standard output until it is over."""
        connection = UnixConnection(str(self.daemon.control_socket))
        connection.request("GET", f"/api/v1/jobs/{job_id}/logs?stream=stdout&follow=1")
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def is_ready(self, container_id: str) -> bool:
        _, answer = self.daemon.control("GET", "/agents?ephemeral=true")
        return any(agent["ready"] for agent in answer["data"] if container_id.startswith(agent["container_id"]))

    def output(self, job_id: str) -> Path:
        return self.daemon.state_dir / "jobs" / job_id / "workspace" / "output"

    def containers(self) -> list[str]:
        client = docker.APIClient(version="auto")
        try:
            found = client.containers(all=True, filters={"label": "agentainer.workspace"})
            return [
                one["Id"]
                for one in found
                if one["Labels"]["agentainer.workspace"].startswith(str(self.daemon.state_dir))
            ]
        finally:
            client.close()
