"""How much checking a node lets others cause, and what of it comes first."""

from __future__ import annotations

from tests.maia.keys import entry_of, id_of, key_of

from maia.catalogue.catalogue import Catalogue
from maia.catalogue.intake import (
    ASKED_FOR_S,
    ENTRY_OVERHEAD_BYTES,
    SLICE_CHECKS,
    SLICE_PAUSE_S,
    UNASKED_PER_S,
    WAITING_BYTES_MAX,
    Intake,
)
from maia.config import Address
from maia.view import Counters
from maia.wire.offers import VALUE_BYTES_MAX, Entry

PEER, OTHER = Address("10.0.0.1", 1), Address("10.0.0.1", 2)


class Door:
    """An intake before a catalogue that knows many nodes, `n0` and so on."""

    def __init__(self, *, nodes: int = 0) -> None:
        self.catalogue = Catalogue("me", 1, signer=key_of("me"), cluster_id="")
        self.counters = Counters()
        self.intake = Intake(self.catalogue, self.counters)
        for number in range(nodes):
            self.catalogue.revive(f"n{number}", 1, id_of(f"n{number}"))


def entry(number: int, *, key: str = "models/0", version: int = 1, signer: str = "") -> Entry:
    return entry_of(f"n{number}", 1, key, version, 0, b"a model", signer=signer)


def forged(number: int, version: int = 1) -> Entry:
    """With the owner's public key, which everybody knows, and a signature that is none."""
    return entry(number, version=version)._replace(signature=bytes(64))


def test_unasked_entries_are_kept_at_once_up_to_a_hundred_a_second() -> None:
    door = Door(nodes=150)
    kept = door.intake.hear([entry(number) for number in range(150)], PEER, 0.0)
    assert len(kept) == UNASKED_PER_S
    assert door.counters.rejected == {"unchecked": 150 - UNASKED_PER_S}
    assert door.intake.hear([entry(120)], PEER, 0.001) == []
    assert len(door.intake.hear([entry(number) for number in range(100, 150)], PEER, 0.25)) == UNASKED_PER_S // 4
    assert door.intake.due_s() == float("inf")


def test_what_is_no_news_costs_no_check_and_what_is_another_s_neither() -> None:
    door = Door(nodes=2)
    assert len(door.intake.hear([entry(0)], PEER, 0.0)) == 1
    stale = [entry(0)._replace(signature=bytes(64))] * 500
    assert door.intake.hear(stale, PEER, 0.0) == []
    assert door.intake.hear([entry(1, signer="mallory")] * 500, PEER, 0.0) == []
    assert door.counters.rejected == {"other-signer": 500}
    assert len(door.intake.hear([entry(1)], PEER, 0.0)) == 1


def test_a_flood_of_forgeries_is_checked_at_a_bounded_rate_and_what_we_ask_for_comes_through() -> None:
    door = Door(nodes=3)
    door.intake.hear([forged(0, version) for version in range(1, 501)], OTHER, 0.0)
    assert door.counters.rejected == {"bad-signature": UNASKED_PER_S, "unchecked": 500 - UNASKED_PER_S}
    assert door.intake.hear([entry(1)], PEER, 0.0) == []
    door.intake.ask([("n1", "models/0")], PEER, 0.0)
    assert door.intake.hear([entry(1)], PEER, 0.0) == [entry(1)]


def test_what_was_asked_of_one_peer_is_not_asked_of_another_nor_for_ever_nor_twice() -> None:
    door = Door(nodes=4)
    door.intake.hear([forged(0, version) for version in range(1, 101)], OTHER, 0.0)
    door.intake.ask([("n1", "models/0"), ("n2", "models/0")], PEER, 0.0)
    assert door.intake.hear([entry(1)], OTHER, 0.0) == []
    assert door.intake.hear([forged(1), entry(1)], PEER, 0.0) == []
    door.intake.hear([forged(0, version) for version in range(1, 501)], OTHER, ASKED_FOR_S + 0.1)
    assert door.intake.hear([entry(2)], PEER, ASKED_FOR_S + 0.1) == []


def test_what_was_asked_for_is_checked_in_slices_with_pauses_for_everything_else() -> None:
    door = Door(nodes=100)
    kept = [len(door.intake.pull([entry(number) for number in range(100)], 0.0))]
    now = 0.0
    while door.intake.waiting:
        assert door.intake.tick(now) == []
        assert door.intake.due_s() == now + SLICE_PAUSE_S
        now = door.intake.due_s()
        kept.append(len(door.intake.tick(now)))
    assert kept == [SLICE_CHECKS, SLICE_CHECKS, SLICE_CHECKS, 4]
    assert SLICE_CHECKS / SLICE_PAUSE_S == 2000


def test_what_another_brought_meanwhile_is_not_checked_again() -> None:
    door = Door(nodes=100)
    everything = [entry(number) for number in range(SLICE_CHECKS + 2)]
    door.intake.pull(everything, 0.0)
    assert len(door.intake.hear(everything, OTHER, 0.0)) == 2
    assert door.intake.tick(1.0) == []
    assert (door.intake.waiting, door.counters.rejected) == (0, {})


def test_what_waits_is_bounded_in_bytes_and_what_is_beyond_is_counted() -> None:
    door = Door(nodes=1)
    big = entry_of("n0", 1, "devices", 1, 0, bytes(VALUE_BYTES_MAX))
    room = WAITING_BYTES_MAX // (VALUE_BYTES_MAX + ENTRY_OVERHEAD_BYTES)
    door.intake.pull([], 0.0)
    door.intake.pull([big] * (room + 7), 0.0)
    assert door.counters.rejected == {"unchecked": 7}
    assert door.intake.waiting == 0  # one copy was news
    door.intake.pull([big._replace(version=2)], 1.0)
    assert door.counters.rejected == {"unchecked": 7, "bad-signature": 1}


def test_only_what_we_signed_ourselves_is_a_later_life_of_ours() -> None:
    door = Door()
    ours = entry_of("me", 9, "models/0", 1, 0, b"of then")
    assert door.intake.hear([ours._replace(generation=2**53), ours._replace(signature=bytes(64))], PEER, 0.0) == []
    assert door.intake.hear([entry_of("me", 12, "models/0", 1, 0, b"forged", signer="mallory")], PEER, 0.0) == []
    assert door.intake.later_generation == -1
    assert door.counters.rejected == {"bad-signature": 2, "other-signer": 1}
    assert door.intake.hear([ours], PEER, 0.0) == []
    assert door.intake.later_generation == 9
    assert door.catalogue.offers("me") == {}
