"""Which member holds which key of the gossip, and what may be done about a key. Pure.

Made from what the members answered, keys and all; what it shows of a key is its fingerprint.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from astromesh.errors import InvalidRequest, KeysRefused, UnknownKey
from maia.errors import MisuseError
from maia.keyring import fingerprint_of, key_of
from maia.view import KeyQueryEnded, KeyReply

MESSAGE_CHARACTERS_MAX = 200  # of another node's words
HOW_TO_GET_KEYS = (
    """make a file with a key (umask 077; printf '["%s"]' "$(openssl rand -base64 32)" > keys.json), bring a copy to every node, name it """
    "there as spec.mesh.keyring_file or --keyring-file, and start them again"
)
_FINGERPRINT = re.compile(r"[0-9a-f]{8,64}")  # `fingerprint_of` shows eight; more may be said

Label = Callable[[str], str]  # a wire name as people know it


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A key that the members hold, by its fingerprint: the first digits of its SHA-256."""

    digits: str


@dataclass(frozen=True, slots=True)
class GivenKey:
    """A key that somebody brought."""

    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that nobody has yet: made at random by the node that is asked."""


KeyChoice = NamedKey | GivenKey | NewKey


def named_key(said: str) -> NamedKey:
    """Raises `InvalidRequest` for what is no fingerprint, without repeating it: it may be a key, by mistake."""
    digits = said.strip().lower()
    if _FINGERPRINT.fullmatch(digits) is None:
        raise InvalidRequest(
            "that is no fingerprint of a key: it has 8 to 64 hexadecimal digits, as 'astromesh-node keys list' shows it",
            hint="a key itself comes from a file or from stdin: --key-file FILE, --key-file -",
            param="fingerprint",
        )
    return NamedKey(digits)


@dataclass(frozen=True, slots=True)
class Holder:
    """What one member said of its keys."""

    name: str  # as people know it
    answered: bool
    ok: bool = False
    message: str = ""
    keys: tuple[str, ...] = ()  # fingerprints, in its own order
    primary: str = ""


@dataclass(frozen=True, slots=True)
class HeldKey:
    """One key, and how far it has come. Names in the order of the members."""

    fingerprint: str
    held_by: tuple[str, ...]
    lacked_by: tuple[str, ...]
    primary_of: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyCensus:
    """What all living members hold, as far as they said."""

    holders: tuple[Holder, ...]
    keys: tuple[HeldKey, ...]  # the most used first
    whole: Mapping[str, bytes] = field(repr=False)  # by the whole SHA-256

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Who did not say what it holds."""
        return tuple(holder.name for holder in self.holders if not holder.ok)

    def find(self, named: NamedKey) -> bytes:
        """Raises `UnknownKey`, or `InvalidRequest` where two keys begin alike."""
        found = [key for digest, key in self.whole.items() if digest.startswith(named.digits)]
        if not found:
            raise UnknownKey(
                f"no living member holds a key {named.digits}",
                hint="astromesh-node keys list shows which there are; --key-file brings one that they lack",
            )
        if len(found) > 1:
            raise InvalidRequest(
                f"{len(found)} keys begin with {named.digits}", hint="say more digits of the key's SHA-256", param="fingerprint"
            )
        return found[0]

    def check_use(self, key: bytes) -> None:
        """Raises `KeysRefused` unless every living member could open what is sealed with `key`."""
        name = fingerprint_of(key)
        held = self._held(key)
        without = held.lacked_by if held is not None else tuple(holder.name for holder in self.holders if holder.ok)
        if without or self.unanswered:
            raise KeysRefused(
                f"the key {name} cannot be used yet: " + _reasons((without, "lacks it", "lack it"), self._silence()),
                hint=f"astromesh-node keys install {name}"
                + (f", and see to {_listed(self.unanswered)}" if self.unanswered else "")
                + "; --force uses it all the same, and cuts off whoever lacks it until that is mended there",
            )

    def check_remove(self, key: bytes) -> None:
        """Raises `KeysRefused` where a living member seals with `key`, or may do so: it would be heard by nobody."""
        name = fingerprint_of(key)
        held = self._held(key)
        sealing = held.primary_of if held is not None else ()
        if sealing or self.unanswered:
            others = [other.fingerprint for other in self.keys if other.fingerprint != name]
            first = f"astromesh-node keys use {others[0]}" if others else "astromesh-node keys install --generate"
            raise KeysRefused(
                f"the key {name} cannot be removed: " + _reasons((sealing, "seals with it", "seal with it"), self._silence()),
                hint=(f"{first} comes before that" if sealing else f"see to {_listed(self.unanswered)}")
                + "; --force removes it wherever it is not the primary, and whoever goes on sealing with it is cut off",
            )

    def _held(self, key: bytes) -> HeldKey | None:
        name = fingerprint_of(key)
        return next((held for held in self.keys if held.fingerprint == name), None)

    def _silence(self) -> tuple[tuple[str, ...], str, str]:
        return self.unanswered, "did not say what it holds", "did not say what they hold"


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What became of one operation, member by member."""

    operation: str
    fingerprint: str
    confirmed: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]  # who could not, and why in its own words
    unanswered: tuple[str, ...]

    @property
    def complete(self) -> bool:
        return not self.failed and not self.unanswered


def census(ended: KeyQueryEnded, *, label: Label) -> KeyCensus:
    """What a `list` brought."""
    replies = {reply.node: reply for reply in ended.replies}
    whole: dict[str, bytes] = {}
    holders: list[Holder] = []
    for name in _everybody(ended):
        reply = replies.get(name)
        if reply is None:
            holders.append(Holder(label(name), answered=False))
            continue
        known = {text: key for text in dict.fromkeys((*reply.keys, reply.primary)) if (key := _key(text)) is not None}
        whole |= {hashlib.sha256(key).hexdigest(): key for key in known.values()}
        keys = tuple(fingerprint_of(known[text]) for text in reply.keys if text in known)
        # Agents of before 0.8.2 do not say which is the primary; it is the first of their list, as in their keyring.
        primary = fingerprint_of(known[reply.primary]) if reply.primary in known else next(iter(keys), "")
        holders.append(Holder(label(name), answered=True, ok=reply.ok, message=_words(reply), keys=keys, primary=primary))
    said = [holder for holder in holders if holder.ok]
    held = [
        HeldKey(
            fingerprint,
            held_by=tuple(holder.name for holder in said if fingerprint in holder.keys),
            lacked_by=tuple(holder.name for holder in said if fingerprint not in holder.keys),
            primary_of=tuple(holder.name for holder in said if fingerprint == holder.primary),
        )
        for fingerprint in dict.fromkeys(fingerprint for holder in said for fingerprint in holder.keys)
    ]
    held.sort(key=lambda key: (-len(key.primary_of), -len(key.held_by), key.fingerprint))
    return KeyCensus(tuple(holders), tuple(held), whole)


def change(ended: KeyQueryEnded, key: bytes, *, label: Label) -> KeyChange:
    """What another operation brought."""
    replies = {reply.node: reply for reply in ended.replies}
    everybody = _everybody(ended)
    return KeyChange(
        ended.operation,
        fingerprint_of(key),
        confirmed=tuple(label(name) for name in everybody if name in replies and replies[name].ok),
        failed=tuple((label(name), _words(replies[name])) for name in everybody if name in replies and not replies[name].ok),
        unanswered=tuple(label(name) for name in everybody if name not in replies),
    )


def _everybody(ended: KeyQueryEnded) -> tuple[str, ...]:
    """Who was asked, and who answered without having been known then."""
    return tuple(sorted(dict.fromkeys((*ended.asked, *(reply.node for reply in ended.replies)))))


def _key(text: str) -> bytes | None:
    try:
        return key_of(text)
    except MisuseError:
        return None  # of another make than ours: it cannot be a key here


def _words(reply: KeyReply) -> str:
    """What it said, fit to be shown: without its keys, whatever it wrote them into."""
    message = reply.message
    for text in (*reply.keys, reply.primary):
        if text:
            message = message.replace(text, "…")
    return message[:MESSAGE_CHARACTERS_MAX]


def _reasons(*groups: tuple[tuple[str, ...], str, str]) -> str:
    return "; ".join(f"{_listed(names)} {one if len(names) == 1 else many}" for names, one, many in groups if names)


def _listed(names: tuple[str, ...]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
