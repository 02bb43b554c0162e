"""The keys of a cluster, as a value: the first is primary and seals, all of them open. Pure.

A keyring never shows its keys: not in `repr`, not in errors. Only `keyring_text` writes them, for the one file that may hold them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import Final

from maia.errors import MisuseError

KEY_SIZES: Final = (16, 24, 32)  # AES-128, -192, -256
FINGERPRINT_BYTES: Final = 4
KEYS_MAX: Final = 16  # a rotation needs two; every packet that no key opens is tried with all of them


@dataclass(frozen=True, slots=True, repr=False)
class Keyring:
    """Keys, primary first, without repetition. Raises `MisuseError` for what cannot be one."""

    keys: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.keys) <= KEYS_MAX:
            raise MisuseError(f"a keyring holds 1 to {KEYS_MAX} keys, not {len(self.keys)}")
        if any(len(key) not in KEY_SIZES for key in self.keys):
            sizes = ", ".join(str(len(key)) for key in self.keys)
            raise MisuseError(f"a key has 16, 24 or 32 bytes; these have {sizes}")
        if len(dict.fromkeys(self.keys)) != len(self.keys):
            raise MisuseError("a keyring holds each key once")

    def __repr__(self) -> str:
        return f"Keyring(<{len(self.keys)} keys>)"

    @property
    def primary(self) -> bytes:
        return self.keys[0]

    @property
    def fingerprints(self) -> tuple[bytes, ...]:
        """Names of the keys that tell nothing of them, in their order."""
        return tuple(bytes.fromhex(fingerprint_of(key)) for key in self.keys)

    def install(self, key: bytes) -> Keyring:
        """With one more key that opens. Installing one that is there changes nothing. Raises `MisuseError` for a bad or one too many."""
        return self if key in self.keys else Keyring((*self.keys, key))

    def use(self, key: bytes) -> Keyring:
        """With `key` as the primary. Raises `MisuseError` where it was not installed first: others could not read us."""
        if key not in self.keys:
            raise MisuseError("this key is not in the keyring: install it everywhere before it is used")
        return Keyring((key, *(other for other in self.keys if other != key)))

    def remove(self, key: bytes) -> Keyring:
        """Without `key`; one that is not there changes nothing. Raises `MisuseError` for the primary: use another first."""
        if key == self.primary:
            raise MisuseError("the primary key cannot be removed: use another one first")
        return Keyring(tuple(other for other in self.keys if other != key))


def key_of(text: str) -> bytes:
    """The key that Serf writes as base64. Raises `MisuseError`, which does not repeat the text."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise MisuseError("a key that is not base64") from None
    if len(key) not in KEY_SIZES:
        raise MisuseError(f"a key has 16, 24 or 32 bytes; this one has {len(key)}")
    return key


def text_of(key: bytes) -> str:
    return base64.b64encode(key).decode()


def fingerprint_of(key: bytes) -> str:
    """Eight hexadecimal digits that name a key and tell nothing of it. They may be logged."""
    return hashlib.sha256(key).digest()[:FINGERPRINT_BYTES].hex()


def parse_keyring(text: str) -> Keyring:
    """Serf's keyring file: a JSON list of base64 keys, primary first; what is repeated counts once. Raises `MisuseError`."""
    try:
        listed = json.loads(text)
    except ValueError:
        # Its message would quote the text.
        raise MisuseError("a keyring is a JSON list of base64 keys; this is no JSON") from None
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise MisuseError("a keyring is a JSON list of base64 keys, primary first")
    return Keyring(tuple(dict.fromkeys(key_of(item) for item in listed)))


def keyring_text(keyring: Keyring) -> str:
    """The same file, to be written."""
    return json.dumps([text_of(key) for key in keyring.keys], indent=2) + "\n"
