"""TLS to providers: what passes is what passes without it, in any size; who is not who it says is not talked to."""

import datetime
import ipaddress
import random

import openai
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from gevent import socket

from agentainerd.proxy.tls import TlsSocket
from tests.fakes.model_worlds import provider, text_of
from tests.fakes.models import MODEL, Faults, ModelServer, Turn


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> str:
    """A file with a key and a certificate for 127.0.0.1 that it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "provider")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "provider.pem"
    pem = serialization.Encoding.PEM
    raw = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(raw + made.public_bytes(pem))
    return str(file)


@pytest.fixture
def make_secure(make_models, certificate):
    """`make_secure(*turns, ca_file=...)`: models behind TLS."""
    servers = []

    def make(*turns: Turn, ca_file: str = certificate):
        server = ModelServer(turns, certificate=certificate).__enter__()
        servers.append(server)
        return make_models(providers=(provider(server, ca_file=ca_file),)), server

    yield make
    for server in servers:
        server.__exit__()


def test_streams_pass_over_one_connection_that_is_kept(make_secure):
    models, server = make_secure(
        Turn(text="🌳 und Bäume"), Turn(text="one two", faults=Faults(piece_bytes=1)), Turn(text="three")
    )

    assert text_of(models.stream()) == "🌳 und Bäume"
    assert text_of(models.stream()) == "one two"
    models.ask("three")

    assert server.connections == 1


def test_megabytes_pass_both_ways(make_secure):
    text = "".join(random.Random(7).choices("abcdefgh ", k=3_000_000))
    models, server = make_secure(Turn(text="x", deltas=(text,)))

    chunks = models.stream(messages=[{"role": "user", "content": "y" * 700_000}])

    assert text_of(chunks) == text
    assert server.received[0].body["messages"][0]["content"] == "y" * 700_000


def test_a_certificate_that_nobody_trusts_ends_it_before_the_key_is_sent(make_secure):
    models, server = make_secure(Turn(text="x"), ca_file="")

    with pytest.raises(openai.InternalServerError, match=f"fake/{MODEL} can't be reached .*certificate"):
        models.ask()

    assert server.received == []


def test_who_speaks_no_tls_or_nothing_is_given_up_on(certificate):
    import ssl

    context = ssl.create_default_context(cafile=certificate)
    for said in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b""):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.sendall(said)
        if not said:
            theirs.close()
        with pytest.raises(OSError):  # noqa: PT011 - whatever the library calls it
            TlsSocket(ours._sock, context, "127.0.0.1").handshake(2.0)
        ours.close()
        theirs.close()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with pytest.raises(TimeoutError):
        TlsSocket(ours._sock, context, "127.0.0.1").handshake(0.05)
    ours.close()
    theirs.close()
