"""Which entry wins, what this node may offer, and what happens to the offers of the dead."""

from __future__ import annotations

import itertools

import pytest
from tests.maia.keys import entry_of, id_of, key_of

from maia.catalogue.catalogue import DEAD_KEPT_S, DEPARTED_KEPT_S, DEPARTED_MAX, OFFERS_BYTES_MAX, Catalogue, cut
from maia.errors import MisuseError
from maia.wire.offers import KEYS_MAX, VALUE_BYTES_MAX, WITHDRAWN, Entry


def entry(version: int, *, key: str = "models/0", generation: int = 1, node: str = "b", flags: int = 0) -> Entry:
    return entry_of(node, generation, key, version, flags, b"" if flags else f"value {generation}.{version}".encode())


def catalogue_of(name: str, generation: int) -> Catalogue:
    return Catalogue(name, generation, signer=key_of(name), cluster_id="")


def knowing_b() -> Catalogue:
    catalogue = catalogue_of("a", 1)
    catalogue.revive("b", 1, id_of("b"))
    return catalogue


def test_the_newest_version_wins_in_every_order_of_arrival() -> None:
    entries = [entry(1), entry(2), entry(1, generation=2), entry(2, generation=2), entry(4, flags=WITHDRAWN)]
    ends = set()
    for order in itertools.permutations(entries):
        catalogue = knowing_b()
        for one in (*order, *order):
            catalogue.accept(one)
        ends.add((catalogue.root, tuple(catalogue.offers("b").items())))
    assert len(ends) == 1
    ((_, offers),) = ends
    assert offers == (("models/0", b"value 2.2"),)


def test_an_entry_that_is_no_news_changes_nothing() -> None:
    catalogue = knowing_b()
    assert catalogue.accept(entry(2))
    root = catalogue.root
    assert not catalogue.accept(entry(2))
    assert not catalogue.accept(entry(1))
    assert catalogue.root == root


def test_nobody_else_writes_our_own_entries() -> None:
    catalogue = catalogue_of("a", 1)
    catalogue.offer("models/0", b"mine")
    assert not catalogue.accept(entry(99, node="a", generation=9))
    assert catalogue.offers("a") == {"models/0": b"mine"}


def test_entries_of_nodes_that_are_no_members_are_not_kept() -> None:
    assert not catalogue_of("a", 1).accept(entry(1))


def test_a_node_s_slots_are_bounded() -> None:
    catalogue = knowing_b()
    accepted = [catalogue.accept(entry(version, key=f"k/{version}")) for version in range(1, KEYS_MAX + 3)]
    assert accepted == [True] * KEYS_MAX + [False] * 2
    assert catalogue.accept(entry(KEYS_MAX + 9, key="k/1"))


def test_equal_catalogues_have_equal_roots_and_different_ones_do_not() -> None:
    one, other = knowing_b(), catalogue_of("b", 1)
    other.revive("a", 1, id_of("a"))
    roots = [one.root]
    for number in range(5):
        made = other.offer(f"k/{number}", b"value")
        assert made is not None
        assert one.root != other.root
        one.accept(made)
        assert one.root == other.root
        roots.append(one.root)
    assert len(set(roots)) == len(roots)


def test_a_withdrawn_slot_is_not_seen_and_stays_withdrawn_against_its_older_versions() -> None:
    owner, reader = catalogue_of("b", 1), knowing_b()
    first, gone = owner.offer("models/0", b"model"), owner.withdraw("models/0")
    assert first is not None
    assert gone is not None
    reader.accept(gone)
    reader.accept(first)
    assert reader.offers("b") == {} == owner.offers("b")
    assert owner.withdraw("models/0") is None
    again = owner.offer("models/0", b"model")
    assert again is not None
    assert reader.accept(again)
    assert reader.offers("b") == {"models/0": b"model"}


def test_offering_the_same_value_again_is_no_new_version() -> None:
    catalogue = catalogue_of("a", 1)
    assert catalogue.offer("models/0", b"x") is not None
    assert catalogue.offer("models/0", b"x") is None


def test_deploying_and_removing_for_ever_fills_nothing() -> None:
    catalogue = catalogue_of("a", 1)
    for number in range(1000):
        catalogue.offer(f"agents/{number % 16}", str(number).encode())
        catalogue.withdraw(f"agents/{number % 16}")
    assert len(catalogue.own_entries()) == 16


@pytest.mark.parametrize("key", ["", "k" * 65, "new\nline"])
def test_a_key_that_cannot_travel_is_refused(key: str) -> None:
    with pytest.raises(MisuseError, match="offer key"):
        catalogue_of("a", 1).offer(key, b"")


def test_what_a_node_offers_is_bounded_and_a_refusal_changes_nothing() -> None:
    catalogue = catalogue_of("a", 1)
    for number in range(OFFERS_BYTES_MAX // VALUE_BYTES_MAX):
        catalogue.offer(f"k/{number}", bytes(VALUE_BYTES_MAX))
    root = catalogue.root
    with pytest.raises(MisuseError, match="exceed the 65536 of a node"):
        catalogue.offer("one more", b"x")
    with pytest.raises(MisuseError, match="at most 8192 travel"):
        catalogue.offer("k/0", bytes(VALUE_BYTES_MAX + 1))
    assert catalogue.root == root
    catalogue.offer("k/0", b"smaller")
    catalogue.offer("one more", b"x")


def test_a_held_value_is_offered_when_it_is_released_unless_a_newer_word_came_before() -> None:
    catalogue = catalogue_of("a", 1)
    for key in ("f", "g", "h"):
        catalogue.hold(key, b"held", "figures")
    assert catalogue.offers("a") == {}
    catalogue.offer("f", b"urgent")
    catalogue.withdraw("g")
    assert [made.key for made in catalogue.release("figures")] == ["h"]
    assert catalogue.release("figures") == []
    assert catalogue.offers("a") == {"f": b"urgent", "h": b"held"}


def test_what_is_held_keeps_its_urgency_and_its_last_value_and_may_be_a_withdrawal() -> None:
    catalogue = catalogue_of("a", 1)
    catalogue.offer("m", b"model")
    catalogue.hold("m", None, "at once")
    catalogue.hold("n", b"news", "at once")
    catalogue.hold("n", b"newer", "figures")
    assert (catalogue.holds("at once"), catalogue.holds("figures")) == (True, False)
    assert catalogue.release("figures") == []
    assert [(made.key, made.value) for made in catalogue.release("at once")] == [("m", b""), ("n", b"newer")]
    assert catalogue.offers("a") == {"n": b"newer"}
    assert not catalogue.holds("at once")


def test_what_is_held_counts_against_the_bounds_of_a_node_from_the_beginning() -> None:
    catalogue = catalogue_of("a", 1)
    for number in range(OFFERS_BYTES_MAX // VALUE_BYTES_MAX):
        catalogue.hold(f"k/{number}", bytes(VALUE_BYTES_MAX), "figures")
    with pytest.raises(MisuseError, match="exceed the 65536 of a node"):
        catalogue.offer("one more", b"x")
    with pytest.raises(MisuseError, match="at most 8192 travel"):
        catalogue.hold("k/0", bytes(VALUE_BYTES_MAX + 1), "figures")
    assert len(catalogue.release("figures")) == OFFERS_BYTES_MAX // VALUE_BYTES_MAX
    catalogue.hold("k/0", b"smaller", "figures")
    with pytest.raises(MisuseError, match="exceed"):
        catalogue.offer("one more", b"x")
    catalogue.release("figures")
    catalogue.offer("one more", b"x")


def test_a_slot_beyond_the_last_is_refused() -> None:
    catalogue = catalogue_of("a", 1)
    for number in range(KEYS_MAX):
        catalogue.offer(f"k/{number}", b"x")
    with pytest.raises(MisuseError, match="no room for 'k/64'"):
        catalogue.offer("k/64", b"x")


def test_a_death_takes_entries_out_of_the_root_and_a_return_brings_them_back() -> None:
    catalogue = knowing_b()
    empty = catalogue.root
    catalogue.accept(entry(1))
    full = catalogue.root
    catalogue.bury("b", 10.0)
    assert catalogue.root == empty
    assert catalogue.offers("b") == {"models/0": b"value 1.1"}
    assert not catalogue.revive("b", 1, id_of("b"))
    assert catalogue.root == full


def test_a_restart_takes_back_what_the_earlier_life_offered() -> None:
    catalogue = knowing_b()
    empty = catalogue.root
    catalogue.accept(entry(7))
    assert catalogue.revive("b", 2, id_of("b"))
    assert (catalogue.offers("b"), catalogue.root) == ({}, empty)
    assert not catalogue.accept(entry(8))


def test_the_long_dead_are_forgotten_and_no_straggler_brings_an_earlier_life_back() -> None:
    catalogue = knowing_b()
    catalogue.revive("b", 5, id_of("b"))
    catalogue.accept(entry(3, generation=5))
    catalogue.bury("b", 10.0)
    assert catalogue.forget(10.0 + DEAD_KEPT_S - 1) == []
    assert catalogue.forget(10.0 + DEAD_KEPT_S) == ["b"]
    assert catalogue.offers("b") == {}
    assert not catalogue.accept(entry(9, generation=5))
    catalogue.revive("b", 4, id_of("b"))
    assert not catalogue.accept(entry(9, generation=4))
    assert catalogue.accept(entry(3, generation=5))


def test_what_is_remembered_of_the_forgotten_is_bounded_in_number_and_time() -> None:
    catalogue = catalogue_of("a", 1)
    for number in range(DEPARTED_MAX + 2):
        catalogue.revive(f"n{number}", 5, f"id{number}")
        catalogue.bury(f"n{number}", 0.0)
    assert len(catalogue.forget(DEAD_KEPT_S)) == DEPARTED_MAX + 2
    assert len(catalogue.forget(DEAD_KEPT_S + 1.0)) == 0
    for name, stale in (("n0", False), (f"n{DEPARTED_MAX + 1}", True)):
        catalogue.revive(name, 1, f"id{name[1:]}")
        assert catalogue.lacks(name, 4, "k", 1) is not stale
    catalogue.forget(DEAD_KEPT_S + DEPARTED_KEPT_S)
    catalogue.revive("n9", 1, "id9")
    assert catalogue.lacks("n9", 4, "k", 1)


def test_entries_are_reissued_under_a_later_generation() -> None:
    catalogue = catalogue_of("a", 1)
    catalogue.offer("models/0", b"one")
    catalogue.offer("models/1", b"two")
    catalogue.withdraw("models/1")
    reissued = catalogue.reissue(7)
    assert {made.generation for made in reissued} == {7}
    assert catalogue.offers("a") == {"models/0": b"one"}
    reader = catalogue_of("z", 1)
    reader.revive("a", 7, id_of("a"))
    for made in reissued:
        reader.accept(made)
    assert reader.root == catalogue.root


def test_a_cut_keeps_what_fits() -> None:
    entries = [entry(version, key=f"k/{version}") for version in range(1, 11)]
    kept = cut(entries, budget_bytes=200)
    assert 0 < len(kept) < 10
    assert kept == entries[: len(kept)]
