"""An image registry (API v2) on loopback, which every engine trusts without TLS: for pulls that need no internet.

It has one image, `agent:1`, of one layer with one file; `locked:1` asks for a login; all else is unknown.
"""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

from gevent.pywsgi import WSGIServer

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """The WSGI application; `blobs` by digest."""

    def __init__(self, marker: str) -> None:
        layer = _layer(f"pulled {marker}".encode())
        packed = gzip.compress(layer, mtime=0)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"ExposedPorts": {"9000/tcp": {}}},
                "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
                "history": [{"created_by": marker}],
            }
        ).encode()
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": _described("application/vnd.docker.container.image.v1+json", config),
                "layers": [_described("application/vnd.docker.image.rootfs.diff.tar.gzip", packed)],
            }
        ).encode()
        self.blobs = {digest(data): data for data in (config, packed)}

    def __call__(self, environ: dict, start_response) -> list[bytes]:
        path = environ["PATH_INFO"]
        status, kind, body = self.answer(path)
        head = [("Content-Type", kind), ("Content-Length", str(len(body)))]
        if status.startswith("200") and "/manifests/" in path:
            head.append(("Docker-Content-Digest", digest(body)))
        start_response(status, head)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def answer(self, path: str) -> tuple[str, str, bytes]:
        if path == "/v2/":
            return "200 OK", "application/json", b"{}"
        if path.startswith("/v2/locked/"):
            return "401 Unauthorized", "application/json", _error("UNAUTHORIZED", "authentication required")
        if path in ("/v2/agent/manifests/1", f"/v2/agent/manifests/{digest(self.manifest)}"):
            return "200 OK", MANIFEST_TYPE, self.manifest
        name = path.rpartition("/")[2]
        if path.startswith("/v2/agent/blobs/") and name in self.blobs:
            return "200 OK", "application/octet-stream", self.blobs[name]
        return "404 Not Found", "application/json", _error("MANIFEST_UNKNOWN", "manifest unknown")


@contextmanager
def serving(marker: str) -> Iterator[str]:
    """Serve a registry whose image is unlike all others because of `marker`; give its host:port."""
    server = WSGIServer(("127.0.0.1", 0), Registry(marker), log=None, error_log=None)
    server.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.stop(timeout=1)


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _described(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": kind, "size": len(data), "digest": digest(data)}


def _error(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


def _layer(note: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("note")
        member.size = len(note)
        archive.addfile(member, io.BytesIO(note))
    return packed.getvalue()
