"""The keyring file: Serf's JSON list of base64 keys, primary first, for its owner's eyes alone.

What goes wrong is told by the file's name, never by what it holds.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from astromesh.errors import ConfigurationError
from maia.errors import MisuseError
from maia.keyring import Keyring, parse_keyring

FILE_BYTES_MAX = 16_384  # sixteen keys of 32 bytes are under a kilobyte


def read_keyring(path: Path) -> Keyring:
    """Raises `ConfigurationError` where the file is missing, open to others, or no keyring."""
    try:
        # A pipe would hang the start, so nothing is waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as failure:
        raise ConfigurationError(
            f"the keyring file {path} cannot be read: {failure.strerror}", hint="'serf keygen' makes a key; the file is a JSON list of them"
        ) from failure
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigurationError(f"the keyring file {path} is no file", hint="name a file that holds a JSON list of base64 keys")
        if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            mode = stat.S_IMODE(found.st_mode)
            raise ConfigurationError(
                f"the keyring file {path} is open to others (mode {mode:04o})", hint=f"make it its owner's alone: chmod 600 {path}"
            )
        text = os.read(descriptor, FILE_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    try:
        if len(text) > FILE_BYTES_MAX:
            raise MisuseError(f"over {FILE_BYTES_MAX} bytes")
        return parse_keyring(text.decode(errors="replace"))
    except MisuseError as mistake:
        raise ConfigurationError(f"the keyring file {path}: {mistake}", hint="write [\"KEY\"], as 'serf keygen' prints a key") from None
