"""The key pair of a node: `node.key` in the data directory, made at the first start, never replaced, readable by its owner alone.

Its public half makes the node's id, so whoever has a copy of this file is this node. It leaves this machine with nobody's help of ours.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from astromesh.errors import ConfigurationError
from maia.identity import KeyPair

KEY_FILE = "node.key"
KEY_FILE_BYTES_MAX = 4096  # one of ours has 119
REMEDY = "restore it to stay the same node, or move it away to start as a new one"


def read_key(folder: Path) -> KeyPair:
    """The key pair of the node in this data directory; of a node that never ran, a new one, which is then kept.

    The folder must be held by this process alone (`RecordFile.held`). Raises `ConfigurationError` for a file that is damaged, cannot be
    read, or can be read by others.
    """
    path = folder / KEY_FILE
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            encoded = file.read(KEY_FILE_BYTES_MAX)
    except FileNotFoundError:
        return _make_key(path)
    except OSError as failure:
        raise ConfigurationError(f"the key {path} cannot be read: {failure.strerror}", hint=REMEDY) from failure
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(
            f"the key {path} may be used by others on this machine (mode {mode:04o}), who could pass for this node",
            hint=f"chmod 600 {path}, and move it away to start as a new node if somebody may have copied it",
        )
    try:
        private = load_pem_private_key(encoded, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None  # what was wrong with it is not repeated: it may quote the key
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigurationError(f"the key {path} is damaged: it holds no Ed25519 private key in PEM", hint=REMEDY)
    return KeyPair(private.private_bytes_raw())


def _make_key(path: Path) -> KeyPair:
    private = Ed25519PrivateKey.generate()
    part = path.with_suffix(".key.part")
    try:
        part.unlink(missing_ok=True)  # of a start that was cut short
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except OSError as failure:
        raise ConfigurationError(
            f"the key {path} cannot be written: {failure.strerror}", hint="choose another directory with --data"
        ) from failure
    return KeyPair(private.private_bytes_raw())
