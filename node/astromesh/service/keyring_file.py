"""The keyring file: Serf's JSON list of base64 keys, primary first, for its owner's eyes alone.

What goes wrong is told by the file's name, never by what it holds. People edit this file, too: what they wrote while the node ran is not
thrown away when the mesh changes its keys.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from astromesh.errors import ConfigurationError
from maia.errors import MisuseError
from maia.keyring import KEYS_MAX, Keyring, fingerprint_of, key_of, keyring_text, parse_keyring

FILE_BYTES_MAX = 16_384  # sixteen keys of 32 bytes are under a kilobyte
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_keyring(path: Path) -> Keyring:
    """Raises `ConfigurationError` where the file is missing, open to others, or no keyring."""
    try:
        found, text = _look(path)
    except OSError as failure:
        if _is_a_key(path):
            raise ConfigurationError(
                "the keyring file cannot be read: what was said in the place of its name is a key",
                hint="write the key into a file (mode 0600) and name that; better another key, since every user of this machine can see "
                "the arguments of a process",
            ) from None
        # Not where there may be one: the command would replace it.
        make = f"""umask 077; printf '["%s"]' "$(openssl rand -base64 32)" > {path}"""
        missing = isinstance(failure, FileNotFoundError)
        raise ConfigurationError(
            f"the keyring file {path} cannot be read: {failure.strerror}",
            hint=f"copy that of another member, or make the first one: {make}" if missing else "it must belong to the user of this node",
        ) from failure
    if not stat.S_ISREG(found.st_mode):
        raise ConfigurationError(f"the keyring file {path} is no file", hint="name a file that holds a JSON list of base64 keys")
    if found.st_mode & _OTHERS:
        mode = stat.S_IMODE(found.st_mode)
        raise ConfigurationError(
            f"the keyring file {path} is open to others (mode {mode:04o})", hint=f"make it its owner's alone: chmod 600 {path}"
        )
    try:
        return _parsed(text)
    except MisuseError as mistake:
        raise ConfigurationError(
            f"the keyring file {path}: {mistake}", hint="write [\"KEY\"], as 'openssl rand -base64 32' prints a key"
        ) from None


def _is_a_key(path: Path) -> bool:
    """Padded, as keys of 16 and 32 bytes are: without it a path of 32 letters and slashes would look like one of 24."""
    try:
        return bool(key_of(str(path))) and str(path).endswith("=")
    except MisuseError:
        return False


class KeyringFile:
    """The file of one running node. Its methods block; one at a time."""

    def __init__(self, path: Path) -> None:
        """Raises `ConfigurationError` as `read_keyring` does."""
        self.path = path
        self.kept = read_keyring(path)  # the keys of the mesh as they were last read or written
        self._extra: tuple[bytes, ...] = ()  # what the file holds beside them, because a person put it there

    def write(self, keyring: Keyring) -> tuple[str, ...]:
        """Replaces the file: after a crash it is the old one or the new one. What a person did to it meanwhile, in sentences.

        A key that was added by hand stays in the file, behind those of the mesh. A file that is no keyring any more is kept beside it.
        Raises `OSError` where it cannot be written; then the old one is still there.
        """
        path = Path(os.path.realpath(self.path))  # a link to it goes on pointing there
        notes: list[str] = []
        whole = keyring
        try:
            before, text = _look(path)
        except FileNotFoundError:
            before = None
            notes.append(f"the keyring file {self.path} was gone and is written anew")
        if before is not None:
            if before.st_mode & _OTHERS:
                notes.append(
                    f"the keyring file {self.path} was open to others (mode {stat.S_IMODE(before.st_mode):04o}) and is its owner's alone "
                    "again: if anybody may have read it, its keys need another rotation"
                )
            try:
                whole = self._with_extra(keyring, _parsed(text), notes)
            except MisuseError as mistake:
                # Named after its last edit, so that none is lost to the next; a link, since the old file stays until the new one is whole.
                aside = path.with_name(f"{path.name}.edited-{before.st_mtime_ns}")
                with contextlib.suppress(FileExistsError):
                    os.link(path, aside)
                notes.append(f"the keyring file {self.path} was edited and could not be kept ({mistake}): what it held is in {aside}")
        _replace(path, keyring_text(whole), owner=before)
        self.kept = keyring
        return tuple(notes)

    def _with_extra(self, keyring: Keyring, found: Keyring, notes: list[str]) -> Keyring:
        """`keyring` and what a person added to `found`. Raises `MisuseError` where both together are too many keys."""
        extra = tuple(key for key in found.keys if key not in keyring.keys and key not in self.kept.keys)
        if len(keyring.keys) + len(extra) > KEYS_MAX:
            raise MisuseError(f"with the keys of the mesh it would hold more than {KEYS_MAX}")
        if extra and extra != self._extra:
            notes.append(
                f"the keyring file {self.path} was edited: what was added ({_named(extra)}) stays in it and counts from the next start; "
                "'astromesh-node keys install --key-file FILE' makes it count at once"
            )
        self._extra = extra
        missing = tuple(key for key in keyring.keys if key in self.kept.keys and key not in found.keys)
        if missing:
            notes.append(
                f"the keyring file {self.path} was edited: what was taken out ({_named(missing)}) is in use and is in it again; "
                "'astromesh-node keys remove' takes a key away everywhere"
            )
        return Keyring((*keyring.keys, *extra))


def _look(path: Path) -> tuple[os.stat_result, bytes]:
    """What it is and what it holds, as far as a keyring could; nothing of what is no file."""
    # A pipe would hang the node, so nothing is waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        return found, os.read(descriptor, FILE_BYTES_MAX + 1) if stat.S_ISREG(found.st_mode) else b""
    finally:
        os.close(descriptor)


def _parsed(text: bytes) -> Keyring:
    if len(text) > FILE_BYTES_MAX:
        raise MisuseError(f"over {FILE_BYTES_MAX} bytes")
    return parse_keyring(text.decode(errors="replace"))


def _named(keys: tuple[bytes, ...]) -> str:
    return ", ".join(fingerprint_of(key) for key in keys)


def _replace(path: Path, text: str, *, owner: os.stat_result | None) -> None:
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)  # of a write that was cut short
    try:
        # Made for its owner alone from its first byte, and never through somebody else's link.
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "w") as file:
            if owner is not None and owner.st_uid != os.geteuid():
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            elif owner is not None and owner.st_gid != os.getegid():
                with contextlib.suppress(PermissionError):  # its group has no rights on it anyway
                    os.fchown(file.fileno(), -1, owner.st_gid)
            os.fchmod(file.fileno(), 0o600)  # whatever the umask
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
