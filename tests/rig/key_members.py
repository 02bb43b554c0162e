"""Members with keyrings, in memory: the twin of a mesh's driver where keys are concerned. They answer as those of a real mesh do."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping

from maia.errors import MisuseError
from maia.keyring import Keyring, fingerprint_of, text_of
from maia.view import KeyMissing, KeyOperation, KeyQueryEnded, KeyReply, KeyringChanged


class KeyMembers:
    """`rings` by wire name; `me` is the one that asks."""

    def __init__(self, rings: Mapping[str, Keyring], *, me: str) -> None:
        self.rings = dict(rings)
        self.me = me
        self.silent: list[str] = []  # asked, and never heard of
        self.failing: dict[str, str] = {}  # with which words they refuse everything
        self.untold: list[str] = []  # older agents, that do not say which key is the primary
        self.asked: list[KeyOperation] = []
        self.hear: Callable[[KeyringChanged | KeyMissing], None] = lambda event: None

    @property
    def keyring(self) -> Keyring | None:
        return self.rings[self.me]

    async def ask_keys(self, operation: KeyOperation, key: bytes | None, *, timeout_s: float) -> KeyQueryEnded:
        self.asked.append(operation)
        replies = tuple(self._reply(name, operation, key) for name in self.rings if name not in self.silent)
        return KeyQueryEnded(len(self.asked), operation, replies, tuple(sorted(self.rings)))

    def _reply(self, name: str, operation: KeyOperation, key: bytes | None) -> KeyReply:
        ring = self.rings[name]
        if name in self.failing:
            return KeyReply(name, ok=False, message=self.failing[name], keys=(), primary="")
        if operation == "list":
            primary = "" if name in self.untold else text_of(ring.primary)
            return KeyReply(name, ok=True, message="", keys=tuple(map(text_of, ring.keys)), primary=primary)
        assert key is not None
        try:
            changed = {"install": ring.install, "use": ring.use, "remove": ring.remove}[operation](key)
        except MisuseError as mistake:
            return KeyReply(name, ok=False, message=str(mistake), keys=(), primary="")
        self.rings[name] = changed
        if name == self.me and changed != ring:
            self.hear(KeyringChanged())
        return KeyReply(name, ok=True, message="", keys=(), primary="")


def shown(keys: Iterable[bytes], text: str) -> list[str]:
    """The fingerprints of keys that can be read in `text`: in base64 of any kind, in hexadecimal, or as their bytes."""
    found = []
    for key in keys:
        forms = (text_of(key).rstrip("="), urlsafe_b64encode(key).decode().rstrip("="), key.hex(), repr(key)[2:-1])
        if any(form in text for form in forms):
            found.append(fingerprint_of(key))
    return found
