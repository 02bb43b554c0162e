"""Tens of thousands of datagrams and streams that nobody should have sent: a mesh goes on, and what it rejects changes nothing.

`FUZZ_DATAGRAMS` says how many, over all kinds; `python -m tests.proof fuzz` hears ten million on all cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from tests.maia import fuzzing
from tests.maia.fuzzing import KINDS, LIMITS, Outcome
from tests.maia.talk import Talk

from maia.keyring import Keyring

DATAGRAMS = int(os.environ.get("FUZZ_DATAGRAMS", "24000"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_mesh_that_hears_nonsense_for_long_goes_on_and_what_it_rejects_changes_nothing(kind: Callable[[int, int], Outcome]) -> None:
    outcome = kind(1, DATAGRAMS // len(KINDS))
    assert 0 < outcome.rejected <= outcome.heard == DATAGRAMS // len(KINDS)


def test_of_a_sealed_mesh_nothing_that_it_cannot_open_is_ever_heard() -> None:
    assert fuzzing.sealed_noise(3, 2000).rejected == 2000


def test_a_rejected_datagram_is_told_apart_from_one_that_is_heard() -> None:
    """The harness sees a change: an accusation that comes with the right key is no rejection."""
    talk = Talk(limits=LIMITS, keyring=Keyring((fuzzing.KEY,)))
    before = talk.mesh.counters.bytes_in_by_kind.get("rejected", 0)
    talk.mesh.receive(b"\x03\x80", sender=talk.config.gossip, now=0.0)
    assert talk.mesh.counters.bytes_in_by_kind["rejected"] == before + 2
