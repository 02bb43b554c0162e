"""A key pair, the id that it makes, and what its signature proves."""

from __future__ import annotations

from hashlib import sha256

import pytest
from tests.maia.keys import key_of

from maia.errors import MisuseError
from maia.identity import NODE_ID_BYTES, PRIVATE_KEY_BYTES, PUBLIC_KEY_BYTES, SIGNATURE_BYTES, KeyPair, is_signed, node_id_of

ALICE, MALLORY = key_of("alice"), key_of("mallory")


def test_an_id_is_made_of_the_public_key_alone() -> None:
    again = KeyPair(sha256(b"alice").digest())
    assert node_id_of(ALICE.public_key) == node_id_of(again.public_key) != node_id_of(MALLORY.public_key)
    assert len(bytes.fromhex(node_id_of(ALICE.public_key))) == NODE_ID_BYTES


def test_a_signature_proves_who_signed_what() -> None:
    signature = ALICE.sign(b"a statement")
    assert (len(ALICE.public_key), len(signature)) == (PUBLIC_KEY_BYTES, SIGNATURE_BYTES)
    assert is_signed(b"a statement", ALICE.public_key, signature)
    assert not is_signed(b"another statement", ALICE.public_key, signature)
    assert not is_signed(b"a statement", MALLORY.public_key, signature)
    assert not is_signed(b"a statement", ALICE.public_key, bytes(SIGNATURE_BYTES))


@pytest.mark.parametrize("key", [b"", b"short", bytes(PUBLIC_KEY_BYTES), b"\xff" * PUBLIC_KEY_BYTES])
def test_a_key_that_is_none_has_signed_nothing(key: bytes) -> None:
    assert not is_signed(b"a statement", key, ALICE.sign(b"a statement"))


def test_a_private_key_is_never_shown() -> None:
    private = bytes(range(PRIVATE_KEY_BYTES))
    pair = KeyPair(private)
    assert private.hex() not in repr(pair)
    assert repr(private)[2:-1] not in repr(pair)
    with pytest.raises(MisuseError, match="has 32 bytes; this one has 6") as refusal:
        KeyPair(b"secret")
    assert "secret" not in str(refusal.value)
