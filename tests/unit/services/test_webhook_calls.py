"""One call to a receiver: real sockets, real certificates; names and times are the only things that are made up."""

import datetime
import ipaddress
import ssl
import time
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from gevent import socket
from gevent.server import StreamServer

from agentainerd import defaults
from agentainerd.services import webhook_calls
from agentainerd.services.webhook_calls import Answer, NotTold, Refused, WebhookCaller

OK = b"HTTP/1.1 204 No Content\r\n\r\n"


def anywhere(address: str, port: int, path: str) -> str:
    return ""


class Receiver:
    """Answers every call with the same bytes, or leaves that to a function; keeps what it was sent."""

    def __init__(self, answer, **tls) -> None:
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self._answer = answer
        self.server = StreamServer(("127.0.0.1", 0), self._serve, **tls)
        self.server.start()
        self.port = self.server.server_port

    def _serve(self, sock: socket.socket, address: object) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = sock.recv(65536)
            if not piece:
                return
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))[15:])
        while len(body) < length:
            body += sock.recv(65536)
        self.heads.append(head)
        self.bodies.append(body)
        if callable(self._answer):
            self._answer(sock)
        else:
            sock.sendall(self._answer)


@pytest.fixture
def receiver() -> Iterator:
    started: list[Receiver] = []

    def start(answer=OK, **tls) -> Receiver:
        started.append(Receiver(answer, **tls))
        return started[-1]

    yield start
    for each in started:
        each.server.stop(timeout=0.1)


def post(url: str, body: bytes = b"{}", judge=anywhere, **headers: str) -> Answer:
    return WebhookCaller().post(url, body, headers, judge)


def test_a_message_arrives_as_it_was_sent(receiver):
    place = receiver()

    answer = post(f"http://127.0.0.1:{place.port}/a%20b?c=d", b'{"a":1}' * 20_000, **{"webhook-id": "msg_1"})

    assert answer == Answer(204)
    assert place.bodies == [b'{"a":1}' * 20_000]
    lines = place.heads[0].decode().split("\r\n")
    assert lines[0] == "POST /a%20b?c=d HTTP/1.1"
    assert f"Host: 127.0.0.1:{place.port}" in lines
    assert "webhook-id: msg_1" in lines
    assert "Content-Type: application/json" in lines


@pytest.mark.parametrize("host", ["localhost", "[::ffff:127.0.0.1]"])
def test_hosts_are_names_and_addresses_of_both_kinds(receiver, host):
    place = receiver()

    assert post(f"http://{host}:{place.port}/").status == 204
    assert f"Host: {host}:{place.port}".encode() in place.heads[0]


@pytest.mark.parametrize(
    ("answer", "status", "retry_after_s", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, 0.0, "it answered 200 OK"),
        (b"HTTP/1.0 500 Oops\r\n\r\n", 500, 0.0, "it answered 500 Internal Server Error"),
        (b"HTTP/1.1 299 Fine\r\n\r\n", 299, 0.0, "it answered 299"),
        (b"HTTP/1.1 302 x\r\nLocation: http://127.0.0.1:1/\r\n\r\n", 302, 0.0, "it answered 302 Found, and redirects are not followed"),
        (b"HTTP/1.1 503 x\r\nRetry-After: 120\r\n\r\n", 503, 120.0, "it answered 503 Service Unavailable"),
        (b"HTTP/1.1 503 x\r\nRetry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\n", 503, 0.0, "it answered 503 Service Unavailable"),
        (b"HTTP/1.1 503 x\r\nRetry-After: soon\r\n\r\n", 503, 0.0, "it answered 503 Service Unavailable"),
        (b"HTTP/1.1 503 x\r\nRetry-After: -5\r\n\r\n", 503, 0.0, "it answered 503 Service Unavailable"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 204, 0.0, "it answered 204 No Content"),
    ],
)  # fmt: skip
def test_of_an_answer_its_status_counts_and_when_to_come_back(receiver, answer, status, retry_after_s, reason):
    found = post(f"http://127.0.0.1:{receiver(answer).port}/")

    assert (found.status, found.retry_after_s, found.reason) == (status, retry_after_s, reason)


def test_a_date_says_when_to_come_back_too():
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(1_000_060))

    assert webhook_calls._seconds(later, 1_000_000.0) == 60.0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "it closed the connection without an answer"),
        (b"HELLO\r\n\r\n", "its answer is no HTTP (BadStatusLine)"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n", "its answer is no HTTP (HTTPException)"),
    ],
)
def test_what_is_no_answer_is_told(receiver, answer, reason):
    with pytest.raises(NotTold) as failure:
        post(f"http://127.0.0.1:{receiver(answer).port}/")

    assert failure.value.reason == reason


def test_a_receiver_that_trickles_is_left_when_its_time_is_over(receiver, monkeypatch):
    def trickle(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n")
        for _ in range(1000):
            sock.sendall(b"x: y\r\n")
            sock.recv(0)
            time.sleep(0.01)

    monkeypatch.setattr(defaults, "WEBHOOK_TIMEOUT_S", 0.2)
    started = time.monotonic()

    with pytest.raises(NotTold, match="no answer within"):
        post(f"http://127.0.0.1:{receiver(trickle).port}/")

    assert time.monotonic() - started < 2


def test_a_long_answer_is_not_read_to_its_end(receiver):
    sent = []

    def flood(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while sum(sent) < 64 * 2**20:
                sent.append(sock.send(b"x" * 65536))
        except OSError:
            pass

    assert post(f"http://127.0.0.1:{receiver(flood).port}/").status == 200
    assert sum(sent) < 64 * 2**20


def test_nobody_there_is_told(receiver):
    place = receiver()
    place.server.stop()

    with pytest.raises(NotTold, match="connection refused"):
        post(f"http://127.0.0.1:{place.port}/")


def test_a_name_that_nobody_knows_is_told():
    with pytest.raises(NotTold, match=r"the name nowhere\.invalid is not known"):
        post("http://nowhere.invalid/")


def test_what_is_refused_is_not_connected_to(receiver):
    place = receiver()

    with pytest.raises(Refused) as failure:
        post(
            f"http://127.0.0.1:{place.port}/x",
            judge=lambda address, port, path: f"{address}:{port}{path} is not for you",
        )

    assert f"127.0.0.1:{place.port}/x is not for you" in failure.value.reason
    assert place.heads == []


def test_only_the_address_that_was_judged_is_connected_to(receiver, monkeypatch):
    """A name that means another address the next time it is asked for (DNS rebinding) leads nowhere else."""
    place = receiver()
    asked = []

    def resolve(host: str, port: int, *how: object, real=socket.getaddrinfo, **more: object) -> list:
        if host[0].isdigit():
            return real(host, port, *how, **more)
        asked.append(host)
        return [(2, 1, 6, "", ("169.254.169.254", port)), (2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(webhook_calls.socket, "getaddrinfo", resolve)
    post(f"http://hook.example:{place.port}/", judge=lambda address, *rest: "no" if address.startswith("169") else "")

    assert asked == ["hook.example"]
    assert f"Host: hook.example:{place.port}".encode() in place.heads[0]


@pytest.fixture
def certificate(tmp_path):
    """Return a function that makes a certificate for a name or address, and returns the files of it and its key."""

    def make(name: str) -> tuple[str, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver")])
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        (tmp_path / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (tmp_path / "key.pem").write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
        return str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")

    return make


def server_context(files: tuple[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*files)
    return context


def test_certificates_are_checked(receiver, certificate, monkeypatch):
    files = certificate("127.0.0.1")
    place = receiver(ssl_context=server_context(files))

    with pytest.raises(NotTold, match="its certificate is not good: self-signed certificate"):
        post(f"https://127.0.0.1:{place.port}/")
    monkeypatch.setenv("SSL_CERT_FILE", files[0])
    assert post(f"https://127.0.0.1:{place.port}/").status == 204

    assert len(place.heads) == 1


def test_a_certificate_of_somebody_else_is_not_good(receiver, certificate, monkeypatch):
    files = certificate("127.0.0.2")
    place = receiver(ssl_context=server_context(files))
    monkeypatch.setenv("SSL_CERT_FILE", files[0])

    with pytest.raises(NotTold, match="its certificate is not good: IP address mismatch"):
        post(f"https://127.0.0.1:{place.port}/")


def test_https_to_who_speaks_none_is_told():
    server = StreamServer(("127.0.0.1", 0), lambda sock, address: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    server.start()

    with pytest.raises(NotTold, match="it does not speak TLS"):
        post(f"https://127.0.0.1:{server.server_port}/")

    server.stop()


def test_an_answer_may_take_longer_than_a_connection(receiver, monkeypatch):
    monkeypatch.setattr(defaults, "WEBHOOK_CONNECT_TIMEOUT_S", 0.05)

    def slow(sock: socket.socket) -> None:
        time.sleep(0.2)
        sock.sendall(OK)

    assert post(f"http://127.0.0.1:{receiver(slow).port}/").status == 204
