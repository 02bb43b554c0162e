"""What an owner's signature covers, and what it keeps out of a catalogue."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.maia.keys import entry_of, id_of, key_of

from maia.catalogue.catalogue import Catalogue
from maia.catalogue.signature import is_genuine, statement
from maia.errors import DatagramRejected
from maia.wire.offers import WITHDRAWN, Entry

CLUSTER = "9f8e7d6c"
ENTRY = entry_of("b", 3, "models/0", 7, 0, b"a model", cluster_id=CLUSTER)
# Few characters, digits and the separator among them, so that fields that run into each other would meet.
words = st.text("a1:", max_size=2)
fields = st.tuples(words, words, st.integers(0, 12), words, st.integers(0, 12), st.integers(0, 1), words.map(str.encode))


def knowing_b() -> Catalogue:
    catalogue = Catalogue("a", 1, signer=key_of("a"), cluster_id=CLUSTER)
    catalogue.revive("b", 3, id_of("b"))
    return catalogue


@given(fields, fields)
@example(("", "a", 1, "1", 1, 0, b""), ("", "a1", 1, "", 1, 0, b""))
@example(("", "a", 1, "a", 11, 0, b""), ("", "a", 1, "a", 1, 1, b"0"))
@example(("a", "a", 1, "a", 1, 0, b""), ("", "aa", 1, "a", 1, 0, b""))
def test_two_entries_never_make_one_statement(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    statements = [statement(Entry(*entry), cluster_id=cluster) for cluster, *entry in (one, other)]
    assert (statements[0] == statements[1]) is (one == other)


@pytest.mark.parametrize(
    "change",
    [{"node": "c"}, {"generation": 4}, {"key": "models/1"}, {"version": 8}, {"flags": WITHDRAWN}, {"value": b"another model"}],
    ids=lambda change: next(iter(change)),
)
def test_nothing_in_an_entry_can_be_changed_by_others(change: dict[str, object]) -> None:
    assert is_genuine(ENTRY, cluster_id=CLUSTER)
    assert not is_genuine(ENTRY._replace(**change), cluster_id=CLUSTER)  # type: ignore[arg-type]


def test_what_its_owner_signed_is_kept() -> None:
    catalogue = knowing_b()
    assert catalogue.accept(ENTRY)
    assert catalogue.offers("b") == {"models/0": b"a model"}


@pytest.mark.parametrize(
    ("forged", "reason"),
    [
        (entry_of("b", 3, "models/0", 7, 0, b"a model", signer="mallory", cluster_id=CLUSTER), "other-signer"),
        (ENTRY._replace(signer=key_of("mallory").public_key), "other-signer"),
        (ENTRY._replace(signer=b"", signature=b""), "other-signer"),
        (ENTRY._replace(version=8), "bad-signature"),
        (entry_of("b", 3, "models/0", 7, 0, b"a model", cluster_id="another"), "bad-signature"),
    ],
    ids=["another's key", "another's key beside the owner's signature", "unsigned", "changed", "of another cluster"],
)
def test_what_its_owner_did_not_sign_for_this_cluster_is_refused_and_changes_nothing(forged: Entry, reason: str) -> None:
    catalogue = knowing_b()
    root = catalogue.root
    with pytest.raises(DatagramRejected, match=reason):
        catalogue.accept(forged)
    assert (catalogue.offers("b"), catalogue.root) == ({}, root)


def test_an_older_version_said_again_brings_nothing_back() -> None:
    catalogue = knowing_b()
    gone = entry_of("b", 3, "models/0", 8, WITHDRAWN, b"", cluster_id=CLUSTER)
    assert catalogue.accept(gone)
    assert not catalogue.accept(ENTRY)
    catalogue.revive("b", 4, id_of("b"))
    assert not catalogue.accept(ENTRY)
    assert catalogue.offers("b") == {}


def test_a_forgotten_name_that_is_another_s_now_carries_nothing_over() -> None:
    catalogue = knowing_b()
    empty = catalogue.root
    catalogue.accept(ENTRY)
    catalogue.bury("b", 10.0)
    assert catalogue.revive("b", 1, id_of("another b"))
    assert (catalogue.offers("b"), catalogue.root) == ({}, empty)
    with pytest.raises(DatagramRejected, match="other-signer"):
        catalogue.accept(ENTRY)
    assert catalogue.accept(entry_of("b", 1, "models/0", 1, 0, b"its own", signer="another b", cluster_id=CLUSTER))


def test_a_forgotten_name_that_is_another_s_now_starts_from_its_own_generation() -> None:
    catalogue = knowing_b()
    catalogue.bury("b", 10.0)
    assert catalogue.forget(10_000.0) == ["b"]
    catalogue.revive("b", 1, id_of("another b"))
    assert catalogue.accept(entry_of("b", 1, "models/0", 1, 0, b"its own", signer="another b", cluster_id=CLUSTER))
