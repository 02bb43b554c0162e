"""What others may know of the conversations that are warm here: enough to find one that they have, nothing to read."""

from __future__ import annotations

from astromesh.dialogue import Message, ToolSchema
from astromesh.inference.warmth import WARMTH_BYTES_MAX, digests, encode, longest

SALT = b"salt" * 2
CONVERSATION = (Message("system", "Be brief."), Message("user", "Hello."), Message("assistant", "Hi."), Message("user", "Who?"))
TOOL = ToolSchema("weather", "The weather.", {"type": "object"})


def warmth(*messages: Message, salt: bytes = SALT) -> bytes:
    return encode(((digest, 100 * (count + 1)) for count, digest in enumerate(digests(messages, (), salt=salt))), salt=salt)


def test_the_longest_beginning_that_is_warm_is_found_by_whoever_has_the_conversation() -> None:
    there = warmth(*CONVERSATION[:3])
    assert longest(there, CONVERSATION, ()) == 256  # of 300: sizes are told as powers of two
    assert longest(there, (*CONVERSATION[:2], Message("assistant", "Ho.")), ()) == 128
    assert longest(there, CONVERSATION[1:], ()) == 0


def test_other_tools_are_another_conversation() -> None:
    assert longest(warmth(*CONVERSATION), CONVERSATION, (TOOL,)) == 0


def test_no_text_and_no_digest_of_another_salt_is_in_it() -> None:
    mine, theirs = warmth(*CONVERSATION), warmth(*CONVERSATION, salt=b"another!")
    assert b"brief" not in mine
    assert not {mine[at : at + 7] for at in range(8, len(mine), 8)} & {theirs[at : at + 7] for at in range(8, len(theirs), 8)}


def test_it_never_exceeds_its_limit_and_keeps_the_first() -> None:
    many = [(number.to_bytes(7, "big"), 64) for number in range(1000)]
    encoded = encode(iter(many), salt=SALT)
    assert len(encoded) == WARMTH_BYTES_MAX
    assert encoded[8:15] == bytes(7)


def test_bytes_that_say_nothing_are_no_conversation() -> None:
    for nonsense in (b"", b"short", SALT, SALT + b"odd"):
        assert longest(nonsense, CONVERSATION, ()) == 0
