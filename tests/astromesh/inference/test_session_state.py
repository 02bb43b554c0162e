"""A conversation's state on its way to another worker: whole and of the same model, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astromesh.errors import InvalidRequest
from astromesh.inference.prefixes import PrefixTree, State
from astromesh.inference.session_state import PIECE_BYTES, decode, encode

IDENTITY = "a" * 64
TOKENS = list(range(100))


def exported(*, size: int = 50) -> bytes:
    tree = PrefixTree(bytes_max=10**9)
    tree.insert(TOKENS[:60], State(0, 60, b"x" * size), marks={})
    tree.insert(TOKENS, State(60, 100, b"y" * size), marks={})
    return b"".join(encode(IDENTITY, TOKENS, tree.match(TOKENS)))


def test_what_was_exported_is_known_after_the_import() -> None:
    tokens, parts = decode(exported(), identity=IDENTITY)
    assert tokens == TOKENS
    assert [(state.start, state.end, state.data[:1], end) for state, end in parts] == [(0, 60, b"x", 60), (60, 100, b"y", 100)]


def test_of_what_is_not_known_nothing_travels() -> None:
    assert decode(b"".join(encode(IDENTITY, TOKENS, ())), identity=IDENTITY) == ([], [])


def test_pieces_are_small_enough_for_a_frame() -> None:
    tree = PrefixTree(bytes_max=10**9)
    tree.insert(TOKENS, State(0, 100, bytes(3 * PIECE_BYTES + 1)), marks={})
    assert max(map(len, encode(IDENTITY, TOKENS, tree.match(TOKENS)))) == PIECE_BYTES


def test_the_state_of_another_model_is_refused_by_both_identities() -> None:
    with pytest.raises(InvalidRequest, match=r"aaaaaaaaaaaa….*bbbbbbbbbbbb…"):
        decode(exported(), identity="b" * 64)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_state_that_was_cut_or_changed_anywhere_is_refused(data: st.DataObject) -> None:
    whole = exported()
    if data.draw(st.booleans()):
        broken = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        at = data.draw(st.integers(0, len(whole) - 1))
        broken = whole[:at] + bytes(((whole[at] + data.draw(st.integers(1, 255))) % 256,)) + whole[at + 1 :]
    with pytest.raises(InvalidRequest):
        decode(broken, identity=IDENTITY)


@given(st.binary(max_size=300))
def test_any_other_bytes_are_refused(junk: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode(junk, identity=IDENTITY)
