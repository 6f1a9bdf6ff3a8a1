"""Passphrases: what they open, and that nothing is opened or believed without them."""

import pytest

from agentainerd.errors import AgentainerError, Forbidden, InvalidParameter
from agentainerd.model.backups import Sealed
from agentainerd.services.backup_secrets import BackupKey, check_passphrase, seal, unseal

ID, OTHER = "backup-1763712345-3fa91c", "backup-1763712345-3fa91d"
PASSPHRASE = "correct horse battery"


@pytest.fixture(scope="module")
def sealed():
    return seal(PASSPHRASE, ID, b"hush-hush")


def test_what_is_sealed_opens_with_its_passphrase(sealed):
    made, _ = sealed

    data, key = unseal(PASSPHRASE, ID, made)

    assert data == b"hush-hush"
    assert key.open(key.seal(b"x", "request 0"), "request 0") == b"x"


def test_nothing_else_opens_it(sealed):
    made, key = sealed

    for passphrase, backup_id in (("correct horse batterz", ID), (PASSPHRASE, OTHER)):
        with pytest.raises(Forbidden) as failure:
            unseal(passphrase, backup_id, made)
        assert failure.value.code == "BACKUP_PASSPHRASE"
    piece = key.seal(b"x", "request 0")
    for data, what in ((piece, "request 1"), (piece[:-1] + bytes([piece[-1] ^ 1]), "request 0"), (b"", "request 0")):
        with pytest.raises(Forbidden):
            key.open(data, what)


def test_the_same_twice_is_not_the_same(sealed):
    _, key = sealed

    assert key.seal(b"x", "a") != key.seal(b"x", "a")
    assert seal(PASSPHRASE, ID, b"x")[0].salt != seal(PASSPHRASE, ID, b"x")[0].salt


def test_a_signature_is_of_one_checksum(sealed):
    _, key = sealed
    key.check("0" * 64, key.sign("0" * 64))

    for signature in (key.sign("1" * 64), "", "x"):
        with pytest.raises(AgentainerError) as failure:
            key.check("0" * 64, signature)
        assert failure.value.code == "BACKUP_DAMAGED"


@pytest.mark.parametrize(
    "changes",
    [{"n": 2**40}, {"n": 0}, {"n": 3}, {"r": 10**6}, {"r": 0}, {"p": 10**6}, {"p": 0}, {"n": 2**17, "r": 16, "p": 16}, {"salt": "%"}],
)  # fmt: skip
def test_a_stranger_does_not_decide_how_much_a_key_costs(changes):
    fields = {"salt": "AAAA", "n": 2**14, "r": 8, "p": 1, "data": ""} | changes

    with pytest.raises(AgentainerError) as failure:
        BackupKey(PASSPHRASE, ID, Sealed(**fields))

    assert failure.value.code == "BACKUP_DAMAGED"


@pytest.mark.parametrize("passphrase", ["", "short", "x" * 1025])
def test_a_passphrase_has_a_length(passphrase):
    with pytest.raises(InvalidParameter):
        check_passphrase(passphrase)
