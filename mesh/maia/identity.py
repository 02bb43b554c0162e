"""Who a node is: an Ed25519 key pair, and an id that is a hash of the public key. Pure.

So a signature proves the id without anyone's help: the public key travels with what it signed, and whoever knows the id hashes the key. A
key pair never shows its private half: not in `repr`, not in errors.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Final, Protocol

from maia.errors import MisuseError

PRIVATE_KEY_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
# A second key with somebody's id takes 2**128 tries. Two own keys with one id take 2**64, and deceive nobody about anybody else. The id
# travels with every alive message, in hexadecimal, so twice as many bytes would be missing there.
NODE_ID_BYTES: Final = 16
_NODE_ID_DOMAIN: Final = b"maia node id 1\0"
# Never more than a few hundred bytes each. A node checks an entry once; simulated nodes that share a process check each other's anew.
_VERDICTS_KEPT: Final = 4096


class Signer(Protocol):
    """Whoever holds the private key. The pure rooms are handed one and see of it only this."""

    @property
    def public_key(self) -> bytes: ...
    def sign(self, statement: bytes, /) -> bytes: ...


class KeyPair:
    """A `Signer` from the 32 bytes of a private key. Raises `MisuseError` for any other number of bytes."""

    __slots__ = ("_private", "public_key")

    def __init__(self, private_key: bytes) -> None:
        # Eight megabytes, which a command that only asks a node need not spend.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if len(private_key) != PRIVATE_KEY_BYTES:
            raise MisuseError(f"a private key has {PRIVATE_KEY_BYTES} bytes; this one has {len(private_key)}")
        self._private = Ed25519PrivateKey.from_private_bytes(private_key)
        self.public_key = self._private.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"KeyPair(<{node_id_of(self.public_key)}>)"

    def sign(self, statement: bytes, /) -> bytes:
        return self._private.sign(statement)


@lru_cache(maxsize=_VERDICTS_KEPT)
def node_id_of(public_key: bytes) -> str:
    return sha256(_NODE_ID_DOMAIN + public_key).hexdigest()[: 2 * NODE_ID_BYTES]


@lru_cache(maxsize=_VERDICTS_KEPT)
def is_signed(statement: bytes, public_key: bytes, signature: bytes) -> bool:
    """Whether the holder of that key signed these bytes. A verdict on short statements is remembered with them, so keep them short."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, statement)
    except (InvalidSignature, ValueError):  # a wrong signature; a key of another length
        return False
    return True
