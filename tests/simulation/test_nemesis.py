"""A plan of faults leaves a mesh that can heal: never too many down, and nothing wrong in its last third but who stays down."""

from __future__ import annotations

from collections import Counter

import pytest

from maia.sim.nemesis import Crash, Fault, Garbage, Leave, Move, Restart, Rotation, plan

SECONDS = 60.0
NODES = 10


def ends_s(fault: Fault) -> float:
    return fault.at_s + getattr(fault, "for_s", 0.0)


@pytest.mark.parametrize("seed", range(40))
def test_everything_is_over_by_two_thirds_and_a_third_is_down_at_most(seed: int) -> None:
    down: dict[int, None] = {}
    for fault in sorted(plan(seed, nodes=NODES, seconds=SECONDS, faults=12, sealed=True), key=lambda fault: fault.at_s):
        match fault:
            case Crash() | Leave():
                assert fault.node not in down
                down[fault.node] = None
            case Restart():
                del down[fault.node]
            case _:
                assert ends_s(fault) <= SECONDS * 2 / 3 + 0.1
        assert len(down) <= NODES // 3


def test_every_kind_of_fault_is_planned_sooner_or_later_and_keys_rotate_only_where_there_are_any() -> None:
    kinds = Counter(type(fault) for seed in range(200) for fault in plan(seed, nodes=NODES, seconds=SECONDS, faults=12, sealed=True))
    assert set(kinds) == set(Fault.__args__)
    unsealed = [fault for seed in range(50) for fault in plan(seed, nodes=NODES, seconds=SECONDS, faults=12)]
    assert not any(isinstance(fault, Rotation) for fault in unsealed)


def test_the_seed_of_all_others_never_moves() -> None:
    planned = [fault for seed in range(100) for fault in plan(seed, nodes=NODES, seconds=SECONDS, faults=12)]
    assert all(fault.node for fault in planned if isinstance(fault, Move))


def test_garbage_is_never_empty_and_fits_a_packet() -> None:
    planned = [fault for seed in range(50) for fault in plan(seed, nodes=NODES, seconds=SECONDS, faults=12)]
    assert all(0 < len(fault.garbage) <= 1200 for fault in planned if isinstance(fault, Garbage))
