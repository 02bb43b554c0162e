"""A keyring is a value: what it holds, how it changes, and that it never shows a key."""

from __future__ import annotations

import json

import pytest

from maia.errors import MisuseError
from maia.keyring import KEYS_MAX, Keyring, fingerprint_of, key_of, keyring_text, parse_keyring, text_of

OLD, NEW, THIRD = (bytes((number,)) * size for number, size in ((65, 16), (66, 24), (67, 32)))


def test_a_rotation_installs_uses_and_removes() -> None:
    ring = Keyring((OLD,))
    both = ring.install(NEW)
    assert (both.keys, both.primary) == ((OLD, NEW), OLD)
    turned = both.use(NEW)
    assert (turned.keys, turned.primary) == ((NEW, OLD), NEW)
    assert turned.remove(OLD) == Keyring((NEW,))


def test_what_is_there_is_not_installed_twice_and_what_is_not_there_is_not_missed() -> None:
    ring = Keyring((OLD, NEW))
    assert ring.install(NEW) == ring
    assert ring.remove(THIRD) == ring


def test_the_primary_cannot_be_removed_and_a_key_is_installed_before_it_is_used() -> None:
    ring = Keyring((OLD, NEW))
    with pytest.raises(MisuseError, match="primary"):
        ring.remove(OLD)
    with pytest.raises(MisuseError, match="install"):
        ring.use(THIRD)


@pytest.mark.parametrize("keys", [(), (b"short",), (OLD, OLD), tuple(bytes((n,)) * 16 for n in range(KEYS_MAX + 1))])
def test_what_is_no_keyring_is_refused(keys: tuple[bytes, ...]) -> None:
    with pytest.raises(MisuseError):
        Keyring(keys)


def test_serf_s_file_is_read_and_written() -> None:
    ring = Keyring((NEW, OLD))
    assert parse_keyring(keyring_text(ring)) == ring
    assert json.loads(keyring_text(ring)) == [text_of(NEW), text_of(OLD)]
    assert parse_keyring(json.dumps([text_of(NEW), text_of(NEW)])) == Keyring((NEW,))


SECRET = "c2VjcmV0IHRoYXQgbXVzdCBub3Qgc2hvdw"  # not a key: too short, and its padding is missing


@pytest.mark.parametrize("text", [SECRET, f'["{SECRET}"]', f'["{SECRET}=="]', f'{{"key": "{SECRET}"}}', f"[1, {SECRET}]", "[]", "[7]"])
def test_a_file_that_is_no_keyring_is_refused_without_showing_what_it_holds(text: str) -> None:
    with pytest.raises(MisuseError) as refusal:
        parse_keyring(text)
    shown: BaseException | None = refusal.value
    while shown is not None:
        assert SECRET not in f"{shown} {shown!r}"
        shown = shown.__cause__


def test_a_keyring_shows_how_many_keys_it_has_and_none_of_them() -> None:
    assert f"{Keyring((OLD, NEW))!r} {Keyring((OLD,))}" == "Keyring(<2 keys>) Keyring(<1 keys>)"
    assert key_of(text_of(THIRD)) == THIRD


def test_a_fingerprint_names_a_key_by_eight_digits_of_its_hash() -> None:
    assert fingerprint_of(b"") == "e3b0c442"  # SHA-256 of nothing, as everybody knows it
    assert fingerprint_of(OLD) != fingerprint_of(NEW)
