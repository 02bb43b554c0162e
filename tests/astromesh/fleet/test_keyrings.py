"""Who holds which key is read from what the members say, and nobody is cut off by what they did not say."""

from __future__ import annotations

import hashlib

import pytest
from tests.rig.key_members import KeyMembers, shown

from astromesh.errors import InvalidRequest, KeysRefused, UnknownKey
from astromesh.fleet.keyrings import GivenKey, KeyCensus, NamedKey, census, change, named_key
from maia.keyring import Keyring, fingerprint_of, text_of
from maia.view import KeyQueryEnded, KeyReply

OLD, NEW, THIRD = b"o" * 32, b"n" * 32, b"t" * 16
OLD_NAME, NEW_NAME, THIRD_NAME = map(fingerprint_of, (OLD, NEW, THIRD))


def members(**rings: Keyring) -> KeyMembers:
    return KeyMembers(rings, me="a")


async def counted(them: KeyMembers) -> KeyCensus:
    return census(await them.ask_keys("list", None, timeout_s=1), label=str.upper)


async def test_a_census_says_of_each_key_who_holds_it_who_lacks_it_and_who_seals_with_it() -> None:
    held = await counted(members(a=Keyring((OLD, NEW)), b=Keyring((OLD,)), c=Keyring((NEW, OLD))))
    assert [(key.fingerprint, key.held_by, key.lacked_by, key.primary_of) for key in held.keys] == [
        (OLD_NAME, ("A", "B", "C"), (), ("A", "B")),
        (NEW_NAME, ("A", "C"), ("B",), ("C",)),
    ]
    assert [(one.name, one.ok, one.keys, one.primary) for one in held.holders] == [
        ("A", True, (OLD_NAME, NEW_NAME), OLD_NAME),
        ("B", True, (OLD_NAME,), OLD_NAME),
        ("C", True, (NEW_NAME, OLD_NAME), NEW_NAME),
    ]


async def test_an_agent_that_does_not_tell_its_primary_seals_with_the_first_of_its_keys() -> None:
    them = members(a=Keyring((OLD, NEW)), b=Keyring((NEW, OLD)))
    them.untold = ["b"]
    assert [one.primary for one in (await counted(them)).holders] == [OLD_NAME, NEW_NAME]


async def test_silence_is_no_lack_and_a_refusal_is_shown_in_the_member_s_own_words() -> None:
    them = members(a=Keyring((OLD,)), b=Keyring((OLD,)), c=Keyring((OLD,)))
    them.silent, them.failing = ["b"], {"c": "no keyring here"}
    held = await counted(them)
    assert [(one.name, one.answered, one.ok, one.message) for one in held.holders] == [
        ("A", True, True, ""),
        ("B", False, False, ""),
        ("C", True, False, "no keyring here"),
    ]
    assert (held.keys[0].lacked_by, held.unanswered) == ((), ("B", "C"))


def test_words_of_others_are_cut_and_their_keys_blotted_out() -> None:
    key = text_of(OLD)
    reply = KeyReply("b", ok=False, message=f"cannot do {key} " + "x" * 1000, keys=(key,), primary=key)
    said = change(KeyQueryEnded(1, "use", (reply,), ("b",)), NEW, label=str).failed[0][1]
    assert said.startswith("cannot do … x")
    assert len(said) == 200
    assert shown((OLD, NEW), said) == []


async def test_a_census_shows_no_key() -> None:
    held = await counted(members(a=Keyring((OLD, NEW))))
    assert shown((OLD, NEW), f"{held!r} {GivenKey(OLD)!r}") == []


async def test_what_is_no_key_of_ours_is_left_out_of_the_count() -> None:
    reply = KeyReply("b", ok=True, message="", keys=(text_of(OLD), "no base64!", text_of(b"short")), primary="no base64!")
    held = census(KeyQueryEnded(1, "list", (reply,), ("b",)), label=str)
    assert [key.fingerprint for key in held.keys] == [OLD_NAME]


async def test_a_key_is_found_by_eight_digits_or_by_more_of_its_hash() -> None:
    held = await counted(members(a=Keyring((OLD, NEW))))
    assert held.find(named_key(NEW_NAME)) == held.find(named_key(hashlib.sha256(NEW).hexdigest().upper())) == NEW
    with pytest.raises(UnknownKey, match=THIRD_NAME):
        held.find(named_key(THIRD_NAME))


async def test_two_keys_that_begin_alike_are_told_apart_by_more_digits() -> None:
    digest = hashlib.sha256(OLD).hexdigest()
    held = KeyCensus((), (), {digest: OLD, digest[:10] + "f" * 54: NEW})
    with pytest.raises(InvalidRequest, match="2 keys begin with"):
        held.find(NamedKey(digest[:8]))
    assert held.find(NamedKey(digest)) == OLD


@pytest.mark.parametrize("said", ["", "1234567", "g" * 8, "0" * 65, text_of(OLD), "12345678\n9abcdef0"])
def test_what_is_no_fingerprint_is_refused_and_not_repeated(said: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        named_key(said)
    assert not said or said not in f"{refusal.value} {refusal.value.hint}"


async def test_a_key_is_used_only_when_every_member_said_that_it_holds_it() -> None:
    them = members(a=Keyring((OLD, NEW)), b=Keyring((OLD, NEW)), c=Keyring((OLD, NEW)))
    (await counted(them)).check_use(NEW)
    them.rings |= {"b": Keyring((OLD,)), "c": Keyring((OLD,))}
    with pytest.raises(KeysRefused, match="B and C lack it") as refusal:
        (await counted(them)).check_use(NEW)
    assert refusal.value.hint.startswith(f"astromesh-node keys install {NEW_NAME}")
    them.silent = ["c"]
    with pytest.raises(KeysRefused, match="B lacks it; C did not say"):
        (await counted(them)).check_use(NEW)
    with pytest.raises(KeysRefused, match="A and B lack it"):
        (await counted(them)).check_use(THIRD)
    them.rings["b"] = Keyring((OLD, NEW))
    with pytest.raises(KeysRefused, match="yet: C did not say what it holds"):
        (await counted(them)).check_use(NEW)


async def test_a_key_is_removed_only_when_every_member_said_that_it_seals_with_another() -> None:
    them = members(a=Keyring((NEW, OLD)), b=Keyring((NEW, OLD)))
    (await counted(them)).check_remove(OLD)
    them.rings["b"] = Keyring((OLD, NEW))
    with pytest.raises(KeysRefused, match="B seals with it") as refusal:
        (await counted(them)).check_remove(OLD)
    assert refusal.value.hint.startswith(f"astromesh-node keys use {NEW_NAME}")
    them.silent = ["b"]
    with pytest.raises(KeysRefused, match="B did not say"):
        (await counted(them)).check_remove(OLD)


async def test_the_only_key_is_not_removed_and_the_hint_says_how_to_get_another() -> None:
    with pytest.raises(KeysRefused) as refusal:
        (await counted(members(a=Keyring((OLD,))))).check_remove(OLD)
    assert refusal.value.hint.startswith("astromesh-node keys install --generate")


async def test_a_change_is_complete_when_everybody_that_was_asked_confirmed_it() -> None:
    them = members(a=Keyring((OLD,)), b=Keyring((OLD,)), c=Keyring((OLD,)))
    assert change(await them.ask_keys("install", NEW, timeout_s=1), NEW, label=str).complete
    them.silent, them.failing = ["b"], {"c": "disk full"}
    said = change(await them.ask_keys("install", THIRD, timeout_s=1), THIRD, label=str)
    assert (said.fingerprint, said.confirmed, said.failed, said.unanswered) == (THIRD_NAME, ("a",), (("c", "disk full"),), ("b",))
    assert not said.complete
