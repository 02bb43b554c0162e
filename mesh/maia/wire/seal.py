"""Gossip under AES-GCM, as memberlist seals it: version, nonce of twelve bytes, ciphertext, tag of sixteen.

A datagram is the sealed bytes alone. A stream is `0a`, the length, and the sealed bytes, which vouch for the five before them as well. The
primary key seals; all keys of the ring open, in their order. Who holds a key can say anything in anybody's name, and say it again: the
seal keeps strangers out, and proves nothing about members.

Nonces are random (NIST SP 800-38D, §8.2.2): one key seals 2**32 messages and is then to be replaced. A thousand idle nodes take ten days.
"""

from __future__ import annotations

from typing import Final

from maia.config import Random
from maia.errors import DatagramRejected
from maia.keyring import Keyring

ENCRYPT: Final = 10
LABEL: Final = 244  # outermost where memberlist is told to keep clusters apart by a name; we have keys and cluster ids for that
VERSION_PADDED: Final = 0  # memberlist's first: padded to the block size as AES-CBC would be; read and never written
VERSION: Final = 1
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
BLOCK_BYTES: Final = 16
SEAL_OVERHEAD: Final = 1 + NONCE_BYTES + TAG_BYTES
STREAM_HEADER_BYTES: Final = 5

# Pings begin like a version byte does, but go on with a map, whose keys are names.
_PING_TYPES: Final = (0, 1)
_PING_KEY: Final = b"SeqNo"


class Sealer:
    """One keyring at work. Sealing takes a nonce from `random`, which must be a good one wherever packets are real."""

    def __init__(self, keyring: Keyring, *, random: Random) -> None:
        # Ten megabytes and thirty milliseconds, only for those who have keys.
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self.keyring = keyring
        self.fingerprints = keyring.fingerprints
        self._random = random
        self._invalid = InvalidTag
        self._ciphers = [AESGCM(key) for key in keyring.keys]

    def seal(self, plaintext: bytes, *, vouched: bytes = b"", place: int = 0) -> bytes:
        """`SEAL_OVERHEAD` bytes more than `plaintext`, which only whoever has the key and the same `vouched` bytes can open.

        The key is the primary, or the one at another `place` of the ring.
        """
        nonce = self._random.randrange(2 ** (8 * NONCE_BYTES)).to_bytes(NONCE_BYTES, "big")
        return b"\x01" + nonce + self._ciphers[place].encrypt(nonce, plaintext, vouched)

    def open(self, sealed: bytes, *, vouched: bytes = b"") -> bytes:
        """Raises `DatagramRejected`: `plaintext` where nobody sealed it, `undecryptable` where no key of ours opens it.

        `labelled` where it bears a label, under which it may well be sealed.
        """
        if sealed and sealed[0] == LABEL:
            raise DatagramRejected("labelled")
        if len(sealed) < SEAL_OVERHEAD or sealed[0] not in (VERSION_PADDED, VERSION):
            raise DatagramRejected("plaintext")
        nonce, rest = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        for cipher in self._ciphers:
            try:
                plaintext = cipher.decrypt(nonce, rest, vouched)
            except self._invalid:
                continue
            return plaintext if sealed[0] == VERSION else _unpadded(plaintext)
        raise DatagramRejected("plaintext" if _is_ping(sealed) else "undecryptable")

    def seal_stream(self, plaintext: bytes, *, place: int = 0) -> bytes:
        """A whole side of a stream."""
        header = bytes((ENCRYPT,)) + (len(plaintext) + SEAL_OVERHEAD).to_bytes(4, "big")
        return header + self.seal(plaintext, vouched=header, place=place)


def seems_sealed(datagram: bytes) -> bool:
    """Whether a datagram that could not be read was probably sealed by somebody: for a node without keys, which can only guess."""
    return len(datagram) > SEAL_OVERHEAD and datagram[0] in (VERSION_PADDED, VERSION) and not _is_ping(datagram)


def _is_ping(datagram: bytes) -> bool:
    return datagram[0] in _PING_TYPES and _PING_KEY in datagram


def _unpadded(plaintext: bytes) -> bytes:
    padding = plaintext[-1] if plaintext else 0
    if not 0 < padding <= BLOCK_BYTES or len(plaintext) % BLOCK_BYTES:
        raise DatagramRejected("bad-padding")
    return plaintext[:-padding]
